"""The verbs that look after the machine and the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Out

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
    from harness.store import Store

    sizes: dict[str, list[int]] = {}
    for folder, manifest in Store(out / ".store").artefacts():
        sizes.setdefault(manifest["kind"], []).append(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))
    for kind, found in sorted(sizes.items()):
        print(f"{kind:<14}{len(found):>7}{sum(found) / 1e6:>10.1f} MB")


@cache.command("verify")
def cache_verify(out: Out = Path("results")) -> None:
    """Check every file of the store against the hash that was recorded; exit code 1 if one is damaged."""
    from harness.store import Store

    damaged = Store(out / ".store").damaged()
    for line in damaged:
        print(line)
    raise typer.Exit(1 if damaged else 0)
