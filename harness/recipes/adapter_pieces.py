"""What an adapter has to hold of a merge of adapters: products of two matrices, whole tensors, or nothing.

Source: peft 0.21, ``peft/utils/other.py`` (``modules_to_save``) and ``peft/utils/save_and_load.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.errors import BadInput
from harness.models.settings import read_object
from harness.recipes.adapters import FACTOR, SETTINGS, plain_name, weights_file
from harness.recipes.layers import layer_of, spelled, twin
from harness.streaming.kernels import Sources
from harness.streaming.plan import Adapted, Source, Step, TensorAt
from harness.streaming.reading import TORCH, read_source
from harness.streaming.shards import read_header
from harness.streaming.weighted_sums import keeps_the_base, weights_of_sum


@dataclass(frozen=True)
class Product:
    """A matrix to whose place in the base a product is added."""

    step: Step
    """Of which each source is the base's tensor, or that with a product."""
    base: TensorAt
    module: str
    """As the model calls it."""
    embedding: bool
    transposed: bool
    """Whether the base has it transposed, in which an embedding's is too."""


@dataclass(frozen=True)
class Whole:
    """A tensor that is saved as it is."""

    step: Step
    name: str
    """As the model calls it."""


@dataclass(frozen=True)
class Pieces:
    """All that an adapter has to hold."""

    products: tuple[Product, ...]
    whole: tuple[Whole, ...]
    saved: tuple[str, ...]
    """The modules that the whole tensors are of."""
    task_type: str | None
    """What PEFT calls the task of the adapters."""


def pieces_of(steps: Sequence[Step], base: Mapping[str, TensorAt], adapters: Sequence[Path]) -> Pieces:
    """Sort the tensors of a merge.

    Args:
        steps: of the merge, whose sources are the base's tensors, those with a product, or an adapter's own.
        base: the tensors of the base's folder, by name.
        adapters: the folders of the adapters.

    Raises:
        BadInput: a merge that changes what no adapter does; adapters for different tasks, or with different names for
            the same layers.
    """
    adapters_of = {weights_file(folder): folder for folder in adapters}
    owners = sorted({owner for folder in adapters for owner in _saved_modules(folder)})
    own = {spelled(name): tensor for name, tensor in base.items()}
    names = _Names(adapters_of)
    products: list[Product] = []
    whole: list[Whole] = []
    for step in steps:
        name = names.of(step)
        if name is None:
            _check_unchanged(step)
            continue
        start = own.get(step.name) or own[str(twin(step.name, own))]
        module = name.rpartition(".")[0]
        owner = next((each for each in owners if f"{module}.".startswith(f"{each}.")), None)
        step = step if owner else replace(step, sources=tuple(_on(start, source) for source in step.sources))
        changed = [source for source in step.sources if isinstance(source, Adapted)]
        if owner or any(_carrier(source) != start for source in step.sources):
            whole.append(Whole(step, name))
        elif changed:
            embedding = "embedding" in changed[0].a.name.rpartition(".")[2]
            products.append(Product(step, start, module, embedding, changed[0].transposed))
        else:
            _check_unchanged(step)
    modules = {each.name.rpartition(".")[0] for each in whole}
    inner = {each for each in modules if not any(f"{each}.".startswith(f"{owner}.") for owner in owners)}
    return Pieces(tuple(products), tuple(whole), tuple(sorted({*owners, *inner})), _task_type(adapters))


@contextmanager
def opened(name: str, tensors: Sequence[TensorAt]) -> Iterator[Sources]:
    """The open files of the tensors that a tensor of the merge is made of."""
    sources = Sources(name, tensors)
    try:
        yield sources
    finally:
        sources.close()


def _saved_modules(adapter: Path) -> Iterator[str]:
    """The modules that an adapter has whole because its settings say so: the outermost that such a name ends."""
    ends = read_object(adapter / SETTINGS).get("modules_to_save") or ()
    for tensor in read_header(weights_file(adapter)):
        name = plain_name(tensor)
        if FACTOR.fullmatch(name):
            continue
        parts = name.split(".")
        above = (".".join(parts[:depth]) for depth in range(1, len(parts)))
        if owner := next((each for each in above if any(each.endswith(end) for end in ends)), None):
            yield owner


@dataclass(frozen=True)
class _Names:
    """What adapters call the tensors of their base, whose files may have other prefixes than the model in memory."""

    adapters: Mapping[Path, Path]
    """The folders by the files of weights."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {})

    def of(self, step: Step) -> str | None:
        """The tensor's name in the model; None where no adapter has part in it."""
        name = None
        for source in step.sources:
            tensor = source.a if isinstance(source, Adapted) else source
            if tensor.path in self.adapters:
                match = FACTOR.fullmatch(plain_name(tensor))
                name = f"{match['module']}.weight" if match else plain_name(tensor)
                self._check(step.name, name, self.adapters[tensor.path])
        return name

    def _check(self, place: str, name: str, adapter: Path) -> None:
        """All adapters must have the same names: those of layers begin alike."""
        known: dict[str, tuple[str, Path]] = self.__dict__["_known"]
        at, said = layer_of(place), layer_of(name)
        key, value = (at.stack, said.stack) if at and said else (place, name)
        other, whose = known.setdefault(key, (value, adapter))
        if other != value:
            problem = f"'{value}' of '{key}' in the base is '{other}' in '{whose.name}'"
            raise BadInput(problem, place=str(adapter), hint="save the adapters on one class of models")


def _carrier(source: Source) -> TensorAt:
    """What a product is added to, if there is one."""
    return source.tensor if isinstance(source, Adapted) else source


def _on(base: TensorAt, source: Source) -> Source:
    """A source on the base's own tensor, where it holds the same: PEFT saves embeddings beside their factors."""
    carrier = _carrier(source)
    if carrier == base or not _equal(carrier, base):
        return source
    return replace(source, tensor=base) if isinstance(source, Adapted) else base


def _equal(one: TensorAt, other: TensorAt) -> bool:
    if one.shape != other.shape or not (one.is_float and other.is_float):
        return False
    kind = torch.promote_types(TORCH[one.dtype], TORCH[other.dtype])
    with opened(one.name, [one, other]) as files:
        return torch.equal(read_source(one, files, kind), read_source(other, files, kind))


def _check_unchanged(step: Step) -> None:
    """``BadInput`` where the merge of a tensor with itself is another one."""
    weights = weights_of_sum(step)
    if weights is not None and not keeps_the_base(weights):
        problem = f"'{step.name}', which no adapter changes, would be multiplied by {sum(weights):g}"
        hint = "give the models of an adapter weights that sum to 1, or leave --adapter-rank out for a whole model"
        raise BadInput(problem, hint=hint)


def _task_type(adapters: Sequence[Path]) -> str | None:
    found: dict[Any, Path] = {}
    for adapter in adapters:
        if (said := read_object(adapter / SETTINGS).get("task_type")) is not None:
            found.setdefault(said, adapter)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        problem = f"'{second.name}' is an adapter for the task {other}, '{first.name}' for {one}"
        raise BadInput(problem, place=str(second), hint="an adapter is of one task")
    return next(iter(found), None)
