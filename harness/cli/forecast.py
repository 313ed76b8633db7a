"""What ``plan`` says of the work and the time of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def print_work(planned: Any, missing: Sequence[Any]) -> None:
    """Forward passes, bytes read and hours, as functions of the numbers of members, variants and examples."""
    from harness.display.formats import amount
    from harness.display.terminal_table import print_table
    from harness.run import work

    whole, rest = work.work_of(planned, planned.jobs), work.work_of(planned, missing)
    hours = "GPU-hours" if planned.setting.device.startswith("cuda") else "CPU-hours"
    figures = {
        "forward passes": (work.FORWARD_PASSES[whole.documents is not None] if whole.runs else "nothing is run",
                           amount(whole.forward_passes), amount(rest.forward_passes)),
        "bytes read": (work.BYTES_READ[whole.runs], f"{amount(whole.bytes_read)}B", f"{amount(rest.bytes_read)}B"),
        hours: (f"({work.SECONDS}) / 3600", f"{whole.seconds / 3600:.2f}", f"{rest.seconds / 3600:.2f}"),
    }  # fmt: skip
    print()
    print_table(("work", "grows as", "all", "to run"), [[name, *cells] for name, cells in figures.items()],
                right={"all", "to run"})  # fmt: skip
    print("\n".join(_meanings(whole)))


def _meanings(whole: Any) -> list[str]:
    """The letters of the formulas, with their values for all jobs."""
    from harness.display.formats import amount

    documents = [] if whole.documents is None else [f"d = {whole.documents:,} documents that are scored"]
    weights = "not known yet" if whole.weight_bytes is None else f"{amount(whole.weight_bytes)}B"
    sizes = [f"w = {weights} of a model's weights"] if whole.runs else []
    counts = [
        f"M = {whole.members:,} members",
        f"V = {whole.variants:,} variants",
        f"W = {whole.own:,} of these models of their own",
        f"U = {whole.merged:,} members that these are made of",
        f"R = {whole.combined:,} whose predictions are combined",
    ]
    examples = [f"h = {whole.heldout:,} held-out examples", f"n = {whole.test:,} test examples", *documents]
    seconds = zip("abc", (whole.member_seconds, whole.variant_seconds, whole.other_seconds), strict=True)
    return [
        "  " + ", ".join(counts),
        "  " + ", ".join([*examples, *sizes, f"p = {amount(whole.prediction_bytes)}B of a prediction"]),
        "  expected seconds of a member, a variant and all else: "
        + ", ".join(f"{letter} = {value:.3g}" for letter, value in seconds),
    ]


def print_schedule(planned: Any, missing: Sequence[Any], workers: int | None) -> None:
    """How long what is missing takes on so many workers, and on more: simulated in the engine's own order."""
    from harness.display.terminal_table import print_table
    from harness.engines.simulation import simulate
    from harness.registry import ENGINES
    from harness.run.progress import duration

    engine = ENGINES.get(planned.options.engine)
    asked = engine(workers).workers
    jobs = [each.job for each in missing]
    found = {count: simulate(jobs, engine(count).slots) for count in (asked, 2 * asked, 4 * asked, 8 * asked)}
    first = found[asked]
    print(f"\nabout {duration(first.makespan)} with {asked} workers, of which {first.idle_share:.0%} idle; "
          f"no number of them takes less than {duration(first.critical_path)}, the longest chain of jobs")  # fmt: skip
    if jobs:
        rows = [[str(count), duration(each.makespan), f"{each.idle_share:.0%}"] for count, each in found.items()]
        print_table(("workers", "time", "idle"), rows, right={"workers", "time", "idle"})
