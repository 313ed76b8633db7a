"""The systems that methods return: an output rule over several models, or one model; both are saved and loaded here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from harness.keys import digest
from harness.merging.arithmetic import Weights, first_of
from harness.merging.batchnorm import recalibrate, shared_statistics
from harness.models import forward
from harness.models.streamed import module_to_run
from harness.models.weights import (
    WEIGHTS,
    LazyWeights,
    save_network,
    saved_architecture,
)
from harness.store import read_json, write_json
from harness.systems import text_acceptance  # noqa: F401 (its acceptances register themselves)
from harness.systems.acceptance import Acceptance
from harness.systems.cascade_routing import FILE as CASCADE_ROUTING
from harness.systems.cascade_routing import CascadeRouting, router_folder
from harness.systems.dropout import DropoutPass
from harness.systems.parts import CPU, MaskedPart, MemberPart, ModelPart
from harness.systems.pipeline import FILE as PIPELINE
from harness.systems.pipeline import LAST, Pipeline, stage_of
from harness.systems.routed import FILE as ROUTED
from harness.systems.routed import Routed
from harness.systems.routers import Router
from harness.systems.rules import RULE, Linear, Rule
from harness.systems.staged import FILE as STAGED
from harness.systems.staged import Staged, stage_folder
from harness.systems.written import SYSTEMS, WRITTEN, WrittenAnswers
from harness.types import (
    Architecture,
    Combination,
    Ingredients,
    NotApplicable,
    Part,
    Pool,
    cut_to,
    shared_labels,
    stack,
)

PARTS = "parts.json"
"""The file that says which members a saved rule is over."""
SEQUENCE_LEVEL = "a sequence-level mixture"
"""How a mixture of members with different tokenizers is named wherever it is shown: its numbers are not those of a
token-level ensemble."""


def stacked_log_probs(models: Sequence[Callable[[Tensor], Tensor]], batch: Tensor) -> Tensor:
    """Predictions [M, N, C] of models that run one after another, each written to its place as soon as it is there.

    (With a large vocabulary predictions are most of an ensemble's memory: a list that is stacked holds them twice.)
    """
    first = models[0](batch)
    if len(models) == 1:
        return first.unsqueeze(0)
    stacked = first.new_empty((len(models), *first.shape))
    stacked[0] = first
    del first
    for index, model in enumerate(models[1:], start=1):
        stacked[index] = model(batch)
    return stacked


def finite_or_none(details: Any) -> Any:
    """Details as JSON values: a number that is not finite (the loss of an excluded label, say) is None."""
    if isinstance(details, Mapping):
        return {key: finite_or_none(value) for key, value in details.items()}
    if isinstance(details, list | tuple):
        return [finite_or_none(value) for value in details]
    return None if isinstance(details, float) and not math.isfinite(details) else details


class OutputCombination(Combination):
    """An output rule over the predictions of several parts; those that the rule gives weight 0 are never run."""

    def __init__(self, parts: Sequence[MemberPart], rule: Rule, details: Mapping[str, Any] | None = None) -> None:
        self._parts, self.rule = tuple(parts), rule
        self.details = dict(details or {})
        if fewer := rule.used():
            self.rule, kept = fewer
            self._parts = tuple(parts[k] for k in kept)
            self.details["not_run"] = [part.name for k, part in enumerate(parts) if k not in kept]
        if self.by_continuation:
            if not isinstance(rule, Linear):
                raise NotApplicable(f"members have different tokenizers: only {SEQUENCE_LEVEL} by linear is defined")
            self.details["level"] = SEQUENCE_LEVEL
        self.vocabulary = None if self.by_continuation else self._vocabulary()
        """The tokens that language models of one tokenizer are combined over; None for other models."""
        if self.vocabulary is not None and {part.vocabulary for part in self._parts} != {self.vocabulary}:
            cut = f"cut to the {self.vocabulary} tokens of the tokenizer, for the members are padded differently"
            self.details["vocabulary"] = cut

    def _vocabulary(self) -> int | None:
        sizes = [part.vocabulary for part in self._parts if part.vocabulary is not None]
        if len(sizes) < len(self._parts):
            return None
        tokenizer = self._parts[0].tokenizer
        known = tokenizer.size if tokenizer and len(set(sizes)) > 1 else None
        return shared_labels([part.name for part in self._parts], sizes, known)

    @property
    def by_continuation(self) -> bool:
        """Whether the parts have different tokenizers, so that only their sequence-level ensemble has a meaning."""
        return len({part.tokenizer for part in self._parts}) > 1

    def combine(self, stacked: Tensor) -> Tensor:
        """The rule on predictions [M, ..., C] of the parts, made once and shared: no model runs."""
        return self.rule(stacked)

    def log_probs(self, batch: Tensor) -> Tensor:
        if self.by_continuation:
            raise NotApplicable(f"{SEQUENCE_LEVEL} gives no probabilities of tokens")
        return self.combine(stacked_log_probs([partial(self.predict, part) for part in self._parts], batch))

    @property
    def replays(self) -> bool:
        return True

    def replay(self, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        found = self.combine(stack(self._parts, predictions))
        return found, self.every_part_once(len(found))

    def predict(self, part: Part, batch: Tensor) -> Tensor:
        """Log-probabilities [B, C] of one part, over the vocabulary that the parts share."""
        predicted = part.log_probs(batch)
        return predicted if self.vocabulary is None else cut_to(self.vocabulary, predicted)

    def parts(self) -> Sequence[MemberPart]:
        return self._parts

    def save(self, folder: Path) -> None:
        self.rule.save(folder)
        write_json(folder / PARTS, [part.reference() for part in self._parts])


class SingleModel(Combination):
    """One model: a soup, a merge, a student, a mixture of experts."""

    def __init__(
        self, architecture: Architecture, module: nn.Module, details: Mapping[str, Any] | None = None
    ) -> None:
        self.architecture, self.module = architecture, module.eval()
        self.details = dict(details or {})

    def log_probs(self, batch: Tensor) -> Tensor:
        return forward.log_probs(self.module, batch)

    @property
    def replays(self) -> bool:
        return True

    def replay(self, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        (found,) = predictions
        return found, self.every_part_once(len(found))

    def parts(self) -> Sequence[Part]:
        return (ModelPart(str(self.architecture), self.module, f"in-memory-{id(self.module)}"),)

    def save(self, folder: Path) -> None:
        save_network(self.architecture, self.module, folder)


def load_combination(
    folder: Path, pool: Pool, device: torch.device = CPU, shared: dict[str, MemberPart] | None = None
) -> Combination:
    """The combination saved in a folder; members are found in the pool by their digests.

    Combinations that are held at once are given one dictionary as ``shared``: a member of several is then loaded once.
    """
    models = {} if shared is None else shared
    for file, load in reversed(LOADERS.items()):  # one of a plug-in may hold our files as well
        if (folder / file).is_file():
            return load(folder, pool, device, models)
    architecture = saved_architecture(folder)
    weights = LazyWeights(folder / WEIGHTS)  # all of them at once would take the memory of two models
    return SingleModel(architecture, module_to_run(architecture, weights, device))


def _load_rule(folder: Path, pool: Pool, device: torch.device, shared: dict[str, MemberPart]) -> OutputCombination:
    references = read_json(folder / PARTS)
    members = _members(references, pool, device, shared)
    parts = [
        DropoutPass(part, r["pass"], r["seed"]) if "pass" in r else part
        for part, r in zip(members, references, strict=True)
    ]
    return OutputCombination(parts, Rule.load(folder))


def _members(
    references: Sequence[Mapping[str, Any]], pool: Pool, device: torch.device, shared: dict[str, MemberPart]
) -> list[MemberPart]:
    """Those that are saved by reference, each as it is among ``shared``, where it is put."""
    members = {m.digest: m for m in (*pool.members, *((pool.base,) if pool.base else ()))}
    for digest_ in {r["member"] for r in references} - shared.keys():
        member = members[digest_]
        shared[digest_] = (MaskedPart if member.says == "text" else MemberPart)(member, device)
    return [shared[r["member"]] for r in references]


def _load_staged(folder: Path, pool: Pool, device: torch.device, shared: dict[str, MemberPart]) -> Staged:
    record = read_json(folder / STAGED)
    folders = [folder / stage_folder(number) for number in range(record["stages"])]
    stages = [load_combination(each, pool, device, shared) for each in folders]
    accept, *settings = (
        [Acceptance.restore(values) for values in chosen] for chosen in (record["accept"], *record["settings"])
    )
    return Staged(stages, accept, settings=settings)


def _load_cascade_routing(
    folder: Path, pool: Pool, device: torch.device, shared: dict[str, MemberPart]
) -> CascadeRouting:
    record = read_json(folder / CASCADE_ROUTING)
    count = record["stages"]
    return CascadeRouting(
        [load_combination(folder / stage_folder(number), pool, device, shared) for number in range(count)],
        [Router.load(folder / router_folder(number)) for number in range(count - 1)],
        record["shares"],
        record["price"],
        decisions=record["decisions"],
        settings=record["settings"],
    )


def _load_pipeline(folder: Path, pool: Pool, device: torch.device, shared: dict[str, MemberPart]) -> Pipeline:
    record = read_json(folder / PIPELINE)
    parts = _members(record["stages"], pool, device, shared)
    stages = [stage_of(stage, part) for stage, part in zip(record["stages"], parts, strict=True)]
    last = load_combination(folder / LAST, pool, device, shared)
    return Pipeline(stages, last, record["classes"], record["otherwise"])


def _load_written(folder: Path, pool: Pool, device: torch.device, shared: dict[str, MemberPart]) -> WrittenAnswers:
    record = read_json(folder / WRITTEN)
    return SYSTEMS[record["kind"]](_members(record["parts"], pool, device, shared), **record["with"])


def _load_routed(folder: Path, pool: Pool, device: torch.device, shared: dict[str, MemberPart]) -> Routed:
    record = read_json(folder / ROUTED)
    members = _members(record["members"], pool, device, shared)
    return Routed(
        members,
        Router.load(folder),
        record["prices"],
        picked=record["picked"],
        asked=record["asked"],
        settings=record["settings"],
    )


Loader = Callable[[Path, Pool, torch.device, dict[str, MemberPart]], Combination]
LOADERS: dict[str, Loader] = {
    RULE: _load_rule,
    STAGED: _load_staged,
    ROUTED: _load_routed,
    CASCADE_ROUTING: _load_cascade_routing,
    PIPELINE: _load_pipeline,
    WRITTEN: _load_written,
}
"""By a file that only combinations of one kind have in their folder; a module with another kind adds its own."""


def saved_rule(folder: Path) -> Rule | None:
    """The rule of the combination saved in a folder; None where it is one model."""
    return Rule.load(folder) if (folder / RULE).is_file() else None


def runs_members_once(folder: Path) -> bool:
    """Whether the combination saved in a folder is a rule over members that each run once, as they are."""
    return (folder / RULE).is_file() and not any("pass" in reference for reference in read_json(folder / PARTS))


def dense_network(folder: Path) -> str | None:
    """A digest of the network saved in a folder but for its weights' values: what runs alike has the same.

    None where no one network is saved there, or one of whose experts some run: that depends on the weights.
    """
    if not (folder / WEIGHTS).is_file() or any((folder / file).is_file() for file in LOADERS):
        return None
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: (str(each.get_dtype()), list(each.get_shape())) for name, each in tensors.items()}
    if any(".experts." in name for name in shapes):
        return None
    return digest([str(saved_architecture(folder)), sorted(shapes.items())])


def member_parts(ingredients: Ingredients) -> list[MemberPart]:
    """The pool's members as parts, in the pool's order."""
    return [MemberPart(member, ingredients.device) for member in ingredients.members]


def merged_model(
    architecture: Architecture,
    weights: Weights,
    of: Sequence[Weights],
    train_inputs: Tensor,
    device: torch.device = CPU,
) -> nn.Module:
    """The module that holds merged weights.

    BatchNorm statistics that the models it is made ``of`` share are kept, the others recomputed on training inputs
    [N, ...].
    """
    constants = shared_statistics(of)
    module = module_to_run(architecture, first_of(constants, weights), device)
    recalibrate(module, batches_of(train_inputs, device), keep=constants)
    return module


def batches_of(inputs: Tensor, device: torch.device = CPU, size: int = 250) -> Iterable[Tensor]:
    """Inputs in order, in batches of at most ``size``, on the device."""
    return (batch.to(device) for batch in inputs.split(size))
