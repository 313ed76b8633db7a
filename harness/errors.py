"""The one error a user causes and can mend: a problem, its place, the known choices and a hint, on one line.

And how a run that is interrupted ends.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended: 128 and the signal's number, as shells have it."""


class Interrupted(Exception):
    """A run that Ctrl-C or SIGTERM ended has written what was done by then; the command ends as that signal has it.

    Args:
        code: the exit code: 128 and the signal's number.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class BadInput(Exception):
    """Bad input from a user; the command line prints it on one line and exits with code 2.

    Args:
        problem: what is wrong, in a few words ("unknown method 'linaer'").
        place: where, as ``file:line`` or a key path; printed first.
        given: the word that was not understood; the nearest of ``choices`` is then suggested.
        choices: the known words.
        hint: what to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        place: str | None = None,
        given: str | None = None,
        choices: Iterable[str] = (),
        hint: str | None = None,
    ) -> None:
        self.problem, self.place, self.given, self.hint = problem, place, given, hint
        self.choices = sorted(choices)
        super().__init__(str(self))

    def at(self, place: str) -> BadInput:
        """The same error with its place filled in, if it had none."""
        return BadInput(
            self.problem, place=self.place or place, given=self.given, choices=self.choices, hint=self.hint
        )

    def __str__(self) -> str:
        text = f"{self.place}: {self.problem}" if self.place else self.problem
        if self.given is not None:
            lower = {choice.lower(): choice for choice in self.choices}
            if close := difflib.get_close_matches(self.given.lower(), lower, n=1, cutoff=0.5):
                text += f"; did you mean '{lower[close[0]]}'?"
        if self.choices:
            text += f" (known: {', '.join(self.choices)})"
        if self.hint:
            text += f"; {self.hint}"
        return " ".join(text.split())
