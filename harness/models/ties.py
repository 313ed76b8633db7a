"""Members that tie their embedding and output layer beside members that do not: merged as two tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from harness.models import configuration
from harness.models.configuration import without_values
from harness.models.heads import CAUSAL
from harness.models.pretrained import ties_of
from harness.models.weights import ModelWeights, load_module, module_with
from harness.types import Architecture, Member, Pool


def with_same_ties(pool: Pool, used: Sequence[int]) -> Pool:
    """The pool in which no member ties its ends if one at the positions ``used``, or the base, does not.

    What they hold stays the same. So an adapter that trains the output layer of a tied base can be merged with others,
    and with the base.
    """
    everyone = (*((pool.base,) if pool.base else ()), *(pool.members[position] for position in used))
    models = [member for member in everyone if _has_two_ends(member.architecture)]
    if len({_is_tied(member.architecture) for member in models}) < 2:
        return pool
    base = _untied(pool.base) if pool.base else None
    return replace(pool, members=tuple(map(_untied, pool.members)), base=base)


def _has_two_ends(architecture: Architecture) -> bool:
    """Whether a model has an embedding and an output layer that could be one: a classifier has not."""
    return configuration.head_of(architecture) == CAUSAL


def _is_tied(architecture: Architecture) -> bool:
    return bool(configuration.config_of(configuration.settings_of(architecture)).get_text_config().tie_word_embeddings)


def _untied(member: Member) -> Member:
    if not _has_two_ends(member.architecture) or not _is_tied(member.architecture):
        return member
    weights = Untied(member)
    return replace(member, architecture=weights.architecture, weights=weights)


class Untied(ModelWeights):
    """A member's tensors, tied ones under each of their names."""

    def __init__(self, member: Member) -> None:
        config = configuration.config_of(configuration.settings_of(member.architecture))
        self._member, self._same = member, ties_of(without_values(config))
        config.tie_word_embeddings = False
        self.architecture = configuration.like(member.architecture, config)
        self._names = dict.fromkeys(without_values(config).state_dict())

    def __getitem__(self, name: str) -> Tensor:
        weights: Mapping[str, Tensor] = self._member.weights
        return weights[next((each for each in self._same.get(name, ()) if each in weights), name)]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def module(self) -> nn.Module:
        return module_with(self.architecture, load_module(self._member).state_dict())
