"""Every system's verdict on target tokens from one batch of the members' logits, in blocks that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.combining import Linear, LogLinear, Rule
from harness.errors import BadInput
from harness.types import NotApplicable

BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}


@dataclass(frozen=True)
class System:
    """A rule and the members it combines, as positions in a list of models; ``name`` must be its own."""

    name: str
    members: tuple[int, ...]
    rule: Rule

    @staticmethod
    def single(name: str, position: int) -> System:
        """One member as it is."""
        return System(name, (position,), Linear(torch.ones(1)))


class Mixer:
    """Scores target tokens under many systems from the logits of ``count`` models.

    Systems are told apart by what they cost. One member with weight 1 is read off. Constant weights are one small
    matrix times the stacked probabilities (linear) or log-probabilities (log-linear) for all such systems at once.
    Any other rule is called. The numbers of a linear system come from its own rule, applied to the targets only.
    """

    def __init__(self, systems: Sequence[System], count: int) -> None:
        self.systems, self.count = list(systems), count
        kinds = [_kind(system) for system in systems]
        self.singles, self.linear, self.log_linear, self.others = (
            [s for s, kind in enumerate(kinds) if kind == wanted] for wanted in ("single", "linear", "log", "other")
        )
        self.single_members = [_only_member(systems[s]) for s in self.singles]
        self.linear_weights = self._weights(self.linear)
        self.for_weights = self._weights(self.log_linear)
        self.against_weights = self._weights(self.log_linear, sign=-1)

    def _weights(self, chosen: Sequence[int], sign: int = 1) -> Tensor:
        """Sizes [K, count] of the weights of one sign that systems give to the models, in float32."""
        table = torch.zeros(len(chosen), self.count)
        for row, s in zip(table, chosen, strict=True):
            rule = self.systems[s].rule
            assert isinstance(rule, Linear | LogLinear)
            row.index_add_(0, torch.tensor(self.systems[s].members), (sign * rule.weights.to(table)).relu())
        return table

    def __call__(self, logits: Sequence[Tensor], slots: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities float32 [S, P] of the targets, and whether each is the system's first choice.

        Args:
            logits: of each model, [R, V], in any dtype; -inf is a probability of zero.
            slots: rows of the logits [P], rising.
            targets: tokens [P].

        Raises:
            NotApplicable: naming the model whose logits are NaN, inf, or -inf for every token.
        """
        log_probs = torch.empty(len(self.systems), len(slots), device=slots.device)
        first = torch.empty(len(self.systems), len(slots), dtype=torch.bool, device=slots.device)
        given = torch.empty(self.count, len(slots), device=slots.device)
        for rows, pairs in self._blocks(logits, slots):
            stacked = torch.stack([torch.log_softmax(each[rows].float(), dim=-1) for each in logits])
            check_finite(stacked)
            block = _Block(stacked, slots[pairs] - rows.start, targets[pairs], log_probs[:, pairs], first[:, pairs])
            given[:, pairs] = block.at_targets(stacked)
            self._fill(block)
        for s in self.singles + self.linear:
            log_probs[s] = self.systems[s].rule(given[list(self.systems[s].members)])
        return log_probs, first

    def _blocks(self, logits: Sequence[Tensor], slots: Tensor) -> Iterator[tuple[slice, slice]]:
        """Ranges of rows, each with the range of pairs that read them."""
        count, vocabulary = logits[0].shape
        size = BLOCK_BYTES.get(slots.device.type, BLOCK_BYTES["cuda"]) // (4 * self.count * vocabulary)
        starts = range(0, count, max(1, size))
        bounds = torch.searchsorted(slots, torch.tensor([*starts, count], device=slots.device)).tolist()
        for start, low, high in zip(starts, bounds[:-1], bounds[1:], strict=True):
            yield slice(start, min(start + starts.step, count)), slice(low, high)

    def _fill(self, block: _Block) -> None:
        """What needs whole distributions: first choices, and the log-probabilities of all but linear systems."""
        stacked, first = block.stacked, block.first
        if self.singles:
            first[self.singles] = block.are_first(stacked)[self.single_members]
        if self.linear:
            first[self.linear] = block.are_first(_product(self.linear_weights, stacked.exp()))
        for s in self.others + self._log_linear(block):
            result = self.systems[s].rule(_members(stacked, self.systems[s].members))[None]
            block.log_probs[s] = block.at_targets(result)[0]
            first[s] = block.are_first(result)[0]

    def _log_linear(self, block: _Block) -> list[int]:
        """Log-linear systems all at once; returns those to be called, for they give weight 0 to a zero probability.

        ``0 * -inf``, and a zero for every token, show in the normaliser as NaN or inf.
        """
        if not self.log_linear:
            return []
        total = _product(self.for_weights, block.stacked)
        if self.against_weights.any():
            tiny = math.log(torch.finfo(total.dtype).tiny)
            total -= _product(self.against_weights, block.stacked.clamp(min=tiny))
        normaliser = torch.logsumexp(total, dim=-1)  # [K, R]
        block.log_probs[self.log_linear] = block.at_targets(total) - normaliser[:, block.slots]
        block.first[self.log_linear] = block.are_first(total)
        plain = normaliser.isfinite().all(dim=-1).tolist()
        return [s for s, fine in zip(self.log_linear, plain, strict=True) if not fine]


@dataclass(frozen=True)
class _Block:
    """Stacked log-probabilities [M, R, V], the pairs [P] that read them, and where [S, P] their verdicts go."""

    stacked: Tensor
    slots: Tensor
    targets: Tensor
    log_probs: Tensor
    first: Tensor

    def at_targets(self, scores: Tensor) -> Tensor:
        """The targets' scores [K, P] of [K, R, V]."""
        return scores[:, self.slots, self.targets]

    def are_first(self, scores: Tensor) -> Tensor:
        """Whether each target is the first token with the best score of its row, for scores [K, R, V]: [K, P].

        ``amax`` is 15 times faster than ``argmax`` on a CPU: the latter only decides between tokens that tie.
        """
        found = self.at_targets(scores) >= scores.amax(dim=-1)[:, self.slots]
        system, pair = found.nonzero(as_tuple=True)
        found[system, pair] = scores[system, self.slots[pair]].argmax(dim=-1) == self.targets[pair]
        return found


def check_systems(systems: Sequence[System], count: int) -> None:
    """Systems have names of their own, members that exist, and rules for as many members as they have."""
    names = [system.name for system in systems]
    for system in systems:
        place = f"system '{system.name}'"
        if names.count(system.name) > 1:
            raise BadInput("two systems have this name", place=place)
        if not system.members or not all(0 <= k < count for k in system.members):
            raise BadInput(f"members {system.members} of {count} models", place=place)
        check_rule(system.rule, len(system.members), place)


def check_rule(rule: Rule, members: int, place: str) -> None:
    """The rule combines this many members."""
    for name in ("weights", "bias"):
        values = getattr(rule, name, None)
        if isinstance(values, Tensor) and len(values) != members:
            raise BadInput(f"{len(values)} {name} for {members} members", place=place)
    try:
        rule(torch.full((members, 1, 2), 0.5).log())
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"the rule does not combine {members} members ({error})", place=place) from None


def _kind(system: System) -> str:
    if _only_member(system) is not None:
        return "single"
    return {Linear: "linear", LogLinear: "log"}.get(type(system.rule), "other")


def _only_member(system: System) -> int | None:
    """The model that is the whole system, if one is: the same cases in which the rules return it untouched."""
    if not isinstance(system.rule, Linear | LogLinear):
        return None
    used = system.rule.weights.nonzero().flatten().tolist()
    alone = len(used) == 1 and (isinstance(system.rule, Linear) or system.rule.weights[used[0]] == 1)
    return system.members[used[0]] if alone else None


def _members(stacked: Tensor, members: tuple[int, ...]) -> Tensor:
    """The stack of these members only; not copied if they are all of them."""
    return stacked if members == tuple(range(len(stacked))) else stacked[list(members)]


def _product(weights: Tensor, stacked: Tensor) -> Tensor:
    """``weights`` [K, M] times [M, R, V], as [K, R, V]."""
    return (weights.to(stacked) @ stacked.flatten(1)).view(len(weights), *stacked.shape[1:])


def check_finite(stacked: Tensor) -> None:
    """A NaN or inf anywhere in a row of logits makes its first log-probability NaN."""
    bad = stacked[..., 0].isnan().any(dim=-1)
    if bad.any():
        raise NotApplicable(f"model {int(bad.nonzero()[0])} gives logits that are not finite (NaN weights?)")
