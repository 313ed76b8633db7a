"""A variant's model as a folder that others can load, with a model card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import jobs
from harness.combinations import DropoutPass, OutputCombination, SingleModel
from harness.combining import Linear
from harness.errors import BadInput
from harness.model_readme import model_readme
from harness.models import forward
from harness.models.architectures import TRAINABLE
from harness.models.folders import load_folder
from harness.models.weights import WEIGHTS, LazyWeights, module_with, save_network, saved_architecture
from harness.planning import Options, make_plan
from harness.results import Run
from harness.store import Store
from harness.suite import read_suite
from harness.tasks import TASKS
from harness.tasks.text import TextTask
from harness.types import Architecture, Combination

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def export(run: Run, variant: str, target: Path, seed: int | None = None) -> Path:
    """Write the model of a variant to a new folder and return it.

    Language models become Hugging Face folders with their tokenizer; networks for images model.safetensors and
    architecture.json. Both are read back and give the same predictions before the folder appears.

    Args:
        run: whose store still has the variant.
        variant: its name.
        target: a folder that does not exist, or is empty.
        seed: of the run, the first by default.

    Raises:
        BadInput: a variant that the run does not have, that is not ok, or that is more than one model; a run whose
            suite or artefacts are gone; a target that is in use.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput("there is something already", place=str(target), hint="name a new folder")
    seed = _seed(run, seed)
    _check_row(run, variant, seed)
    combination, inputs, tokenizer = _load(run, variant, seed)
    architecture, module = _one_model(combination, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write(architecture, module, tokenizer, fresh)
        if not _same(_read(fresh, architecture), module, inputs):
            raise BadInput(f"'{variant}' cannot be written down as one {architecture.name}", place=str(target))
        (fresh / "README.md").write_text(model_readme(run, variant, seed), encoding="utf-8")
        fresh.chmod(0o755)
        if target.exists():
            target.rmdir()
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


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


def _load(run: Run, variant: str, seed: int) -> tuple[Combination, Tensor, Path | None]:
    """The variant as it was built, a batch of test inputs, and the folder of the tokenizer that it reads."""
    recorded = run.record["suite"]
    suite = read_suite(Path(recorded["path"]), TASKS, [name for names in TRAINABLE.values() for name in names])
    again = "run the suite again with this version"
    if suite.digest != recorded["digest"]:
        raise BadInput("the suite file was changed since the run", place=recorded["path"], hint=again)
    out = run.folder.resolve().parents[1]
    device = run.record.get("device") or run.record["devices"][0]["kind"]
    plan = make_plan(suite, Options(out, seed=seed, device=device))
    planned, store = plan.variants[seed][variant], Store(plan.setting.store)
    built = jobs.built(store, planned)
    if built is None or built["status"] != "ok":
        raise BadInput(f"the weights of '{variant}' are not in {store.root}", place=str(run.folder), hint=again)
    combination = jobs.load_built(plan.setting, planned)
    inputs = plan.task.test.inputs[: plan.task.test.batch]
    shared = plan.task.tokenizer if isinstance(plan.task, TextTask) else None
    own = combination.parts()[0].tokenizer
    return combination, inputs, Path(own.folder) if own else shared


def _one_model(combination: Combination, variant: str) -> tuple[Architecture, nn.Module]:
    if isinstance(combination, SingleModel):
        return combination.architecture, combination.module
    assert isinstance(combination, OutputCombination)
    parts = combination.parts()
    if len(parts) > 1 or not isinstance(combination.rule, Linear) or isinstance(parts[0], DropoutPass):
        what = f"an output rule over {len(parts)} models" if len(parts) > 1 else "a model and an output rule"
        hint = "export a single model: a member, a merge or a student"
        raise BadInput(f"'{variant}' is {what}, which no folder of weights can hold", hint=hint)
    return parts[0].member.architecture, parts[0].module


def _write(architecture: Architecture, module: nn.Module, tokenizer: Path | None, folder: Path) -> None:
    if tokenizer is None:
        save_network(architecture, module, folder)
        return
    module.save_pretrained(folder)  # type: ignore[operator]
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def _read(folder: Path, architecture: Architecture) -> nn.Module:
    if architecture.name not in TRAINABLE["images"]:
        return load_folder(folder)
    return module_with(saved_architecture(folder), LazyWeights(folder / WEIGHTS))


def _same(read: nn.Module, module: nn.Module, inputs: Tensor) -> bool:
    if not inputs.is_floating_point():
        inputs = inputs.clamp(max=module.config.vocab_size - 1)  # type: ignore[operator, union-attr]
    with torch.inference_mode():
        return torch.equal(forward.log_probs(read, inputs), forward.log_probs(module, inputs))
