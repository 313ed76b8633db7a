"""The README.md of a merge: of which models and how it was made, by which recipe, and what its files are known by."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Lock

import yaml

from harness.display.formats import DASH, counted, inline_code, plain_text
from harness.recipes.document import Recipe
from harness.recipes.references import Reference

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CACHED = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?")
_BLOCK = 1 << 20
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def hashes(files: Iterable[Path], progress: Callable[[int, int], None] | None = None) -> dict[Path, str]:
    """sha256 of files. One that Hugging Face's cache holds is called by it; all others are read, on all cores.

    Args:
        files: each once or several times.
        progress: is told how many bytes are read, and how many there are.
    """
    wanted = list(dict.fromkeys(files))
    known = {file: name for file in wanted if (name := _name_of_blob(file))}
    others = [file for file in wanted if file not in known]
    told, done, size = Lock(), 0, sum(file.stat().st_size for file in others)

    def sha256(file: Path) -> str:
        nonlocal done
        digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
        with open(file, "rb", buffering=0) as handle:
            while count := handle.readinto(block):
                digest.update(block[:count])  # which gives way to other threads
                with told:
                    done += count
                    if progress is not None:
                        progress(done, size)
        return digest.hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return known | dict(zip(others, pool.map(sha256, others), strict=True))


def _name_of_blob(file: Path) -> str | None:
    blob = file.resolve() if file.is_symlink() else file
    return blob.name if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) else None


def hub_name(text: str, folder: Path | None) -> str | None:
    """What a hub calls the model in a folder; None where that is not known.

    That is a folder of Hugging Face's cache ("models--org--name/snapshots/..."), or one that a model was downloaded to
    by its name ("org/name", with Hugging Face's records of the download in it).

    Args:
        text: as the recipe names it.
        folder: that is meant.
    """
    if folder is None:
        return None
    for part, after in pairwise(folder.absolute().parts):
        if after == "snapshots" and (match := _CACHED.fullmatch(part)):
            return "/".join(each for each in match.groups() if each)
    downloaded = (folder / ".cache" / "huggingface").is_dir()
    return text if downloaded and _HUB_NAME.fullmatch(text) else None


def write_card(
    folder: Path,
    *,
    title: str,
    recipes: Sequence[Recipe],
    text: str,
    inputs: Mapping[str, Sequence[Path]],
    outputs: Sequence[Path],
    known: Mapping[Path, str],
    version: str,
    notes: Sequence[str] = (),
    adapter_rank: int | None = None,
) -> None:
    """Write README.md. Of paths it has none but those that stand in the recipe.

    Args:
        folder: the new one.
        title: what the merge is called.
        recipes: as read, in their order; the last one is the result.
        text: of the recipe's file.
        inputs: the files of weights of each model, and of adapters, by what the recipe calls it.
        outputs: the files of weights that were written.
        known: ``hashes`` of them, as far as they were asked for.
        version: of this program.
        notes: further sentences.
        adapter_rank: that the result was asked for with, where it is an adapter on the models' one base.
    """
    called = {each.text: _called(each) for each in _references(recipes)}
    names = (_hub_names(each)[: 1 if adapter_rank else 2] for each in _references(recipes))
    head = {
        "base_model": list(dict.fromkeys(name for each in names for name in each if name)),
        "base_model_relation": "adapter" if adapter_rank else "merge",
        "library_name": "peft" if adapter_rank else "transformers",
        "tags": ["merge", "stockpot"],
    }
    if not head["base_model"]:
        del head["base_model"], head["base_model_relation"]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    rows = [_row(inline_code(called.get(name, name)), file, known) for name, files in inputs.items() for file in files]
    rows += [_row("the merge", file, known) for file in outputs]
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {plain_text(title)}",
        f"{'An adapter (LoRA): a' if adapter_rank else 'A'} merge of {counted(len(inputs))} "
        f"model{'' if len(inputs) == 1 else 's'}, made by Stockpot {version}.",
        "\n".join(_stage(recipe, recipe is recipes[-1]) for recipe in recipes),
        *(["\n".join(f"- {plain_text(note)}" for note in notes)] if notes else []),
        "## Recipe",
        f"{fence}yaml\n{text.rstrip()}\n{fence}",
        f"To make it again, write this to `recipe.yml` beside the models and run `stockpot merge recipe.yml OUT"
        f"{f' --adapter-rank {adapter_rank}' if adapter_rank else ''}` with Stockpot {version}.",
        "## Files",
        "\n".join(["| model | file | bytes | sha256 |", "|---|---|---:|---|", *rows]),
    ]
    (folder / "README.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _references(recipes: Sequence[Recipe]) -> list[Reference]:
    """The models that are named, each once."""
    named = (each for recipe in recipes for each in (*recipe.models, recipe.base) if each is not None)
    return list(dict.fromkeys(named))


def _hub_names(model: Reference) -> tuple[str | None, str | None]:
    """What a hub calls a model, and the adapter on it."""
    text, _, adapter = model.text.partition("+")
    return hub_name(text, model.folder), hub_name(adapter, model.adapter)


def _called(model: Reference) -> str:
    """What a reader knows a model by: its name on a hub, else what the recipe calls it."""
    parts = model.text.partition("+")
    name, adapter = _hub_names(model)
    return "".join([name or parts[0], parts[1], adapter or parts[2]])


def _stage(recipe: Recipe, is_last: bool) -> str:
    rule = recipe.rule
    names = [inline_code(_called(each)) for each in recipe.models if each != recipe.base]
    base = f", on the base {inline_code(_called(recipe.base))}" if recipe.base else ""
    made = "The merge" if is_last else f"The stage {inline_code(str(recipe.name))}"
    return f"- {made} is the `{rule.name}` of {', '.join(names)}{base}: {rule.summary} ({_source(rule.paper)})."


def _source(paper: str) -> str:
    """Where a rule is from, as a link where it has an address."""
    number = paper.removeprefix("arXiv:")
    return f"[{paper}](https://arxiv.org/abs/{number})" if paper.startswith("arXiv:") else plain_text(paper)


def _row(model: str, file: Path, known: Mapping[Path, str]) -> str:
    digest = inline_code(known[file]) if file in known else DASH
    return f"| {model} | {inline_code(file.name)} | {file.stat().st_size} | {digest} |"
