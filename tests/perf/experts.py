"""One layer of SwiGLU experts under a softmax top-k gate: every dispatch path and transformers' block, in turn.

All have the same weights and rows. The CPU's table (``make perf``) and the GPU's (``make gpu-check``) are made of this.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from harness.moe import MixtureOfExperts, SoftmaxTopK, SwiGLUExperts
from harness.moe.choose import AUTO, TOO_SLOW
from harness.registry import DISPATCHES

TRANSFORMERS = ("eager", "grouped_mm")
"""Its implementations of experts; ``batched_mm`` gathers the weights of every row (17 GB for 4,096 of them)."""
OURS, THEIRS, DENSE, LIMIT = AUTO, "transformers ", "dense", "products alone"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Cell:
    """What one row of a table is about."""

    inputs: int
    hidden: int
    experts: int
    k: int
    rows: int
    dtype: torch.dtype
    backward: bool
    device: str = "cpu"

    def __str__(self) -> str:
        passes = "forward and backward" if self.backward else "forward"
        sizes = f"{self.inputs}/{self.hidden}, {self.experts} experts, {self.k} active, {self.rows:,} rows"
        return f"{sizes}, {TYPES[self.dtype]}, {passes}"


class Contest:
    """The layer of a cell in all ways; each is called with its own name to give outputs and, if asked, gradients."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        torch.manual_seed(0)
        config = MixtralConfig(
            hidden_size=cell.inputs,
            intermediate_size=cell.hidden,
            num_local_experts=cell.experts,
            num_experts_per_tok=cell.k,
        )
        device = torch.device(cell.device)
        with device:
            self.block = MixtralSparseMoeBlock(config).eval()
            for parameter in self.block.parameters():
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
            self.x = torch.randn(cell.rows, cell.inputs).to(cell.dtype)
            upstream = torch.randn(cell.rows, cell.inputs).to(cell.dtype)
        self.config, self.upstream = config, upstream
        self.block.to(cell.dtype)
        with torch.device("meta"):
            gate = SoftmaxTopK(cell.inputs, cell.experts, cell.k)
            layer = MixtureOfExperts(gate, SwiGLUExperts(cell.experts, cell.inputs, cell.hidden))
        layer.load_state_dict(self.block.state_dict(), assign=True)  # the same memory, so no path has it warmer
        self.layer = layer.requires_grad_().eval()
        paths = {path.name: path.unavailable(layer.experts, self.x) for path in DISPATCHES}
        self.refused = {name: why for name, why in paths.items() if why}
        self.failed: dict[str, str] = {}
        ours = [OURS, *(name for name, why in paths.items() if not why)]
        self.names = [name for name in (*ours, *(THEIRS + name for name in TRANSFORMERS)) if self._runs(name)]

    def _runs(self, name: str) -> bool:
        """Whether one pass goes through; what the library says where not is kept, and the others go on."""
        try:
            self.run(name)
        except RuntimeError as error:  # of memory too
            why = str(error).splitlines()[0]
            (self.refused if name.startswith(THEIRS) else self.failed)[name] = why
            return False
        return True

    def run(self, name: str, *, alike: bool = False) -> list[Tensor]:
        """Outputs, and the gradients by rows and parameters where the cell has a backward pass.

        With ``alike`` transformers' experts get the rows from our gate: its own rounds scores in bfloat16, and so sends
        some rows elsewhere.
        """
        if not self.cell.backward:
            with torch.no_grad():
                return [self._forward(name, self.x, alike)]
        x = self.x.detach().requires_grad_()
        theirs = name.startswith(THEIRS)
        gate = self.block.gate if theirs and not alike else self.layer.gate
        parameters = [*gate.parameters(), *(self.block if theirs else self.layer).experts.parameters()]
        out = self._forward(name, x, alike)
        return [out, *torch.autograd.grad(out, [x, *parameters], self.upstream)]

    def _forward(self, name: str, x: Tensor, alike: bool) -> Tensor:
        if name.startswith(THEIRS):
            self.config._experts_implementation = name.removeprefix(THEIRS)
            if alike:
                routing = self.layer.gate(x)
                return self.block.experts(x, routing.chosen, routing.weights.to(x.dtype))
            return self.block(x.unsqueeze(0)).squeeze(0)
        self.layer.dispatch = name
        return self.layer(x)

    def unable(self) -> dict[str, dict[str, str]]:
        """Why other ways are not there: what a backend refuses, and what should have run and did not."""
        return {"refused": self.refused, "failed": self.failed}

    def choice(self) -> str:
        """The path that "auto" takes."""
        self.run(OURS)
        assert self.layer.choice is not None
        return self.layer.choice.path

    def gaps(self) -> dict[str, float]:
        """For each way, the norm of its difference from the dense reference over the reference's; the worst tensor."""
        expected = [tensor.detach().double() for tensor in self.run(DENSE, alike=True)]
        return {
            name: max(
                float((found.detach().double() - one).norm() / one.norm())
                for found, one in zip(self.run(name, alike=True), expected, strict=True)
            )
            for name in self.names
        }

    def first_times(self) -> dict[str, list[float]]:
        """Milliseconds of one pass of every way, which has run before, and of the products alone."""
        self.products()
        return {name: [self.once(name)] for name in (*self.names, LIMIT)}

    def time_again(self, times: dict[str, list[float]], but: str = "") -> None:
        """Add another pass of every way, in turn; not of a path whose first was hopeless beside the best."""
        best = min(values[0] for name, values in times.items() if name != LIMIT)
        for name, values in times.items():
            if name != but and (values[0] <= TOO_SLOW * best or name.startswith(THEIRS)):
                values.append(self.once(name))

    def once(self, name: str) -> float:
        """Milliseconds of one pass."""
        self._wait()
        begin = time.perf_counter()
        self.products() if name == LIMIT else self.run(name)
        self._wait()
        return 1000 * (time.perf_counter() - begin)

    def products(self) -> None:
        """The matrix products of a pass and nothing else, for rows that are equally many and sorted already.

        They write into the same buffers for every expert, so nothing is allocated: no path can beat them.
        """
        cell, experts = self.cell, self.layer.experts
        rows = self.x[: cell.rows * cell.k // cell.experts]
        out, between = torch.empty_like(rows), rows.new_empty(len(rows), 2 * cell.hidden)
        hidden, turned = rows.new_empty(len(rows), cell.hidden), rows.new_empty(2 * cell.hidden * cell.inputs)
        by_first, by_second = turned.view(-1, cell.inputs), turned[: cell.hidden * cell.inputs].view(cell.inputs, -1)
        with torch.no_grad():
            for first, second in zip(experts.gate_up_proj, experts.down_proj, strict=True):
                torch.mm(rows, first.t(), out=between)
                torch.mm(hidden, second.t(), out=out)
                if cell.backward:
                    torch.mm(out, second, out=hidden)
                    torch.mm(out.t(), hidden, out=by_second)
                    torch.mm(between, first, out=out)
                    torch.mm(between.t(), rows, out=by_first)

    def _wait(self) -> None:
        if self.cell.device != "cpu":
            torch.cuda.synchronize()


def ratios(milliseconds: Mapping[str, float]) -> dict[str, Any]:
    """What our choice is worth: transformers' best, the dense reference and the products alone over it, or None."""
    ours = milliseconds[OURS]
    theirs = [name for name in milliseconds if name.startswith(THEIRS)]
    best = min(theirs, key=milliseconds.__getitem__, default=None)
    return {
        "best_of_transformers": best,
        "ratio": milliseconds[best] / ours if best else None,
        "ratio_dense": milliseconds[DENSE] / ours if DENSE in milliseconds else None,
        "ratio_limit": milliseconds[LIMIT] / ours,
    }


def parity(cell: Cell) -> dict[str, Any]:
    """How far every way is from the dense reference, forward and backward, and whether that is near enough."""
    contest = Contest(replace(cell, backward=True))
    gaps, bound = contest.gaps(), TOLERANCE[cell.dtype]
    held = not contest.failed and all(gap <= bound for gap in gaps.values())
    return {**_facts(cell), "bound": bound, "gaps": gaps, "held": held, **contest.unable()}


def row(cell: Cell, rounds: int) -> dict[str, Any]:
    """One row of a table: medians of every way, what our choice is worth, and what cannot run."""
    contest = Contest(cell)
    times = contest.first_times()
    for _ in range(rounds - 1):
        contest.time_again(times)
    return as_row(contest, times)


def as_row(contest: Contest, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The same of times that have been taken."""
    milliseconds = {name: statistics.median(values) for name, values in times.items()}
    facts = {**_facts(contest.cell), "choice": contest.choice(), **contest.unable()}
    return {**facts, "milliseconds": milliseconds, **ratios(milliseconds)}


def _facts(cell: Cell) -> dict[str, Any]:
    return {"cell": str(cell), **vars(cell), "dtype": TYPES[cell.dtype]}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as Markdown: milliseconds of every way, a dash for what cannot run, and the ratios."""
    ways = list(dict.fromkeys(name for each in rows for name in each["milliseconds"]))
    heads = ["ms", *ways, "transformers / auto", "dense / auto", "products / auto"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    for each in rows:
        known = each["milliseconds"]
        cells = [f"{known[way]:.3g}" if way in known else "-" for way in ways]
        cells[ways.index(OURS)] += f" ({each['choice']})"
        worth = [f"{each[name]:.2f}" if each[name] else "-" for name in ("ratio", "ratio_dense", "ratio_limit")]
        cells = [each["cell"], *cells, *worth]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
