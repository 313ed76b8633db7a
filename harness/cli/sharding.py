"""The verbs of a run that is divided among several commands: its shards, and what puts them together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import AllowCode, Out, SharedStore, Workers, load_suite
from harness.display.lines import escaped

if TYPE_CHECKING:
    from harness.results.shard import Part
    from harness.run.plan import Plan

commands = typer.Typer()


def run_shards(plans: Sequence[Plan], part: Part) -> None:
    """Run one shard of each suite; print their folders, and on stderr what came of them."""
    from harness.results.shard import read_shard
    from harness.run import progress, runner
    from harness.run.progress import duration
    from harness.run.shards import part_of

    with closing(runner.run_together([part_of(plan, part) for plan in plans], progress.progress())) as finished:
        for folder in finished:
            record = read_shard(folder).record
            jobs, errors = record["jobs"], record["errors"]
            lines = [f"{record['suite']['name']}, shard {part}: {jobs['planned']} jobs in "
                     f"{duration(record['wall_seconds'])}; {jobs['run']} run, {jobs['planned'] - jobs['run']} reused"]
            if errors:
                name, error = next(iter(errors.items()))
                lines.append(f"  {len(errors)} jobs failed; the first is {name}: {error}")
            lines.append("  a part of a run: 'stockpot merge-runs' puts all shards together")
            print("\n".join(map(escaped, lines)), file=sys.stderr)
            print(folder)


@commands.command("merge-runs")
def merge_runs(
    shards: Annotated[list[Path], typer.Argument(help="The folders of all shards.", metavar="SHARD...")],
    out: Out = Path("results"),
    suite: Annotated[Path | None, typer.Option(help="The suite file; by default where the shards read it.")] = None,
    workers: Workers = None,
    store: SharedStore = None,
    allow_code: AllowCode = False,
) -> None:
    """Put the shards of one run together ('run --shard i/n'): the same results as without shards.

    What the shards made is read from their stores, or from the place that they have shared (--store), checked, and
    copied to the store below --out, unless that is where they made it. The folder of the run is printed on stdout. Exit
    codes are those of 'run'; 2 where a shard is missing or not whole, or where shards are of other suites, options,
    code or data than each other, or made other numbers of the same thing.
    """
    from harness.cli.running import print_summary
    from harness.report.several import write_reports
    from harness.results.shard import read_shard
    from harness.run import merging, progress

    read = [read_shard(folder) for folder in shards]
    merging.check_alike(read)
    loaded = load_suite(suite or Path(read[0].record["suite"]["path"]))
    folder = merging.merge(read, loaded, out, progress.progress(), workers=workers, allow_code=allow_code,
                           store=store)  # fmt: skip
    for written, report in write_reports([folder], 1):
        code = print_summary(written, report)
        print(written)
    raise typer.Exit(code)
