"""Cascade routing: after each stage a router says of every example whether it stops, goes on, or skips stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.store import write_json
from harness.systems.routed import best_worth
from harness.systems.routers import SUMMARIES, Router, evidence_of
from harness.systems.staged import InStages, Said
from harness.types import Combination

FILE = "cascade_routing.json"
Answer = Callable[[int, Tensor], Tensor]
"""From a stage's number and rows [n]: what the stage says of these, [n, C]."""
Expect = Callable[[int, Tensor, Tensor], Tensor]
"""From a stage's number, rows [n] and what the stage says of them [n, C]: the probability that it and each stage after
it is right there, [n, stages from it on], float64."""


class CascadeRouting(InStages):
    """Every example goes to the stage that promises most for what is still to be paid, until that is where it is.

    Routing and cascading at once (Dekoninck et al. 2025, arXiv:2410.10347), over plans that end in one later stage.
    Routers read whole batches, whoever still needs them there, so that deciding takes the same for every example.

    Args:
        stages: as ``InStages`` has them, the cheapest first: every example starts there.
        routers: of each stage but the last: from what it says (``evidence_of``), what is expected of itself and of
            each later one.
        shares: of each of ``parts()``, what one call of it takes of what all take together.
        price: expected quality that is given up for what all take together.
        decisions: after how many an example stays where it is; None for no limit.
        details: as every combination has them.
        settings: other prices, for ``dial``.
    """

    def __init__(
        self,
        stages: Sequence[Combination],
        routers: Sequence[Router],
        shares: Sequence[float],
        price: float,
        *,
        decisions: int | None = None,
        details: Mapping[str, Any] | None = None,
        settings: Sequence[float] = (),
    ) -> None:
        super().__init__(stages, details)
        if len(routers) != len(self.stages) - 1:
            raise ValueError(f"{len(self.stages)} stages need {len(self.stages) - 1} routers, not {len(routers)}")
        self.routers, self.shares, self.price = tuple(routers), tuple(shares), price
        self.decisions, self.settings = decisions, tuple(settings)
        self.deciding = float(sum(router.flops for router in self.routers))

    def dial(self) -> Sequence[CascadeRouting]:
        return [self.priced(price) for price in self.settings]

    def priced(self, price: float) -> CascadeRouting:
        """The same system at another price."""
        return CascadeRouting(self.stages, self.routers, self.shares, price, decisions=self.decisions)

    def _ask(self, count: int, said: Said) -> tuple[Tensor, Tensor]:
        return self.go_through(count, lambda stage, rows: self._said_by(stage, rows, said))[:2]

    def go_through(self, count: int, answer: Answer, expect: Expect | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As ``run``, of so many examples; and bool [count, stages]: which stages were asked.

        ``expect`` is asked in the routers' place, which by themselves read what the stages say.
        """

        def expected(stage: int, rows: Tensor, found: Tensor) -> Tensor:
            everyone = torch.zeros(count, found.shape[-1] + SUMMARIES, dtype=torch.float64)
            if len(rows):
                everyone[rows] = evidence_of(found.cpu())
            return self.routers[stage](everyone)[rows]

        expect = expect or expected
        at = torch.zeros(count, dtype=torch.int64)  # where each example is, or goes
        asked = torch.zeros(count, len(self.stages), dtype=torch.bool)
        ran = torch.zeros(count, len(self._parts), dtype=torch.bool)
        log_probs = answer(0, torch.arange(count))
        for stage in range(len(self.stages)):
            rows = (at == stage).nonzero().flatten()
            where = rows.to(log_probs.device)
            if stage and len(rows):
                log_probs = log_probs.index_copy(0, where, answer(stage, rows).to(log_probs))
            asked[rows, stage] = True
            ran[rows] |= self.needs[stage]
            if stage == len(self.routers):
                break
            found = log_probs[where]
            promised = expect(stage, rows, found)
            if not len(rows):
                continue
            ahead = self._best(promised, ran[rows], stage)
            stays = found.isnan().any(dim=-1).cpu()
            if self.decisions is not None:
                stays |= asked[rows].sum(dim=1) > self.decisions
            at[rows] = stage + ahead.masked_fill(stays, 0)
        return log_probs, ran.long(), asked

    def _best(self, expected: Tensor, ran: Tensor, stage: int) -> Tensor:
        """How many stages ahead each example [n] does best, by what is expected [n, K] and what has run [n, parts]."""
        missing = self.needs[stage:].unsqueeze(0) & ~ran.unsqueeze(1)
        toll = (missing * torch.tensor(self.shares, dtype=torch.float64)).sum(dim=-1)
        return best_worth(expected, self.price * toll)[:, 0]

    def save(self, folder: Path) -> None:
        record = {"stages": len(self.stages), "shares": self.shares, "price": self.price, "settings": self.settings}
        write_json(folder / FILE, {**record, "decisions": self.decisions})
        for number, router in enumerate(self.routers):
            (folder / router_folder(number)).mkdir()
            router.save(folder / router_folder(number))
        self._save_stages(folder)


def router_folder(number: int) -> str:
    """Where the router after a stage is saved, below the folder of its system."""
    return f"router-{number}"
