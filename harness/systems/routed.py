"""Routed members: a router says for every example which of the members are run, before any dear one is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.store import write_json
from harness.systems.parts import MemberPart
from harness.systems.routers import Router, evidence_of
from harness.types import Combination, Part

FILE = "routed.json"
ONE_MEMBER = "a router picks one language model for a document: several would have to be mixed token by token"
DIGITS = 9
"""To which expected qualities are compared: models that promise the same are told apart by their positions."""


def best_worth(qualities: Tensor, prices: Tensor) -> Tensor:
    """Positions from what is worth most to what is worth least, int64 [N, M]; of equals the first.

    Args:
        qualities: what is expected of each, [N, M].
        prices: what is taken off, [M] or [N, M].
    """
    worth = ((qualities - prices) * 10**DIGITS).round()
    return worth.sort(dim=1, descending=True, stable=True).indices


class Routed(Combination):
    """The mean of those members that promise most for what they cost; the others do not run.

    Args:
        members: at least one.
        router: what it expects of each of them.
        prices: what is taken off the expected quality of each, [M].
        picked: how many run for an example.
        asked: position of the member whose prediction the router reads, and which always runs; None where it reads the
            inputs themselves.
        details: as every combination has them.
        settings: other prices [M], for ``dial``.
    """

    def __init__(
        self,
        members: Sequence[MemberPart],
        router: Router,
        prices: Sequence[float],
        *,
        picked: int = 1,
        asked: int | None = None,
        details: Mapping[str, Any] | None = None,
        settings: Sequence[Sequence[float]] = (),
    ) -> None:
        self.members, self.router, self.prices = tuple(members), router, tuple(prices)
        self.picked, self.asked, self.details = picked, asked, dict(details or {})
        self.settings = tuple(settings)
        self.deciding = router.flops

    def parts(self) -> Sequence[MemberPart]:
        return self.members

    def dial(self) -> Sequence[Routed]:
        return [
            Routed(self.members, self.router, prices, picked=self.picked, asked=self.asked) for prices in self.settings
        ]

    @property
    def replays(self) -> bool:
        return self.asked is not None

    def log_probs(self, batch: Tensor) -> Tensor:
        return self.run(batch)[0]

    def run(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        if self.asked is None:
            evidence = batch.flatten(1)
            return self._go(evidence, lambda part, rows: part.log_probs(batch[rows]))
        asked = self.members[self.asked]
        said = asked.log_probs(batch)
        return self._go(
            evidence_of(said), lambda part, rows: said[rows] if part is asked else part.log_probs(batch[rows])
        )

    def replay(self, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        assert self.asked is not None
        return self.answer(evidence_of(predictions[self.asked]), predictions)

    def answer(self, evidence: Tensor, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As ``run``, from evidence [N, D] and what every member says [N, C]."""
        known = {id(part): said for part, said in zip(self.members, predictions, strict=True)}
        return self._go(evidence, lambda part, rows: known[id(part)][rows])

    def _go(self, evidence: Tensor, said: Callable[[Part, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        device = evidence.device
        chosen = self.choose(self.router(evidence.cpu()))  # [N, M]
        total: Tensor | None = None
        for position, part in enumerate(self.members):
            rows = chosen[:, position].nonzero().flatten()
            if not len(rows):
                continue
            found = said(part, rows.to(device))
            if total is None:
                total = found.new_full((len(chosen), found.shape[-1]), -math.inf)
            at = rows.to(found.device)
            total[at] = torch.logaddexp(total[at], found) if self.picked > 1 else found
        assert total is not None
        calls = chosen.long()
        if self.asked is not None:
            calls[:, self.asked] = 1
        return total - math.log(self.picked) if self.picked > 1 else total, calls

    def choose(self, qualities: Tensor) -> Tensor:
        """Which members run, bool [N, M], where so much is expected of them [N, M]."""
        order = best_worth(qualities, torch.tensor(self.prices, dtype=torch.float64))[:, : self.picked]
        return torch.zeros_like(qualities, dtype=torch.bool).scatter(1, order, True)

    def save(self, folder: Path) -> None:
        self.router.save(folder)
        members = [part.reference() for part in self.members]
        numbers = {"prices": self.prices, "picked": self.picked, "asked": self.asked, "settings": self.settings}
        write_json(folder / FILE, {"members": members, **numbers})
