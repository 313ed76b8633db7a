"""The result of a merge of adapters as an adapter in PEFT's format: thin factors of what the merge adds to the base.

Nothing as large as a tensor is held where the merge is a weighted sum: the factors of the sum are those of all adapters
side by side, brought to fewer by their own singular values. Of all other rules one tensor at a time is merged, and what
it differs in from the base is taken to its largest singular values. PEFT writes the settings; no model is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.merging.lowrank import Factors, factorise, factorise_product, rounding
from harness.merging.lowrank_words import described
from harness.recipes.adapter_pieces import Pieces, Product, opened, pieces_of
from harness.recipes.adapters import PREFIX, SETTINGS, WEIGHTS
from harness.recipes.card import hub_name
from harness.recipes.references import Reference
from harness.streaming.definitions import combine
from harness.streaming.engine import Written, check_shapes, tensors_of
from harness.streaming.kernels import Sources
from harness.streaming.plan import Adapted, Step, TensorAt
from harness.streaming.reading import merge, read_source
from harness.streaming.shards import read_folder
from harness.streaming.weighted_sums import keeps_the_base, weights_of_sum


@dataclass(frozen=True)
class WrittenAdapter:
    """What was written."""

    written: Written
    sentences: tuple[str, ...]
    """How it was, and how near it is to the merge."""


def write_adapter(
    steps: Sequence[Step],
    base: Reference,
    adapters: Sequence[Path],
    rank: int,
    folder: Path,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> WrittenAdapter:
    """Write a merge of adapters as one.

    Matrices become factors in float32, also where the recipe names a type; what adapters save whole is merged whole.

    Args:
        steps: of the merge.
        base: the folder that the adapters are on.
        adapters: their folders.
        rank: the largest of the factors, at least 1.
        folder: which exists, and has no adapter yet.
        threads: of torch; by default as many as it has.
        progress: is told of the bytes that each tensor of a whole merge would have, as it is done.

    Raises:
        BadInput: as ``pieces_of``; a merge that is its base; a file that is cut off, NaN or infinity.
    """
    assert base.folder is not None
    for step in steps:
        check_shapes(step)
    pieces = pieces_of(steps, read_folder(base.folder).tensors, adapters)
    told = progress or (lambda _: None)
    changed = {each.step.name for each in pieces.products} | {each.step.name for each in pieces.whole}
    told(sum(step.nbytes for step in steps if step.name not in changed))
    factors: dict[str, Factors] = {}
    tensors: dict[str, Tensor] = {}
    with _threads(threads):
        for product in pieces.products:
            found = _factors(product, rank)
            if found.rank:
                factors[product.module] = found
                tensors |= _named(product, found)
            told(product.step.nbytes)
        for whole in pieces.whole:
            with opened(whole.step.name, tensors_of(whole.step)) as files:
                tensors[f"{PREFIX}{whole.name}"] = merge(whole.step, files).contiguous()
            told(whole.step.nbytes)
    if not factors:
        what = f"only {', '.join(pieces.saved[:3])} differ" if pieces.saved else "the merge is its base"
        hint = "leave --adapter-rank out for a whole model"
        raise BadInput(f"there is nothing for factors of a rank: {what}", hint=hint)
    largest = max(each.rank for each in factors.values())
    with _room(folder):
        _write_settings(pieces, factors, largest, hub_name(base.text, base.folder) or base.text, folder)
        _write_tensors(tensors, folder)
    read = [*map(_read, pieces.products), *(tensors_of(each.step) for each in pieces.whole)]
    written = Written(
        files=(folder / WEIGHTS,),
        bytes_read=sum(tensor.nbytes for each in read for tensor in each),
        bytes_written=sum(tensor.nbytes for tensor in tensors.values()),
    )
    return WrittenAdapter(written, described(factors, largest, pieces.saved))


def _factors(product: Product, rank: int) -> Factors:
    """What a merge adds to a matrix, as PEFT has it: [outputs, rank] and [rank, inputs]; an embedding's transposed."""
    step, weights = product.step, _weights(product)
    with opened(step.name, _read(product)) as files:
        if weights is not None:
            return _of_sum(step, weights, files, rank)
        wide = any(tensor.dtype == "F64" for tensor in (product.base, *step.sources))
        kind = torch.float64 if wide else torch.float32
        merged = combine(step, [read_source(source, files, kind) for source in step.sources])
        start = read_source(product.base, files, kind)
    change = merged.double() - start.double()
    return factorise(change.T if product.transposed else change, rank, rounding(start))


def _weights(product: Product) -> list[float] | None:
    """The weights of a sum that is the base with the same sum of products; None of any other rule."""
    weights = weights_of_sum(product.step)
    return weights if weights is not None and keeps_the_base(weights) else None


def _read(product: Product) -> list[TensorAt]:
    """What is read for a product: of a sum the factors alone."""
    if _weights(product) is None:
        return [*tensors_of(product.step), product.base]
    return [each for source in product.step.sources if isinstance(source, Adapted) for each in (source.a, source.b)]


def _of_sum(step: Step, weights: Sequence[float], files: Sources, rank: int) -> Factors:
    """Of a weighted sum: the adapters' factors side by side are its own, of more columns than it needs."""
    ups, downs = [], []
    for source, weight in zip(step.sources, weights, strict=True):
        if isinstance(source, Adapted):
            ups.append(weight * source.scale * read_source(source.b, files, torch.float64))
            downs.append(read_source(source.a, files, torch.float64))
    return factorise_product(torch.cat(ups, dim=1), torch.cat(downs), rank)


def _named(product: Product, factors: Factors) -> dict[str, Tensor]:
    """The tensors of a module's factors, as PEFT calls them."""
    start = f"{PREFIX}{product.module}.lora_"
    if product.embedding:
        return {f"{start}embedding_A": factors.down, f"{start}embedding_B": factors.up}
    return {f"{start}A.weight": factors.down, f"{start}B.weight": factors.up}


def _write_settings(pieces: Pieces, factors: dict[str, Factors], rank: int, called: str, folder: Path) -> None:
    """adapter_config.json: names are whole names of modules, and products are added as they are, at a scale of 1."""
    from peft import LoraConfig

    # "^": a name in a pattern may otherwise stand after any other
    ranks = {f"^{module}": each.rank for module, each in factors.items() if each.rank < rank}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(
            base_model_name_or_path=called,
            task_type=pieces.task_type,
            r=rank,
            lora_alpha=rank,
            rank_pattern=ranks,
            alpha_pattern=dict(ranks),
            target_modules=sorted(factors),
            modules_to_save=list(pieces.saved) or None,
            fan_in_fan_out=any(each.transposed and not each.embedding for each in pieces.products),
            bias="none",
            inference_mode=True,
        )
    config.target_modules = sorted(factors)  # PEFT's set is written in another order each time
    config.save_pretrained(str(folder))


def _write_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(sorted(tensors.items())), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / SETTINGS).stat().st_mode)  # the library lets nobody else read it


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """``BadInput`` where a file cannot be written, as on a full disk."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"the adapter cannot be written: {reason}", place=str(folder.parent)) from None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads of torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
