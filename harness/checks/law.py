"""What a law is: a function of one docstring line that is silent, or says how a declaration breaks it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from multiprocessing.reduction import ForkingPickler
from typing import Any

Law = Callable[..., None]
_LAWS: dict[str, list[Law]] = {}


class BrokenLaw(AssertionError):
    """A registered declaration does not keep a law that others rely on.

    Args:
        law: its name, as ``laws`` has it.
        reason: what broke it.
    """

    def __init__(self, law: str, reason: str) -> None:
        super().__init__(f"broken law '{law.replace('_', ' ')}': {reason}")
        self.law, self.reason = law, reason


def law(sort: str) -> Callable[[Law], Law]:
    """Register a law on declarations of one sort ("method", "metric", ...), which are its first argument.

    Whatever it raises, the declaration's own exceptions too, comes out as ``BrokenLaw``.
    """

    def register(check: Law) -> Law:
        @wraps(check)
        def checked(declared: Any, *others: Any) -> None:
            try:
                check(declared, *others)
            except BrokenLaw:
                raise
            except Exception as error:
                said = str(error) if type(error) is AssertionError else f"{type(error).__name__}: {error}"
                raise BrokenLaw(check.__name__, f"{sort} '{declared.name}': {said}") from error

        _LAWS.setdefault(sort, []).append(checked)
        return checked

    return register


def laws(sort: str) -> tuple[Law, ...]:
    """All laws on declarations of a sort, in the order of their file; the docstring of each is the law in words."""
    return tuple(_LAWS[sort])


def require(holds: object, reason: str) -> None:
    """Raise ``AssertionError``, also where Python optimises assertions away."""
    if not holds:
        raise AssertionError(reason)


def sent(value: Any) -> Any:
    """What a worker process gets where an engine sends it this value."""
    return ForkingPickler.loads(ForkingPickler.dumps(value))
