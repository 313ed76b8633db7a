"""Output rules: pure functions on stacked log-probabilities [M, ..., C] that give log-probabilities [..., C].

Every rule is a frozen dataclass of numbers and tensors: it can be saved, applied to cached predictions, and applied
to a live batch with the same result. All of them mix from log-probabilities with ``logsumexp``, in float32 or better.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RULES: dict[str, type[Rule]] = {}
RULE = "rule.json"
"""The file of a saved rule."""


class Rule(ABC):
    """How to combine; subclasses are frozen dataclasses and register themselves by name for loading."""

    def __init_subclass__(cls) -> None:
        RULES[cls.__name__] = cls

    @abstractmethod
    def __call__(self, stacked: Tensor) -> Tensor:
        """Normalised log-probabilities [..., C] from [M, ..., C]."""

    def used(self) -> tuple[Rule, list[int]] | None:
        """The rule on those members alone that can change its result, and their positions; None if all of them can.

        The numbers are the same, and the other members need not run.
        """
        return None

    def describe(self, tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Any]:
        """The rule as JSON; its tensors are put into ``tensors`` under dotted names."""
        values: dict[str, Any] = {"kind": type(self).__name__}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                tensors[prefix + field.name] = value.contiguous()
            else:
                nested = isinstance(value, Rule)
                values[field.name] = value.describe(tensors, f"{prefix}{field.name}.") if nested else value
        return values

    @staticmethod
    def restore(values: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str = "") -> Rule:
        """The rule that ``describe`` wrote down."""
        kind = RULES[values["kind"]]
        arguments = {}
        for field in fields(kind):  # type: ignore[arg-type]
            value = values.get(field.name, tensors.get(prefix + field.name))
            nested = isinstance(value, Mapping)
            arguments[field.name] = Rule.restore(value, tensors, f"{prefix}{field.name}.") if nested else value
        return kind(**arguments)

    def save(self, folder: Path) -> None:
        """Write the rule as JSON and safetensors."""
        tensors: dict[str, Tensor] = {}
        (folder / RULE).write_text(json.dumps(self.describe(tensors)))
        save_file(tensors, folder / "rule.safetensors")

    @staticmethod
    def load(folder: Path) -> Rule:
        """The rule saved in a folder."""
        return Rule.restore(json.loads((folder / RULE).read_text()), load_file(folder / "rule.safetensors"))


def _column(weights: Tensor, stacked: Tensor) -> Tensor:
    """Weights [M] (or per example [M, ...]) shaped to multiply [M, ..., C], where and as precise as those are."""
    return weights.to(stacked).reshape(*weights.shape, *[1] * (stacked.dim() - weights.dim()))


def mix_linear(stacked: Tensor, weights: Tensor) -> Tensor:
    """``log sum_k w_k p_k`` for weights [M] or [M, ...] on the simplex.

    A member with weight 0 is left out, and one with weight 1 is returned bit for bit.
    """
    return torch.logsumexp(stacked + _column(weights, stacked).log(), dim=0)


def mix_log_linear(stacked: Tensor, weights: Tensor) -> Tensor:
    """``log softmax(sum_k w_k log p_k)`` for any real weights [M] or [M, ...].

    What a member says of a label with probability 0 depends on the sign of its weight:

    - positive: the label gets 0 (a veto), whatever the others say;
    - 0: nothing (``0 * -inf`` is 0 here);
    - negative: as much as of its faintest label that is possible (``floor_zeros``). The formula would give the label
      all the probability: that a member never says a thing is no proof of it.

    Where every label would get 0 the members contradict each other, and the result is uniform.
    """
    total = torch.zeros_like(stacked[0])
    weights = weights.to(stacked.dtype)  # first: a weight too small for this type is 0
    column = _column(weights, stacked)
    for index, values in enumerate(stacked):  # all of them at once would take the memory of more ensembles
        if weights.dim() > 1:
            finite = torch.where(column[index] < 0, floor_zeros(values), values)
            total = total + torch.where(column[index] == 0, 0.0, column[index] * finite)
        elif weight := float(weights[index]):
            total = total + column[index] * (floor_zeros(values) if weight < 0 else values)
    contradiction = torch.isneginf(total).all(dim=-1, keepdim=True)
    return torch.log_softmax(torch.where(contradiction, torch.zeros_like(total), total), dim=-1)


def floor_zeros(log_probs: Tensor) -> Tensor:
    """Log-probabilities [..., C] with those of zeros replaced by the smallest finite one of their row.

    A zero that counts against its label so moves it no further than the member's own words do. The floor moves with
    the row: tempering it, or mixing logits instead of log-probabilities, changes nothing but the scale.
    """
    return log_probs.maximum(log_probs.masked_fill(log_probs.isneginf(), torch.inf).amin(dim=-1, keepdim=True))


def _nonzero(rule: Linear | LogLinear) -> tuple[Rule, list[int]] | None:
    """``Rule.used`` of constant weights."""
    kept = rule.weights.nonzero().flatten().tolist() or [0]  # one that gives the shape, if all weights are zero
    return None if len(kept) == len(rule.weights) else (replace(rule, weights=rule.weights[kept]), kept)


@dataclass(frozen=True)
class Linear(Rule):
    """Linear interpolation with constant weights [M]."""

    weights: Tensor

    def used(self) -> tuple[Rule, list[int]] | None:
        return _nonzero(self)

    def __call__(self, stacked: Tensor) -> Tensor:
        if len(self.weights) == 1:  # the best member, say: it should cost what the member costs
            return stacked[0]
        kept = self.weights.nonzero().flatten().tolist()
        if len(kept) == 1:
            return stacked[kept[0]]
        if len(kept) < len(stacked):  # a sum with zeros in it is rounded otherwise
            return mix_linear(stacked[kept], self.weights[kept])
        return mix_linear(stacked, self.weights)


@dataclass(frozen=True)
class LogLinear(Rule):
    """Log-linear interpolation with constant weights [M], which may be negative."""

    weights: Tensor

    def used(self) -> tuple[Rule, list[int]] | None:
        return _nonzero(self)

    def __call__(self, stacked: Tensor) -> Tensor:
        used = self.weights.nonzero().flatten()
        if len(used) == 1 and self.weights[used[0]] == 1:
            return stacked[used[0]]
        return mix_log_linear(stacked, self.weights)


@dataclass(frozen=True)
class Vote(Rule):
    """Majority vote; the mean probability counts as one more vote, so it breaks ties and leaves no label at zero.

    One pseudo-vote spread over the labels can never overturn a majority of whole votes.
    """

    def __call__(self, stacked: Tensor) -> Tensor:
        votes = torch.nn.functional.one_hot(stacked.argmax(dim=-1), stacked.shape[-1]).sum(dim=0)
        mean = stacked.exp().mean(dim=0)
        return ((votes + mean) / (stacked.shape[0] + mean.sum(dim=-1, keepdim=True))).log()


@dataclass(frozen=True)
class Tempered(Rule):
    """Another rule's result, sharpened or flattened by one temperature."""

    rule: Rule
    temperature: float

    def __call__(self, stacked: Tensor) -> Tensor:
        return temper(self.rule(stacked), self.temperature)

    def used(self) -> tuple[Rule, list[int]] | None:
        fewer = self.rule.used()
        return None if fewer is None else (replace(self, rule=fewer[0]), fewer[1])


def temper(log_probs: Tensor, temperature: float) -> Tensor:
    """``log softmax(log p / T)``: the same order of the labels, another confidence."""
    return torch.log_softmax(log_probs / temperature, dim=-1)


@dataclass(frozen=True)
class Stacked(Rule):
    """``log softmax(sum_k (scales_k I + weights_k) log p_k + bias)``: a multinomial logistic model on what members say.

    ``scales`` [M] are those of ``mix_log_linear``; ``weights`` [M, C, C] (from, to) and ``bias`` [C] say what a class
    that a member is inclined to tells of the others.
    """

    scales: Tensor
    weights: Tensor
    bias: Tensor

    def __call__(self, stacked: Tensor) -> Tensor:
        said = floor_zeros(stacked)
        scores = torch.einsum("m,m...c->...c", self.scales.to(said), said)
        scores = scores + torch.einsum("mcd,m...c->...d", self.weights.to(said), said)
        return torch.log_softmax(scores + self.bias.to(said), dim=-1)


@dataclass(frozen=True)
class Contrast(Rule):
    """``log softmax(z_base + a (z_expert - z_anti))`` on members stacked as (base, expert, anti).

    ``mask`` says which labels may be raised at all: all of them ("none"), those the expert gives at least
    ``threshold`` times its best ("contrastive", Li et al. 2022, 0.1), or the base's smallest set of labels with at
    least ``threshold`` of the probability ("dexperts", Liu et al. 2021, 0.9). Where that would leave nothing, the
    mask is dropped.

    Without a mask this is ``mix_log_linear`` with weights (1, a, -a), zeros included, but for two things. A label that
    expert and anti-expert both exclude is no evidence: the two agree. And where the one of the two that counts for
    labels excludes all that the base allows, the base stands. With ``a`` 0 this is the base, bit for bit.
    """

    a: float
    mask: str
    threshold: float

    def __call__(self, stacked: Tensor) -> Tensor:
        base, expert, anti = stacked
        if self.a == 0:
            return base
        favoured, opposed = (expert, anti) if self.a > 0 else (anti, expert)
        evidence = abs(self.a) * (favoured - floor_zeros(opposed))
        moved = base + evidence.masked_fill(expert.isneginf() & anti.isneginf(), 0.0)
        moved = torch.where(torch.isneginf(moved).all(dim=-1, keepdim=True), base, moved)
        allowed = self._allowed(base, expert)
        nothing_left = ~(allowed & ~torch.isneginf(moved)).any(dim=-1, keepdim=True)
        return torch.log_softmax(torch.where(allowed | nothing_left, moved, -torch.inf), dim=-1)

    def used(self) -> tuple[Rule, list[int]] | None:
        return None if self.a else (Linear(torch.ones(1)), [0])

    def _allowed(self, base: Tensor, expert: Tensor) -> Tensor:
        if self.mask == "none":
            return torch.ones_like(base, dtype=torch.bool)
        if self.mask == "contrastive":
            return expert >= math.log(self.threshold) + expert.max(dim=-1, keepdim=True).values
        probabilities, order = base.exp().sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        return torch.zeros_like(base, dtype=torch.bool).scatter(-1, order, before < self.threshold)


@dataclass(frozen=True)
class Gated(Rule):
    """Context-dependent weights: a gate reads each member's confidence on the example at hand.

    The score of member k is ``bias_k + slopes . features_k`` and the weights are the softmax of the scores over the
    members; see ``confidence_features``. The slopes are shared, so that members are told apart by what they say here.
    """

    bias: Tensor
    slopes: Tensor
    rule: str

    def weights(self, stacked: Tensor) -> Tensor:
        """Weights [M, ...] on the simplex for every example."""
        return self.weights_from(confidence_features(stacked))

    def weights_from(self, features: Tensor) -> Tensor:
        """The same, from what the gate sees [M, ..., 3]: gates over the same members share it."""
        scores = features @ self.slopes.to(features)
        return torch.softmax(scores + _column(self.bias, scores), dim=0)

    def __call__(self, stacked: Tensor) -> Tensor:
        mix = mix_linear if self.rule == "linear" else mix_log_linear
        return mix(stacked, self.weights(stacked))


def confidence_features(stacked: Tensor) -> Tensor:
    """What a gate sees of each member, [M, ..., 3]: log of its top probability, its entropy, its support.

    The support is the log of the mean probability that all members give to this member's top label.
    """
    top, label = stacked.max(dim=-1, keepdim=True)
    entropy = -(stacked.exp() * stacked.clamp(min=-1e4)).sum(dim=-1, keepdim=True)
    mean = mix_linear(stacked, torch.full((len(stacked),), 1 / len(stacked), device=stacked.device))
    support = mean.expand_as(stacked).gather(-1, label)
    return torch.cat([top, entropy, support], dim=-1)
