"""A combination of language models written down in a file: what ``stockpot lm-eval`` scores.

    pool: {hf: {base: ../base, members: [../expert-a, ../expert-b]}}   # folders, relative to the file
    method: {linear: {weights: learned}}                              # any registered method
    heldout: heldout.txt          # text that weights are fitted and scales are searched on, where the method does
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import torch
from torch import Tensor

from harness.errors import BadInput
from harness.evaluate.predictions import predict
from harness.models.causal_lm import read_generation_config
from harness.models.precision import with_same_precision
from harness.models.pretrained import check_causal
from harness.models.ties import with_same_ties
from harness.models.tokens import read_tokenizer, reading, tokenizer_of
from harness.models.weights import check_finite
from harness.pools.folders import FOLDERS, HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.registry import METHODS
from harness.store import Store
from harness.strict import yaml
from harness.strict.beside import Beside
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear, Rule
from harness.systems.systems import OutputCombination, SingleModel
from harness.tasks.text import windows_of
from harness.types import Combination, Ingredients, NotApplicable, Part, Split

if TYPE_CHECKING:
    from harness.methods.method import Method


class _Pool(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    hf: HfPool


class CombinationFile(pydantic.BaseModel):
    """The keys of a combination file."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    pool: _Pool
    method: dict[str, dict[str, Any] | None] | str
    heldout: str | None = None
    seed: int = 0


def read_combination(path: Path, device: torch.device, **tokenizer: Any) -> tuple[Combination, Any]:
    """Build the combination of a file; returns it and its models' tokenizer, read with these settings.

    Its models generate by the settings in their folders; one that was merged, by those of the base or the first member.

    Raises:
        BadInput: a bad file, unknown methods or parameters, folders that are no models, a method that does not apply.
    """
    document = yaml.read(path)
    try:
        file = CombinationFile.model_validate(document.value)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        where = tuple(part for part in fault["loc"] if isinstance(part, str))
        hint = None if fault["type"] != "extra_forbidden" else f"it has {', '.join(CombinationFile.model_fields)}"
        raise BadInput(f"{'.'.join(where)}: {fault['msg']}", place=document.place(where), hint=hint) from None
    asked = FOLDERS.beside(file.pool.hf, path.parent)
    method, parameters = _method(file, document, Beside(path.parent, FOLDERS.folders(asked)))
    spec = FOLDERS.fetched(asked)
    folder = Path(spec.base or spec.members[0])
    words = tokenizer_of(folder)
    planned = plan_folders("main", spec)
    pool = reading(load_pool(planned, Store(path.parent)), words)
    if other := next((m for m in pool.members if m.tokenizer and m.tokenizer != words), None):
        hint = "a suite can make a sequence-level ensemble of them: linear, uniform or given weights"
        raise BadInput("the members have different tokenizers", place=str(other.provenance["folder"]), hint=hint)
    if method.family == "weights":
        every = range(len(pool.members))
        pool = with_same_precision(with_same_ties(pool, every), every)
    heldout = _heldout(path, file, folder)
    ingredients = Ingredients(pool, _no_windows(), heldout, _predict, file.seed, method.needs, device)
    try:
        combination = method.apply(ingredients, parameters)
    except NotApplicable as reason:
        raise BadInput(f"method '{method.name}' does not apply: {reason}", place=document.place(("method",))) from None
    if not isinstance(combination, OutputCombination | SingleModel):
        made = type(combination).__name__
        problem = f"method '{method.name}' makes a {made}: lm-eval is given output rules and single models"
        hint = "a suite scores staged systems on multiple choice"
        raise BadInput(problem, place=document.place(("method",)), hint=hint)
    folders = {digest: member.folder for member in planned.everyone for digest in member.digests}
    for part in combination.parts():
        own = part.member.digest if isinstance(part, MemberPart) else part.digest
        settings = read_generation_config(folders.get(own) or folder)  # before transformers, which reads them too
        check_finite(part.name, part.module)
        check_causal(part.module, part.name)
        part.module.generation_config = settings
    return combination, read_tokenizer(folder, **tokenizer)


def models_and_rule(combination: Combination) -> tuple[list[torch.nn.Module], Rule]:
    """The networks that an output rule or a single model runs, and the rule that joins their predictions."""
    if not isinstance(combination, OutputCombination | SingleModel):
        raise TypeError(f"a {type(combination).__name__} is no rule over models")
    models = [part.network for part in combination.parts()]
    return models, combination.rule if isinstance(combination, OutputCombination) else Linear(uniform(1))


def _method(file: CombinationFile, document: yaml.Document, beside: Beside) -> tuple[Method, dict[str, Any]]:
    given = {file.method: None} if isinstance(file.method, str) else file.method
    if len(given) != 1:
        raise BadInput("a combination has one method", place=document.place(("method",)))
    (name, parameters), *_ = given.items()
    method = METHODS.get(name, document.place(("method", name)))
    return method, method.validate(parameters or {}, document.place(("method", name)), beside)


class _NoText:
    """Stands where there is no held-out text: whatever needs it says what to add."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __getattr__(self, name: str) -> Any:
        raise BadInput("the method chooses on held-out text, and there is none", place=self.place,
                       hint="name a text file under 'heldout'")  # fmt: skip


def _heldout(path: Path, file: CombinationFile, folder: Path) -> Any:
    if file.heldout is None:
        return _NoText(str(path))
    text = path.parent / Path(file.heldout).expanduser()
    if not text.is_file():
        raise BadInput("there is no such file", place=str(text))
    return windows_of(text.read_text(encoding="utf-8"), folder)


def _no_windows() -> Split:
    return Split("train", torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long), [], "none")


def _predict(part: Part, split: Split) -> Tensor:
    return predict(part.log_probs, split)
