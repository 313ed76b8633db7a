"""Pools of classifiers in folders, one of each family, with few raw examples: what methods are tried on."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

import harness.kinds  # noqa: F401 (which says how their networks are run)
from harness.pools.folder_plan import plan_folder
from harness.pools.pool import load_pool
from harness.pools.source import PoolPlan
from harness.types import Pool, Split
from tests.models.classifier_folders import (
    LABELS,
    TEXTS,
    batch_of,
    module_of,
    picture,
    read_as,
    save_reader,
    text,
)

SIZES = {"train": 12, "heldout": 9, "test": 7}
SAID = ("a great film", "awful rain !", "i sleep", "the day was great", "", "a film a film ü", "awful awful day")


@cache
def place() -> Path:
    """A folder that is gone when the tests are."""
    kept = tempfile.TemporaryDirectory(prefix="stockpot-tests-")
    place.kept = kept  # type: ignore[attr-defined]
    return Path(kept.name)


@cache
def splits(family: str) -> dict[str, Split]:
    """Splits of raw examples, of each label some."""
    found, begin = {}, 0
    for name, count in SIZES.items():
        numbers = range(begin, begin + count)
        begin += count
        contents = [_example(family, n) for n in numbers]
        labels = torch.tensor([n % len(LABELS) for n in numbers])
        inputs = batch_of(contents, place())
        kind = "texts" if family in TEXTS else "image_files"
        found[name] = Split(name, inputs, labels, [f"{name}-{n}" for n in numbers], name, batch=5, kind=kind)
    return found


def _example(family: str, number: int) -> bytes:
    if family in TEXTS:
        return text(f"{SAID[number % 7]} {'day ' * (number % 5)}")
    return picture(number, (20, 16))


def save_tuned(folder: Path, family: str, seed: int, labels=LABELS, **settings) -> Path:
    """A member: the body of seed 0, changed a little, and a head of its own."""
    body, module = module_of(family, **settings).state_dict(), module_of(family, labels, seed, **settings)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.mul_(0.1).add_(0.9 * body[name])
    module.save_pretrained(folder)
    save_reader(folder, family)
    return folder


@cache
def folders(family: str, count: int = 3, headless: bool = False) -> tuple[Path, ...]:
    """The base's folder, whose labels are other ones where it is ``headless``, then the members'."""
    top = place() / f"{family}-{count}-{headless}"
    base = module_of(family, ("no", "yes") if headless else LABELS)
    with torch.no_grad():
        for tensor, there in zip(module_of(family).state_dict().values(), base.state_dict().values(), strict=True):
            if tensor.shape == there.shape:
                there.copy_(tensor)
    base.save_pretrained(top / "base")
    save_reader(top / "base", family)
    return top / "base", *(save_tuned(top / f"m{k}", family, k + 1) for k in range(count))


@cache
def pool(family: str, count: int = 3, headless: bool = False) -> Pool:
    """Fine-tunes of one base, which has no head for their labels where it is ``headless``."""
    first, *rest = folders(family, count, headless)
    base = plan_folder("base", str(first), read_as=read_as(family, fresh=-1))
    plans = [plan_folder(f"m{k}", str(folder), base, read_as(family)) for k, folder in enumerate(rest)]
    return load_pool(PoolPlan("main", "fine_tunes", tuple(plans), base), None)  # type: ignore[arg-type]


def as_kind(of: Pool, kind: str) -> Pool:
    """The pool as one of another kind, with what its members then say of themselves."""
    rows = list(range(SIZES["train"]))
    told = {"checkpoints": lambda k: {"epochs": k + 1}, "bootstrap": lambda k: {"rows": rows[k:] + rows[:k][:1] * k}}
    members = tuple(
        replace(member, provenance={**member.provenance, **told[kind](k)}) for k, member in enumerate(of.members)
    )
    return replace(of, kind=kind, members=members)
