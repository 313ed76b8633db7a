"""Pipeline: one model's text or class is what the next model reads, and the last one says the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.evaluate.predictions import predict
from harness.evaluate.restoring import best_share, marks_any
from harness.methods.method import method
from harness.models import configuration
from harness.models.classifiers import texts_of
from harness.models.heads import READ_TEXTS
from harness.models.label_names import names_of
from harness.models.masked import mask_of
from harness.says import LACKS
from harness.systems.fitting import uniform
from harness.systems.parts import MaskedPart, MemberPart
from harness.systems.pipeline import Name, PassingStage, Pipeline, Restore
from harness.systems.rules import Linear, Rule
from harness.systems.stacking import fit_stacking
from harness.systems.systems import OutputCombination
from harness.types import Combination, Ingredients, Member, NotApplicable, Split

Share = Annotated[float, Field(ge=0, le=1)] | Literal["heldout"]
Rounds = Annotated[int, Field(ge=0)]
Position = Annotated[int, Field(ge=0)]


@method(
    "pipeline",
    family="staged",
    summary="Stages: what one member makes of an example, a text or a class, is what the next one reads.",
    paper="folklore",
    words="pipeline of {members}",
    needs={"members", "heldout"},
    order_sensitive=True,
    identical_members_unchanged=lambda parameters: (
        parameters["last"] == "member" and len(parameters["stages"]) == 1
    ),
    small=({"stages": [0]}, {"stages": [1], "last": "logistic"}),
    uses=lambda parameters: parameters["stages"],
    reads="text",
    seconds=10,
)
def pipeline(
    ingredients: Ingredients,
    *,
    stages: Annotated[list[Position], Field(min_length=1)],
    last: Literal["member", "logistic"] = "member",
    rounds: Rounds = 0,
    share: Share = 0.0,
    otherwise: Literal["uniform", "unchanged"] = "uniform",
) -> Combination:
    """Members by their positions, in order; the last one is a classifier.

    A masked language model restores the text for the next stage, as ``refine`` does (``rounds``, ``share``). A
    classifier that is not the last hands its class on, by its name, as the second text of a pair. ``last: logistic``
    takes the log-probabilities of the last member as features of a multinomial logistic model, fitted on held-out
    (``stacking`` of one).
    """
    everyone = ingredients.members
    if missing := [position for position in stages if position >= len(everyone)]:
        raise NotApplicable(f"there is no member {missing[0]}: the pool has {len(everyone)}")
    *before, reader = (everyone[position] for position in stages)
    if reader.says == "text":
        raise NotApplicable(f"the last stage says the class, and member {reader.name} {LACKS[reader.says]}")
    part, heldout = MemberPart(reader, ingredients.device), ingredients.heldout
    if not before:
        rule = _logistic(ingredients.predictions([part], heldout)[0], ingredients) if last == "logistic" else None
        return OutputCombination([part], rule or Linear(uniform(1)))
    _check(before, reader, heldout, share)
    classes = ingredients.predictions([part], heldout)[0].shape[-1]

    def build(share: float, rule: Rule | None = None, rounds: int = rounds) -> Pipeline:
        first = [_stage(member, ingredients.device, rounds, share) for member in before]
        return Pipeline(first, OutputCombination([part], rule or Linear(uniform(1))), classes, otherwise)

    found: dict[str, Any] = {}
    if share == "heldout":
        found = best_share(lambda tried: build(tried, rounds=0), heldout)
        share = float(found["share"])
    made = build(share)
    if last == "logistic":
        made = build(share, _logistic(predict(made.log_probs, heldout), ingredients))
    made.details |= found
    return made


def _check(before: Sequence[Member], reader: Member, heldout: Split, share: float | str) -> None:
    """``NotApplicable`` where a stage cannot read what it would be given, or would have nothing to do."""
    for member in (*before, reader):
        if configuration.head_of(member.architecture) not in READ_TEXTS:
            raise NotApplicable(f"stages hand on text, and member {member.name} reads none with a tokenizer of its own")
    classifiers = [member for member in before if member.says != "text"]
    if classifiers and len(texts_of(heldout.inputs[:1])[0]) > 1:
        raise NotApplicable("a class is handed on as the second text of a pair, and the task's texts are pairs already")
    if len(classifiers) > 1:
        raise NotApplicable("one stage can hand its class on, and two would")
    for member in before:
        reads = configuration.reader_of(member.architecture)
        if member.says == "text" and share == 0 and reads and not marks_any(heldout, reads):
            words = f"no held-out text has {member.name}'s mask '{mask_of(reads)[0]}' in it, and share is 0"
            raise NotApplicable(f"{words}: nothing would be restored (share: heldout finds out how much to doubt)")


def _stage(member: Member, device: torch.device, rounds: int, share: float) -> PassingStage:
    if member.says == "text":
        return Restore(MaskedPart(member, device), rounds, share)
    names = names_of(configuration.config_of(configuration.settings_of(member.architecture)))
    return Name(MemberPart(member, device), names)


def _logistic(said: Tensor, ingredients: Ingredients) -> Rule:
    """The stacked model of what one system says of held-out, [N, C]."""
    if said.isnan().any():
        raise NotApplicable("the last member says NaN on held-out, where the logistic model is fitted")
    return fit_stacking(said.unsqueeze(0), ingredients.heldout.labels, ingredients.generator())[0]
