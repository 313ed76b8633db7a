"""How a person follows a run: a live display in a terminal, plain lines elsewhere, both on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.engines.engine import Job
from harness.run.schedule import Scheduled

SECONDS_BETWEEN_LINES = 10.0


class Tracker:
    """What is done, what runs and how long the rest will take; the displays below show it."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.running: dict[str, float] = {}
        self.failed: list[str] = []
        self.stages: dict[str, str] = {}
        self.totals: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.expected_done = self.expected_total = 0.0
        self.title, self.reused = "", 0

    def begin(self, title: str, todo: Sequence[Scheduled], reused: int) -> None:
        self.title, self.reused = title, reused
        self.stages = {scheduled.job.name: scheduled.group for scheduled in todo}
        self.totals = Counter(self.stages.values())
        self.expected_total = sum(scheduled.job.cost for scheduled in todo)

    def event(self, what: str, job: Job) -> None:
        if what == "start":
            self.running[job.name] = time.perf_counter()
            return
        self.running.pop(job.name, None)
        self.expected_done += job.cost
        self.done[self.stages[job.name]] += 1
        if what == "failed":
            self.failed.append(job.name)

    def end(self) -> None:
        pass

    def interrupted(self) -> None:
        """The jobs were ended by a signal, and what is done is written now."""
        print("interrupted: writing what is done; once more ends that, too", file=sys.stderr, flush=True)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @property
    def left(self) -> float | None:
        """Seconds, from how long what is done took compared with what was expected; None at the very beginning."""
        if self.expected_done < 0.02 * self.expected_total or not self.expected_done:
            return None
        return self.elapsed * (self.expected_total / self.expected_done - 1)

    def counts(self) -> str:
        """How many jobs of each stage are done."""
        return " · ".join(f"{stage} {self.done[stage]}/{total}" for stage, total in self.totals.items())


def duration(seconds: float) -> str:
    """Seconds as "42 s" or "3 min 05 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


class Lines(Tracker):
    """One plain line now and then, for logs."""

    def begin(self, title: str, todo: Sequence[Scheduled], reused: int) -> None:
        super().begin(title, todo, reused)
        self.last = time.perf_counter()
        jobs = f"{len(todo)} jobs to run, {reused} reused" if todo else f"all {reused} jobs reused"
        print(f"{title}; {jobs}", file=sys.stderr, flush=True)

    def event(self, what: str, job: Job) -> None:
        super().event(what, job)
        if what == "failed":
            print(f"  failed: {job.name}", file=sys.stderr, flush=True)
        if time.perf_counter() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.perf_counter()
            left = "" if self.left is None else f", about {duration(self.left)} left"
            print(f"  {duration(self.elapsed)}: {self.counts()}{left}", file=sys.stderr, flush=True)


class Display(Tracker):
    """A live display for a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def begin(self, title: str, todo: Sequence[Scheduled], reused: int) -> None:
        super().begin(title, todo, reused)
        self.live.console.print(f"[bold]{title}[/bold]", highlight=False)
        self.live.start()

    def end(self) -> None:
        self.live.stop()

    def _render(self) -> RenderableType:
        share = self.expected_done / self.expected_total if self.expected_total else 1.0
        left = "" if self.left is None else f"about {duration(self.left)} left"
        head = Table.grid(padding=(0, 2))
        head.add_row(ProgressBar(total=1.0, completed=share, width=40), f"{share:4.0%}", duration(self.elapsed), left)
        table = Table.grid(padding=(0, 2))
        now = time.perf_counter()
        for name, since in sorted(self.running.items(), key=lambda item: item[1]):
            table.add_row(Text("  running", style="cyan"), Text(name), Text(f"{now - since:.0f} s", style="dim"))
        counts = Text(f"  {self.counts()}" + (f" · {self.reused} reused" if self.reused else ""), style="dim")
        failed = [Text(f"  failed: {name}", style="red") for name in self.failed[-5:]]
        return Group(head, table, counts, *failed)


def progress() -> Lines | Display:
    """The display for where stderr goes."""
    console = Console(stderr=True)
    return Display(console) if console.is_terminal else Lines()
