"""What a person sees of a run: plain lines in a log, a display in a terminal, counts and the time that is left."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness.engines.engine import Job
from harness.run import progress
from harness.run.progress import SECONDS_BETWEEN_LINES, Display, Lines, Tracker, duration
from harness.run.schedule import Scheduled


class Clock:
    now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def scheduled(name, stage="train", cost=1.0):
    return Scheduled(Job(name, print, {}, cost=cost), stage)


STAGES = {"a": ("train", 6.0), "b": ("train", 2.0), "c": ("build", 1.0), "d": ("score", 1.0)}
TODO = [scheduled(name, *each) for name, each in STAGES.items()]


def begun(tracker, todo=TODO, reused=3):
    tracker.begin("tiny: 2 variants, 1 seeds", todo, reused)
    return tracker


def finish(tracker, *names, what="done"):
    for name in names:
        job = next(p.job for p in TODO if p.job.name == name)
        tracker.event("start", job)
        tracker.event(what, job)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.4, "0 s"), (42.4, "42 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (60, "1 min 00 s"),
     (185, "3 min 05 s"), (3725.2, "62 min 05 s")],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_jobs_are_counted_by_stage_in_the_order_of_the_stages():
    tracker = begun(Tracker())
    assert tracker.counts() == "train 0/2 · build 0/1 · score 0/1"
    finish(tracker, "b", "c")
    assert tracker.counts() == "train 1/2 · build 1/1 · score 0/1"
    finish(tracker, "a", "d")
    assert tracker.counts() == "train 2/2 · build 1/1 · score 1/1"
    assert tracker.failed == []


def test_a_failed_job_is_done_and_named():
    tracker = begun(Tracker())
    finish(tracker, "a", what="failed")
    assert tracker.failed == ["a"]
    assert tracker.counts().startswith("train 1/2")
    tracker.event("failed", TODO[1].job)  # one that never started, because what it needs failed
    assert tracker.failed == ["a", "b"]
    assert tracker.running == {}


def test_what_runs_is_known_with_the_time_it_began(clock):
    tracker = begun(Tracker())
    tracker.event("start", TODO[0].job)
    clock.now += 5
    tracker.event("start", TODO[1].job)
    assert tracker.running == {"a": 1000.0, "b": 1005.0}
    tracker.event("done", TODO[0].job)
    assert tracker.running == {"b": 1005.0}


def test_the_time_left_is_what_the_rest_would_take_at_the_speed_so_far(clock):
    """Ten seconds were expected in all. After 6 of them in 12 seconds, the other 4 take 8."""
    tracker = begun(Tracker())
    assert tracker.left is None
    clock.now += 12
    assert tracker.left is None  # nothing is done yet: there is no speed
    finish(tracker, "a")
    assert tracker.elapsed == pytest.approx(12)
    assert tracker.left == pytest.approx(8)
    clock.now += 12
    finish(tracker, "b", "c", "d")
    assert tracker.left == pytest.approx(0)


def test_the_time_left_is_not_guessed_from_a_crumb(clock):
    todo = [scheduled("crumb", cost=0.1), scheduled("rest", cost=99.9)]
    tracker = begun(Tracker(), todo)
    clock.now += 60
    tracker.event("done", todo[0].job)
    assert tracker.left is None


def test_no_jobs_at_all_have_no_time_left():
    tracker = begun(Tracker(), [])
    assert tracker.left is None
    assert tracker.counts() == ""


# Plain lines.


def test_a_log_says_what_there_is_to_do(capsys):
    begun(Lines())
    begun(Lines(), [], reused=12)
    out, err = capsys.readouterr()
    assert out == ""  # stdout is for the folder of the run
    assert err.splitlines() == [
        "tiny: 2 variants, 1 seeds; 4 jobs to run, 3 reused",
        "tiny: 2 variants, 1 seeds; all 12 jobs reused",
    ]


def test_a_log_has_a_line_now_and_then_without_control_characters(clock, capsys):
    lines = begun(Lines())
    capsys.readouterr()
    clock.now += SECONDS_BETWEEN_LINES / 2
    finish(lines, "b")
    assert capsys.readouterr().err == ""
    clock.now += SECONDS_BETWEEN_LINES / 2
    finish(lines, "a")
    out, err = capsys.readouterr()
    assert err == "  10 s: train 1/2 · build 0/1 · score 0/1, about 40 s left\n"  # told of at the start of "a"
    assert out == ""
    finish(lines, "c")
    assert capsys.readouterr().err == ""
    clock.now += 3 * SECONDS_BETWEEN_LINES
    finish(lines, "d")
    lines.end()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_log_leaves_out_a_time_it_does_not_know(clock, capsys):
    lines = begun(Lines())
    capsys.readouterr()
    clock.now += 25
    lines.event("start", TODO[0].job)
    assert capsys.readouterr().err == "  25 s: train 0/2 · build 0/1 · score 0/1\n"


def test_a_log_names_a_failure_at_once(capsys):
    lines = begun(Lines())
    capsys.readouterr()
    finish(lines, "c", what="failed")
    assert capsys.readouterr().err == "  failed: c\n"


# In a terminal.


def shown(display):
    """What the display shows now, as plain text."""
    console = Console(file=io.StringIO(), width=120)
    console.print(display._render())
    return console.file.getvalue()


def test_a_terminal_shows_what_runs_what_is_done_and_what_failed(clock):
    terminal = io.StringIO()
    display = Display(Console(file=terminal, force_terminal=True, width=120))
    begun(display)
    try:
        clock.now += 5
        finish(display, "a")
        finish(display, "c", what="failed")
        display.event("start", TODO[1].job)
        clock.now += 2
        text = shown(display)
    finally:
        display.end()
    assert " 70%" in text
    assert "7 s" in text
    assert "about 3 s left" in text
    assert "running  b  2 s" in text
    assert "train 1/2 · build 1/1 · score 0/1 · 3 reused" in text
    assert "failed: c" in text
    assert "tiny: 2 variants" in terminal.getvalue()


def test_names_are_shown_as_they_are_and_not_as_markup(clock):
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=120))
    todo = [scheduled("seed 0: build linear/weights=[red]"), scheduled("[bold]x")]
    begun(display, todo)
    try:
        display.event("start", todo[0].job)
        display.event("failed", todo[1].job)
        text = shown(display)
    finally:
        display.end()
    assert "linear/weights=[red]" in text
    assert "[bold]x" in text


def test_a_terminal_with_nothing_to_do_is_complete(clock):
    display = Display(Console(file=io.StringIO(), force_terminal=True))
    begun(display, [], reused=5)
    try:
        assert "100%" in shown(display)
    finally:
        display.end()


@pytest.mark.parametrize(("terminal", "kind"), [(True, Display), (False, Lines)])
def test_the_display_fits_where_it_goes(terminal, kind, monkeypatch):
    monkeypatch.setattr(progress, "Console", lambda stderr: SimpleNamespace(is_terminal=terminal and stderr))
    monkeypatch.setattr(progress, "Live", lambda console, **_: console)
    assert type(progress.progress()) is kind


def test_a_pipe_is_no_terminal(capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    assert type(progress.progress()) is Lines
