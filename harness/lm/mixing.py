"""Every system's verdict on target tokens from one batch of the members' logits, in blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.systems.rules import Gated, Linear, LogLinear, Rule, confidence_features, floor_zeros, mix_linear
from harness.types import NotApplicable

BLOCK_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}
KINDS = ("single", "linear", "gated linear", "log_linear", "gated log_linear", "other")


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

    Systems are told apart by what they cost. One member with weight 1 is read off. Weights, constant or from gates,
    are one small matrix times the stacked probabilities or log-probabilities, for all such systems at once. Any other
    rule is called. A linear mixture's numbers are those of its rule, applied to the targets only.
    """

    def __init__(self, systems: Sequence[System], count: int) -> None:
        self.systems, self.count = list(systems), count
        self.members = [torch.tensor(system.members) for system in systems]
        kinds = [_kind(system) for system in systems]
        self.single, self.linear, self.gated_linear, self.log_linear, self.gated_log, self.others = (
            [s for s, kind in enumerate(kinds) if kind == wanted] for wanted in KINDS
        )
        self.single_members = [_only_member(systems[s]) for s in self.single]
        self.linear_weights = self._weights(self.linear)
        self.for_weights = self._weights(self.log_linear)
        self.against_weights = self._weights(self.log_linear, sign=-1)

    def _weights(self, chosen: Sequence[int], sign: int = 1) -> Tensor:
        """Sizes [K, count] of the weights of one sign that systems give to the models, in float32."""
        table = torch.zeros(len(chosen), self.count)
        for row, s in zip(table, chosen, strict=True):
            row.index_add_(0, self.members[s], (sign * self.systems[s].rule.weights.to(table)).relu())  # type: ignore[attr-defined]
        return table

    def __call__(self, logits: Sequence[Tensor], slots: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities float32 [S, P] of the targets, and whether each is the system's first choice.

        Args:
            logits: of each model, [R, V], in any dtype; -inf is a probability of zero.
            slots: rows of the logits [P], rising.
            targets: tokens [P].

        Raises:
            NotFinite: naming the model whose logits are NaN, inf, or -inf for every token.
        """
        log_probs = torch.empty(len(self.systems), len(slots), device=slots.device)
        first = torch.empty(len(self.systems), len(slots), dtype=torch.bool, device=slots.device)
        given = torch.empty(self.count, len(slots), device=slots.device)
        for rows, pairs in self._blocks(logits, slots):
            stacked = torch.stack([torch.log_softmax(each[rows].float(), dim=-1) for each in logits])
            check_logits(stacked)
            block = _Block(stacked, slots[pairs] - rows.start, targets[pairs], log_probs[:, pairs], first[:, pairs])
            given[:, pairs] = block.at_targets(stacked)
            self._fill(block)
        for s in self.single + self.linear:
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
        if self.single:
            block.first[self.single] = block.are_first(block.stacked)[self.single_members]
        gates = {s: self._gate(s, block) for s in self.gated_linear + self.gated_log}
        self._linear(block, gates)
        for s in self.others + self._log_linear(block, gates):
            result = self.systems[s].rule(_members(block.stacked, self.systems[s].members))[None]
            block.log_probs[s] = block.at_targets(result)[0]
            block.first[s] = block.are_first(result)[0]

    def _gate(self, s: int, block: _Block) -> Tensor:
        """A gated system's weights [m, R] of its members."""
        rule = self.systems[s].rule
        assert isinstance(rule, Gated)
        return rule.weights_from(block.features(self.systems[s].members))

    def _over_models(self, chosen: Sequence[int], gates: Mapping[int, Tensor], block: _Block) -> Tensor:
        """Gated systems' weights [K, count, R] of all models."""
        table = block.stacked.new_zeros(len(chosen), *block.stacked.shape[:2])
        for row, s in zip(table, chosen, strict=True):
            row.index_add_(0, self.members[s].to(table.device), gates[s])
        return table

    def _linear(self, block: _Block, gates: Mapping[int, Tensor]) -> None:
        if not self.linear and not self.gated_linear:
            return
        mixed = _product(self.linear_weights, self._over_models(self.gated_linear, gates, block), block.stacked.exp())
        block.first[self.linear + self.gated_linear] = block.are_first(mixed)
        for s in self.gated_linear:
            given = block.at_targets(block.stacked)[list(self.systems[s].members)]
            block.log_probs[s] = mix_linear(given, gates[s][:, block.slots])

    def _log_linear(self, block: _Block, gates: Mapping[int, Tensor]) -> list[int]:
        """Log-linear systems all at once; returns those to be called, for they give weight 0 to a zero probability.

        ``0 * -inf``, and a zero for every token, show in the normaliser as NaN or inf.
        """
        chosen = self.log_linear + self.gated_log
        if not chosen:
            return []
        total = _product(self.for_weights, self._over_models(self.gated_log, gates, block), block.stacked)
        if self.against_weights.any():
            against = self.against_weights.to(total) @ floor_zeros(block.stacked).flatten(1)
            total[: len(self.log_linear)] -= against.view(-1, *total.shape[1:])
        normaliser = torch.logsumexp(total, dim=-1)  # [K, R]
        block.log_probs[chosen] = block.at_targets(total) - normaliser[:, block.slots]
        block.first[chosen] = block.are_first(total)
        plain = normaliser.isfinite().all(dim=-1).tolist()
        return [s for s, fine in zip(chosen, plain, strict=True) if not fine]


class _Block:
    """Stacked log-probabilities [M, R, V], the pairs [P] that read them, and where [S, P] their verdicts go."""

    def __init__(self, stacked: Tensor, slots: Tensor, targets: Tensor, log_probs: Tensor, first: Tensor) -> None:
        self.stacked, self.slots, self.targets = stacked, slots, targets
        self.log_probs, self.first = log_probs, first
        self._features: dict[tuple[int, ...], Tensor] = {}

    def features(self, members: tuple[int, ...]) -> Tensor:
        """What gates see of these members [m, R, 3]; the same for all gates."""
        if members not in self._features:
            self._features[members] = confidence_features(_members(self.stacked, members))
        return self._features[members]

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
    kind = {Linear: "linear", LogLinear: "log_linear"}.get(type(system.rule), "other")
    return f"gated {system.rule.rule}" if isinstance(system.rule, Gated) else kind


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


def _product(constant: Tensor, by_row: Tensor, stacked: Tensor) -> Tensor:
    """Weights [K, M] and weights of each row [L, M, R], times [M, R, V]: [K + L, R, V]."""
    shape = stacked.shape[1:]
    same = (constant.to(stacked) @ stacked.flatten(1)).view(len(constant), *shape)
    if not len(by_row):
        return same
    return torch.cat([same, torch.einsum("kmr,mrv->krv", by_row, stacked)])


class NotFinite(NotApplicable):
    """Raised for logits that are NaN or inf; ``model`` is the position of the model that gives them."""

    def __init__(self, model: int) -> None:
        super().__init__(f"model {model} gives logits that are not finite (NaN weights?)")
        self.model = model


def check_logits(stacked: Tensor) -> None:
    """A NaN or inf anywhere in a row of logits makes its first log-probability NaN."""
    bad = stacked[..., 0].isnan().any(dim=-1)
    if bad.any():
        raise NotFinite(int(bad.nonzero()[0]))
