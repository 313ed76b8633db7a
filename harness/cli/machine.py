"""The verbs that look after the machine and the store."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Out, size_in_bytes
from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.store import Store

commands = typer.Typer()
cache = typer.Typer(help="Look after the store of artefacts.", no_args_is_help=True)
commands.add_typer(cache, name="cache")


@commands.command()
def doctor(
    out: Out = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what this machine has, what a run will measure here, and what will be unavailable and why."""
    from harness.run.doctor import as_text, examine

    record = examine(out)
    print(json.dumps(record, indent=1) if as_json else as_text(record))


@cache.command("ls")
def cache_ls(out: Out = Path("results")) -> None:
    """How many artefacts of each kind the store holds, and how large they are."""
    from harness.run.collecting import bytes_of

    sizes: dict[str, list[int]] = {}
    for folder in _store(out).folders():
        sizes.setdefault(folder.parent.parent.name, []).append(bytes_of(folder))
    for kind, found in sorted(sizes.items()):
        print(f"{kind:<14}{len(found):>7}{sum(found) / 1e6:>10.1f} MB")


@cache.command("verify")
def cache_verify(
    out: Out = Path("results"),
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move damaged artefacts aside: the next run makes them again.")
    ] = False,
) -> None:
    """Check every file of the store against the sha256 that was recorded; exit code 1 if one is damaged.

    A run does the same with what it uses; this looks at all.
    """
    store = _store(out)
    damaged = store.damaged()
    for folder, lines in damaged.items():
        print("\n".join(lines))
        if quarantine:
            _set_aside(store, folder)
    raise typer.Exit(1 if damaged else 0)


@cache.command("gc")
def cache_gc(
    out: Out = Path("results"),
    older_than: Annotated[
        str | None, typer.Option(help="Only what was not used for this long: 30d, 12h.", metavar="TIME")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Only until the store is this large: 20GB; what was used longest ago goes first.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A run whose artefacts need not stay, such as mnist/20260101-120000.", metavar="RUN"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove artefacts that no run in the results folder was read from, and what was moved to the quarantine.

    What a run needs stays until its folder is removed, or it is named by --without. Nothing is removed while a run
    goes on.
    """
    import time

    from harness.display.formats import amount
    from harness.run import collecting

    before = None if older_than is None else time.time() - _seconds(older_than)
    room = None if max_size is None else size_in_bytes(max_size, "--max-size")
    store, runs = _store(out), collecting.runs_that_stay(out, without or ())
    found = collecting.stored(store, runs)
    going = collecting.to_remove(found, before, room)
    if going and not dry_run:
        collecting.remove(store, going)
    gone = sum(each.bytes for each in going)
    left = sum(each.bytes for each in found) - gone
    words = "would go" if dry_run else "removed"
    print(f"{len(going)} of {len(found)} artefacts {words}, {amount(gone)}B; {amount(left)}B stay")
    if runs.silent:
        name = "/".join(runs.silent[0].parts[-2:])
        print(f"kept for runs that do not say what they were read from: all that is older than they are ({name})",
              file=sys.stderr)  # fmt: skip
    if room is not None and left > room:
        print(f"that is more than {max_size}: runs need it (--without RUN, or remove their folders)", file=sys.stderr)


def _set_aside(store: Store, folder: Path) -> None:
    try:
        if aside := store.quarantine(folder):
            print(f"{folder}: moved to {aside}")
    except OSError as error:
        raise BadInput(f"the artefact cannot be moved aside: {error.strerror}", place=str(folder)) from None


def _store(out: Path) -> Store:
    from harness.store import Store

    return Store(out / ".store")


def _seconds(text: str) -> float:
    """The seconds that ``--older-than`` names."""
    units = {"d": 86400, "h": 3600, "m": 60}
    if not (found := re.fullmatch(r"(\d{1,6})([dhm])", text)):
        raise BadInput(f"bad --older-than '{text}'", hint="a number of days, hours or minutes: 30d, 12h, 90m")
    return float(found[1]) * units[found[2]]
