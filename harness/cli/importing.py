"""The verb that takes in what others have measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.display.lines import one_line

if TYPE_CHECKING:
    from harness.imports import Imported
    from harness.imports.format import Given
    from harness.imports.writing import Written

commands = typer.Typer()


@commands.command("import")
def import_predictions(
    files: Annotated[list[str], typer.Argument(help="Files or folders of one format; NAME=PATH says whose predictions "
                                                    "a file holds.", metavar="FILE...")],
    out: Annotated[Path, typer.Option(help="The folder to write, which must not exist or is empty.", metavar="DIR")],
    form: Annotated[str | None, typer.Option("--format", help="Its name, where it is not recognised; 'ls formats' "
                                                              "lists them.")] = None,
    metric: Annotated[str | None, typer.Option(help="lm-eval: by which metric an answer is right, such as acc_norm or "
                                                    "exact_match,strict-match; Every Eval Ever: which result.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task of the source; TabArena: DATASET/FOLD. May be "
                                                        "given several times.")] = None,
    threshold: Annotated[float | None, typer.Option(min=1e-9, max=1.0, help="A fractional score of at least this is "
                                                    "right; without it tasks with such scores are left out.")] = None,
    as_form: Annotated[Literal["probabilities", "correct"] | None,
                       typer.Option("--as", help="Take probabilities, or only right and wrong; by default the former "
                                                 "where the source has them.")] = None,
    heldout: Annotated[float | None, typer.Option(min=0.01, max=0.99, help="Share of the questions that are held-out; "
                                                  "0.3 where the source has no splits.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of that split.")] = 0,
) -> None:  # fmt: skip
    """Turn others' files of predictions into a pool that a suite reads, and write the suite.

    The format is recognised by content: lm-eval's samples, AutoGluon's simulation artifact, folders of TabArena, tables
    of RouterBench and RouteLLM, samples of Every Eval Ever ('stockpot ls formats'). DIR gets a file for each member,
    heldout.parquet and test.parquet with ids and labels, and suite.yaml, which runs as it is.

    \b
    stockpot import results/model_a results/model_b --out pool
    stockpot import a=run1/samples_arc.jsonl b=run2/samples_arc.jsonl --metric acc_norm --out pool
    stockpot run pool/suite.yaml
    """
    from harness import imports
    from harness.imports.format import Asked

    given = [_given(text) for text in files]
    chosen = imports.choose_format(given, form)
    imported = imports.read_given(given, chosen, Asked(metric, tuple(task or ()), threshold, as_form))
    _print_made(imported, imports.write_pool(imported, out, chosen.name, heldout, seed), chosen.name)


def _given(text: str) -> Given:
    """A path, or NAME=PATH where there is no file of that whole name."""
    from harness.imports.format import Given

    name, equals, path = text.partition("=")
    if equals and name and path and "/" not in name and not Path(text).exists():
        return Given(Path(path), name)
    return Given(Path(text))


def _print_made(imported: Imported, written: Written, source: str) -> None:
    """What there is now, what was left out and why, and the command to run next."""
    from harness.display.formats import percent
    from harness.display.terminal_table import print_table

    what = f"probabilities of {len(imported.classes)} classes" if imported.classes else "right or wrong only"
    print(f"{source}: {len(written.files)} members, {written.heldout} held-out and {written.test} test rows, {what}")
    rows = [
        [member, percent(imported.right(member).mean()), *(f"{imported.members[member][c].mean():.4g}" for c in costs)]
        for costs in [imported.costs]
        for member in written.files
    ]
    names = ["right", *(f"{cost} a row" for cost in imported.costs)]
    print_table(["member", *names], rows, right=set(names))
    for line in imported.notes:
        print(f"note: {one_line(line)}")
    for line in imported.dropped:
        print(f"left out: {one_line(line)}")
    print(f"next: stockpot run {written.suite}")
