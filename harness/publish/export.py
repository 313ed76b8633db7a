"""A variant's model as a folder that others can load, with a model card."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.exhausted import writing
from harness.folders import remove_abandoned, temporary
from harness.models import forward
from harness.models.architectures import kind_of, marked
from harness.models.causal_lm import vocabulary_of
from harness.models.checkpoint import quiet
from harness.models.configuration import head_of, reader_of
from harness.models.pretrained import ReadAs, load_pretrained
from harness.models.weights import (
    ARCHITECTURE,
    WEIGHTS,
    LazyWeights,
    forget_places,
    module_with,
    save_network,
    saved_architecture,
)
from harness.pools.folder_model import FolderModel
from harness.pools.source import PoolPlan
from harness.publish.adapter import write_adapter
from harness.publish.readme import model_readme
from harness.registry import KINDS
from harness.results.run import Run
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.stages.variant import built, load_built
from harness.store import Store
from harness.suite.suite import read_suite
from harness.systems.dropout import DropoutPass
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, SingleModel
from harness.types import Architecture, Combination, Member, NotApplicable

ROUNDING = 1e-5
"""How far log-probabilities of one model may be apart whose weights are laid out in memory in two ways."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CARRIED = {".json", ".jinja", ".model", ".txt", ".tiktoken"}
"""Endings of the files that say how a model is used: tokenizer, chat templates, generation settings."""
LEFT = {"config.json", "adapter_config.json", "trainer_state.json", "architecture.json", "quantize_config.json"}


def export(
    run: Run,
    variant: str,
    target: Path,
    seed: int | None = None,
    dtype: str | None = None,
    allow_code: bool = False,
    adapter_rank: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the model of a variant to a new folder and return it.

    Language models and classifiers of transformers become Hugging Face folders with all that belongs to the base's or
    first member's folder: tokenizer or image processor, chat template, generation settings; a classifier's labels are
    the task's. Other networks become model.safetensors and architecture.json. All are read back and give the same
    predictions before the folder appears. With ``adapter_rank`` it becomes an adapter on the pool's base, which is read
    back too, and how far it is from the model stands in its card.

    Args:
        run: whose store still has the variant.
        variant: its name.
        target: a folder that does not exist, or is empty.
        seed: of the run, the first by default.
        dtype: a name of ``DTYPES`` for such a model's weights; by default what its members' folders have.
        allow_code: whether what the suite and its task files name may be run, to know the run's variants again.
        adapter_rank: the largest rank of an adapter's factors.
        say: is told, in a line, how far an adapter is from the model.

    Raises:
        BadInput: a variant that the run does not have, that is not ok, or that is more than one model; a run whose
            suite or artefacts are gone; a target that is in use; an adapter where there is no base for it, or as
            ``write_adapter``.
    """
    if adapter_rank is not None:
        _check_rank(adapter_rank, dtype)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput("there is something already", place=str(target), hint="name a new folder")
    seed = _seed(run, seed)
    _check_row(run, variant, seed)
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"unknown dtype '{dtype}'", given=dtype, choices=DTYPES)
    combination, inputs, origin, base = _load(run, variant, seed, allow_code)
    architecture, module = _one_model(combination, variant)
    if dtype is not None and origin is None:
        raise BadInput(f"--dtype is for models of transformers: {_words(architecture)} is float32")
    if vocabulary := vocabulary_of(architecture):
        inputs = inputs.clamp(max=vocabulary - 1)
    adapted = None if adapter_rank is None else _adapted(base, run)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, f".{target.name}.exporting")
    with writing(target.parent), temporary(target.parent, f".{target.name}.exporting") as fresh:
        if adapted is not None and adapter_rank is not None:
            written = write_adapter(module, adapted, adapter_rank, inputs, fresh)
            say(f"adapter of rank {adapter_rank}: {written}")
            card = model_readme(run, variant, seed, "as float32, in an adapter on its base", adapter=written.sentences)
        else:
            read, stored = _whole(architecture, module, origin, dtype, fresh)
            if not _same(read, module, inputs):
                raise BadInput(f"'{variant}' cannot be written down as one {architecture.name}", place=str(target))
            if (fresh / ARCHITECTURE).is_file():
                forget_places(fresh)
            card = model_readme(run, variant, seed, stored, head_of(architecture))
        (fresh / "README.md").write_text(card, encoding="utf-8")
        if target.exists():
            target.rmdir()
        fresh.rename(target)
    return target


def _whole(
    architecture: Architecture, module: nn.Module, origin: Origin | None, dtype: str | None, folder: Path
) -> tuple[nn.Module, str]:
    """Write a whole model; how it is read back, and how its weights are stored."""
    if origin is None:
        save_network(architecture, module, folder)
        return module_with(saved_architecture(folder), LazyWeights(folder / WEIGHTS)), "as float32"
    precision = dtype or origin.dtype
    rounded = _write(module, origin.folder, DTYPES[precision], folder)
    stored = f"in {precision}, {'rounded from' if rounded else 'bit by bit'} those that were scored"
    return _read(folder, architecture), stored


def _check_rank(rank: int, dtype: str | None) -> None:
    if rank < 1:
        raise BadInput(f"--adapter-rank is {rank}", hint="an adapter's factors have a rank of at least 1")
    if dtype is not None:
        raise BadInput("--dtype is for whole models: an adapter is float32", hint="name --adapter-rank or --dtype")


def _adapted(base: Member | None, run: Run) -> Member:
    """The base that an adapter is for."""
    if base is None:
        what, hint = "an adapter needs a pool whose base is a Hugging Face folder", "a suite names it under hf: base"
        raise BadInput(what, place=str(run.folder), hint=hint)
    return base


def _words(architecture: Architecture) -> str:
    """What a network is called in messages."""
    kind = kind_of(architecture)
    return KINDS.get(kind).models if kind else str(architecture)


def _seed(run: Run, seed: int | None) -> int:
    seeds: list[int] = run.record["seeds"]
    if seed is not None and seed not in seeds:
        raise BadInput(f"the run has no seed {seed}", place=str(run.folder), choices=map(str, seeds))
    return seeds[0] if seed is None else seed


def _check_row(run: Run, variant: str, seed: int) -> None:
    rows = run.variants[run.variants["seed"] == str(seed)].set_index("variant")
    if variant not in rows.index:
        raise BadInput(f"the run has no variant '{variant}'", place=str(run.folder), given=variant, choices=rows.index)
    if (status := rows.loc[variant, "status"]) != "ok":
        reason = rows.loc[variant, "reason"]
        raise BadInput(f"'{variant}' is {status.replace('_', ' ')}: {reason}", place=str(run.folder))


@dataclass(frozen=True)
class Origin:
    """Where a model of transformers comes from."""

    folder: Path
    """What belongs to the model, beside its weights, lies here."""
    dtype: str
    """The precision of its members' weights."""


def _load(
    run: Run, variant: str, seed: int, allow_code: bool
) -> tuple[Combination, Tensor, Origin | None, Member | None]:
    """The variant as it was built, a batch of test inputs, where it comes from if transformers reads it, and its base.

    A base that is in no folder of transformers is none.
    """
    recorded = run.record["suite"]
    suite = read_suite(Path(recorded["path"]))
    again = "run the suite again with this version"
    if suite.digest != recorded["digest"]:
        raise BadInput("the suite file was changed since the run", place=recorded["path"], hint=again)
    out = run.folder.resolve().parents[1]
    device = run.record.get("device") or run.record["devices"][0]["kind"]
    with _saying_damage_once():
        plan = make_plan(suite, Options(out, seed=seed, device=device, allow_code=allow_code))
        planned, store = plan.variants[seed][variant], plan.store
        damage = store.lost(planned.build_key)
    if damage:
        raise BadInput(damage, hint=again)
    record = built(store, planned)
    if record is None or record["status"] != "ok":
        raise BadInput(f"the weights of '{variant}' are not in {store.root}", place=str(run.folder), hint=again)
    combination = load_built(plan.setting.of(seed), planned)
    inputs = plan.task.test.inputs[: plan.task.test.batch]
    planned_base = planned.pool.base
    base = planned_base.member(store) if planned_base and planned_base.folder else None
    own = combination.parts()[0].digest if isinstance(combination, OutputCombination) else None
    origin = _origin(planned.pool, own)
    if tokens := plan.task.test.tokenizer:
        return combination, inputs, origin or Origin(Path(tokens.folder), "float32"), base
    reader = reader_of(_one_model(combination, variant)[0])
    return combination, inputs, Origin(Path(reader.folder), origin.dtype) if reader and origin else None, base


@contextmanager
def _saying_damage_once() -> Iterator[None]:
    """The store says what it finds damaged, for runs, which make it again; here it is the error of the command."""
    log = logging.getLogger(Store.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _origin(pool: PoolPlan, own: str | None) -> Origin | None:
    """Where a member (by its digest), or what was made of the pool, comes from; None where no folder goes with it."""
    used = [member for member in pool.everyone if member.folder]
    chosen = next((member for member in used if own in member.digests), used[0] if used else None)
    if chosen is None or chosen.folder is None:
        return None
    made_here = any(member.dtype is None for member in pool.members) and own not in chosen.digests
    return Origin(chosen.folder, "float32" if made_here else chosen.dtype or "float32")


def _one_model(combination: Combination, variant: str) -> tuple[Architecture, nn.Module]:
    if isinstance(combination, SingleModel):
        return combination.architecture, combination.module
    hint = "export a single model: a member, a merge or a student"
    if not isinstance(combination, OutputCombination):
        what = f"a {type(combination).__name__} system of {len(combination.parts())} models"
        raise BadInput(f"'{variant}' is {what}, which no folder of weights can hold", hint=hint)
    parts = combination.parts()
    if len(parts) > 1 or not isinstance(combination.rule, Linear) or isinstance(parts[0], DropoutPass):
        what = f"an output rule over {len(parts)} models" if len(parts) > 1 else "a model and an output rule"
        raise BadInput(f"'{variant}' is {what}, which no folder of weights can hold", hint=hint)
    try:
        _ = len(parts[0].member.weights)
    except NotApplicable as reason:
        raise BadInput(f"'{variant}' cannot be written down: {reason}") from None
    return parts[0].member.architecture, parts[0].module


def _read(folder: Path, architecture: Architecture) -> nn.Module:
    """The model in a folder as another reads it, who knows nothing of this run."""
    head = head_of(architecture)
    if head is None or not head.labelled:
        return forward.as_read_by(kind_of(architecture), load_pretrained(folder))
    model = FolderModel(str(folder), read_as=ReadAs(head))
    return marked(load_pretrained(folder, model.read_as), model.architecture)


def _write(module: nn.Module, origin: Path, dtype: torch.dtype, folder: Path) -> bool:
    """A model in the format that transformers writes; whether rounding to the precision changed its weights.

    The module is left with the weights that were written.
    """
    rounded = False
    for parameter in module.parameters():
        exact, parameter.data = parameter.data, parameter.data.to(dtype)
        rounded |= not torch.equal(exact, parameter.data.to(exact))
    with quiet():
        module.save_pretrained(folder)  # type: ignore[operator]
    for parameter in module.parameters():
        parameter.data = parameter.data.float()
    for path in sorted(origin.iterdir()):
        if path.suffix in CARRIED and path.name not in LEFT and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)
    if (templates := origin / "additional_chat_templates").is_dir():
        shutil.copytree(templates, folder / templates.name)
    return rounded


def _same(read: nn.Module, module: nn.Module, inputs: Tensor) -> bool:
    """Whether a model that was read back is the one that was written.

    On some processors a convolution's last digits go by how its weights are laid out in memory, which no file tells.
    """
    with torch.inference_mode():
        found, expected = (forward.log_probs(each, inputs) for each in (read, module))
    ours, theirs = read.state_dict(), module.state_dict()
    alike = ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    return torch.equal(found, expected) or (alike and torch.allclose(found, expected, rtol=ROUNDING, atol=ROUNDING))
