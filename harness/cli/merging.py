"""The verb that merges folders of models as a recipe says, without a suite and without a task."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.recipes.merge import Merged

commands = typer.Typer()


@commands.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe: mergekit's YAML.", metavar="RECIPE")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, which must not exist.", metavar="OUT")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For rules that draw at random.")] = 0,
    hashes: Annotated[bool, typer.Option(help="Say in the model card which files went in, by their sha256.")] = True,
    shard_size: Annotated[str, typer.Option(help="The most that a file of weights holds.", metavar="SIZE")] = "5GB",
    memory: Annotated[str, typer.Option(help="The most memory for tensors that have to be held whole; one at a time is "
                                             "held whatever its size.", metavar="SIZE")] = "1GB",
    threads: Annotated[int | None, typer.Option(min=1, help="One for each core by default.")] = None,
    adapter_rank: Annotated[int | None, typer.Option(min=1, help="Write an adapter (LoRA) of at most this rank in "
                                                                 "place of the whole model; all models must be "
                                                                 "adapters on one folder, or it.", metavar="R")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:  # fmt: skip
    """Merge folders of models as a recipe says, into a new folder that transformers loads.

    Recipes are those of mergekit: merge_method (linear, slerp, nuslerp, task_arithmetic, ties, dare_linear, dare_ties,
    della, della_linear, breadcrumbs, breadcrumbs_ties, model_stock, karcher, sce, arcee_fusion, nearswap, passthrough),
    models or slices, base_model, parameters with filters and gradients, dtype, out_dtype, tokenizer_source,
    chat_template; several documents (---) are stages. Paths in it are relative to its file; folder+adapter is a LoRA.

    Weights are combined in float32 and rounded once. They stream from file to file, so memory does not grow with the
    models. OUT appears when it is whole: a merge that is stopped leaves nothing.

    With --adapter-rank OUT is an adapter that peft loads on the folder. A weighted sum of adapters is exact where R is
    the sum of their ranks or more; all else is the nearest of that rank, and summary and card say how near.
    """
    from harness.recipes.merge import Options, merge_recipe

    options = Options(seed, hashes, _bytes(shard_size, "--shard-size"), _bytes(memory, "--memory"), threads,
                      adapter_rank)  # fmt: skip
    start = time.perf_counter()
    with _progress(quiet) as say:
        merged = merge_recipe(recipe, folder, options, say)
    if not quiet:
        _tell(merged, time.perf_counter() - start)
    print(folder)


def _bytes(text: str, option: str) -> int:
    from harness.display.formats import read_bytes

    try:
        return read_bytes(text)
    except ValueError as problem:
        raise BadInput(f"bad {option} '{text}'; {problem}") from None


def _tell(merged: Merged, took: float) -> None:
    from harness.display.formats import amount

    read, written = (f"{amount(count)}B" for count in (merged.bytes_read, merged.bytes_written))
    if merged.adapter:
        print(f"adapter: {'; '.join(merged.adapter)}", file=sys.stderr)
    print(f"{read} read and {written} written in {took:.1f} s", file=sys.stderr)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """What is called with a stage, its bytes written so far, and how many there will be: a bar in a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        known: dict[str, TaskID] = {}

        def say(stage: str, written: int, whole: int) -> None:
            if stage not in known:
                known[stage] = bars.add_task(stage, total=whole)
            bars.update(known[stage], completed=written)

        yield say
