"""The verbs that show what there is: finished runs, suites, and what is declared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.declared import SORTS, print_sort
from harness.cli.options import Out, load_suite
from harness.display.lines import one_line, plain_line
from harness.errors import BadInput

commands = typer.Typer()
listing = typer.Typer(help="List what there is.", no_args_is_help=True)
commands.add_typer(listing, name="ls")


@commands.command()
def report(run: Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]) -> None:
    """Render the report of a finished run again."""
    from harness.report import write_report
    from harness.results.damaged import reading_run
    from harness.results.run import read_run, unchecked

    with reading_run(run):
        remark, written = unchecked(read_run(run)), write_report(run)
    if remark:
        print(one_line(remark), file=sys.stderr)
    print(written)


@commands.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN_A")],
    second: Annotated[Path, typer.Argument(help="Another's; this one minus RUN_A is shown.", metavar="RUN_B")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Compare the variants of two runs by name, paired by example and seed; or say why they are not comparable.

    better and worse are of RUN_B, by accuracy, corrected for the number of variants (Benjamini-Hochberg).
    """
    from harness import compare as comparing
    from harness.display.terminal_table import print_table
    from harness.results.damaged import reading_run
    from harness.results.evidence import read_tables
    from harness.results.run import unchecked

    runs = []
    for folder in (first, second):
        with reading_run(folder):
            runs.append(read_tables(folder))
    for remark in filter(None, map(unchecked, runs)):
        print(one_line(remark), file=sys.stderr)
    found = comparing.compare(*runs)
    if as_json:
        print(json.dumps(comparing.as_json(found), indent=1, allow_nan=False))
        return
    columns, rows = comparing.as_rows(found)
    print_table(columns, rows)
    for line in comparing.notes(found):
        print(line)


@commands.command()
def history(
    suite: Annotated[str | None, typer.Argument(help="A suite's name; all by default.", metavar="SUITE")] = None,
    out: Out = Path("results"),
) -> None:
    """Print the scores of a suite over its runs, oldest first: the reference, and the best variant of each family."""
    from harness.display.formats import score_interval, scored
    from harness.display.terminal_table import print_table
    from harness.results import history as of
    from harness.results.damaged import reading_run

    for line in of.left_out_of(out, suite):
        print(one_line(f"left out: {line}"), file=sys.stderr)
    with reading_run(out):
        found = [(run, of.history(run)) for run in of.newest_runs(out, suite)]
    for run, entries in found:
        metric = entries[-1].metric
        rows = [
            [entry.run_id, what, score.variant, scored(score.value, metric.is_share),
             score_interval(score.low, score.high, metric.is_share), marks]
            for entry in entries
            for marks in ["; ".join(entry.marks)]
            for what, score in [("reference", entry.reference), *sorted(entry.best.items())]
            if score
        ]  # fmt: skip
        name = one_line(run.record["suite"]["name"])
        print(f"{name}: {metric.title}, and the best variant of each family")
        print_table(["run", "", "variant", metric.title, "interval", "marks"], rows, right={metric.title})


@commands.command()
def schema() -> None:
    """Print the JSON schema of suite files, for editors."""
    from harness.suite.schema import json_schema

    print(json.dumps(json_schema(), indent=1))


def _list_declared(name: str) -> None:
    sort = SORTS[name]
    listing.command(name, help=sort.help)(lambda: print_sort(sort))


for _name in SORTS:
    _list_declared(_name)


@listing.command("tasks")
def ls_tasks() -> None:
    """Every task that comes with Stockpot or a plug-in, and what else a suite may say under task."""
    from harness.registry import KINDS
    from harness.strict.fields import described

    for kind in KINDS:
        for name, words in sorted(kind.tasks.items()):
            print(f"{name:<12}{one_line(words)}")
    for kind in KINDS:
        if kind.key and kind.spec:
            print(f"{{{kind.key}: …}}  {(kind.spec.__doc__ or kind.name).splitlines()[0]}")
            for key, words in described(kind.spec):
                print(f"  {key:<14}{words}")


@listing.command("suites")
def ls_suites(
    folder: Annotated[
        Path | None, typer.Argument(help="Where suite files are: ./suites, or where there is none those of Stockpot.")
    ] = None,
) -> None:
    """The suite files of a folder, each with its question: 'stockpot run' takes them by the path that is printed."""
    from harness.suite.shipped import shipped_suites
    from harness.suite.suite import suite_files

    here = Path("suites")
    place = folder or (here if here.is_dir() else shipped_suites() or here)
    if not place.is_dir():
        hint = "those of Stockpot are in its repository, under suites/"
        raise BadInput("there is no such folder of suite files", place=str(place), hint=hint)
    found = suite_files(place)
    if not found:
        print(f"there are no suite files in {one_line(place)}", file=sys.stderr)
    for path in found:
        print(plain_line(f"{path}  {one_line(load_suite(path).file.question)}"))


@listing.command("runs")
def ls_runs(out: Out = Path("results")) -> None:
    """The finished runs, oldest first within each suite."""
    from harness.results.damaged import reading_run
    from harness.results.run import read_run, runs_below

    for folder in runs_below(out):
        try:
            with reading_run(folder):
                record = read_run(folder, ("run.json",)).record
                summary = record["summary"]
                limited = f", limited to {record['limit']} examples" if record["limit"] else ""
                came = f"{record['status']}, {summary['ok']} of {summary['variants']} variants ok{limited}"
        except BadInput as fault:
            print(one_line(f"left out: {fault}"), file=sys.stderr)
            continue
        print(plain_line(f"{folder}  {one_line(came)}"))
