"""TIES merging (Yadav et al. 2023, arXiv:2306.01708) and its dialects: what implementations differ in has a name each.

The merge of sparse task vectors: elect a sign for each weight, combine the entries that agree. Without an election it
is a plain sum, which is what DARE, Breadcrumbs and others do to theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from harness.merging.sparsify import Keep
from harness.types import NotApplicable

Scope = Literal["model", "tensor"]
Elect = Literal["sum", "count", "none"]
ZeroSum = Literal["majority", "majority_or_negative", "positive"]
Weigh = Literal["none", "before", "after"]
Divide = Literal["weights", "count", "none"]


@dataclass(frozen=True)
class Dialect:
    """How one implementation trims and merges task vectors."""

    name: str
    scope: Scope
    """Whether the largest entries are those of the whole model, or of each tensor."""
    keep: Keep
    """How many entries a density keeps."""
    elect: Elect
    """The elected sign is that of the sum of the entries, or of the sum of their signs; or there is no election."""
    zero_sum: ZeroSum
    """The elected sign where that sum is 0: the one that most entries of the model elect (positive, or with
    ``majority_or_negative`` negative, where neither has a majority), or positive."""
    weigh: Weigh
    """Members' weights multiply their entries before the election, after it, or are not part of this dialect."""
    divide: Divide
    """The sum of the agreeing entries is divided by their weights' sum, by their number, or not at all."""

    def changed(self, **differences: str | None) -> Dialect:
        """This dialect with those of the named differences that are not None, which its name then tells."""
        given = {k: v for k, v in differences.items() if v is not None and v != getattr(self, k)}
        changes = ", ".join(f"{key}={value}" for key, value in given.items())
        return replace(self, name=f"{self.name} with {changes}", **given) if given else self  # type: ignore[arg-type]

    def sign_of_zero(self, elected: int) -> int:
        """The sign of a sum of 0 where so many more entries of the model elect a positive sign than a negative one."""
        if self.zero_sum == "positive":
            return 1
        if elected:
            return 1 if elected > 0 else -1
        return -1 if self.zero_sum == "majority_or_negative" else 1

    @property
    def trim_remarks(self) -> list[str]:
        """What may surprise a user who knows the trimming from its paper."""
        said = {
            "each tensor is trimmed on its own": self.scope == "tensor",
            "one entry more than the density says is kept, and all that equal it": self.keep == "kthvalue",
            "a small tensor may lose every entry": self.scope == "tensor" and self.keep == "exactly",
        }
        return [words for words, holds in said.items() if holds]

    @property
    def merge_remarks(self) -> list[str]:
        """What may surprise a user who knows the merging from its paper."""
        elects = self.elect != "none"
        said = {
            "there is no election: all entries count": not elects,
            "signs are counted whatever the size of the entries": self.elect == "count",
            "sums of zero count as positive": elects and self.zero_sum == "positive",
            "without a majority, sums of zero count as negative": elects and self.zero_sum == "majority_or_negative",
            "members' weights have no say in the election": elects and self.weigh == "after",
            "sums are not divided and grow with the number of members": self.divide == "none",
        }
        return [words for words, holds in said.items() if holds]

    def check_weights(self, weights: Sequence[float] | None, members: int) -> None:
        """Raise ``NotApplicable`` for weights that this dialect has no meaning for."""
        if weights is None:
            return
        if len(weights) != members:
            raise NotApplicable(f"{len(weights)} weights are given for {members} members")
        if self.weigh == "none":
            raise NotApplicable(f"the dialect '{self.name}' has no weights: take weigh=before or weigh=after")
        if self.divide == "weights" and min(weights) < 0:
            raise NotApplicable(
                f"weight {min(weights):g} is negative and sums are divided by the agreeing weights, which turns "
                "-1 times a task vector into +1 times it and may divide by nearly 0: take divide=none"
            )


STOCKPOT = Dialect("stockpot", "model", "at_least_one", "sum", "majority", "before", "weights")
"""As the paper's text: unlike its authors' code, exactly k entries are kept, and all of them at density 1."""
PAPER = Dialect("paper", "model", "kthvalue", "sum", "majority_or_negative", "none", "count")
"""As the authors' repository, github.com/prateeky2806/ties-merging."""
MERGEKIT = Dialect("mergekit", "tensor", "at_least_one", "sum", "positive", "before", "weights")
"""As ``ties`` of mergekit 0.1.5; ``normalize: false`` is ``divide: none``."""
PEFT = Dialect("peft", "tensor", "exactly", "sum", "positive", "after", "count")
"""As ``ties`` of peft 0.21; its ``total`` and ``frequency`` are ``sum`` and ``count``."""
SUM = replace(MERGEKIT, name="sum", elect="none", divide="none")
"""No dialect of TIES but a plain weighted sum, tensor by tensor: task arithmetic."""
DIALECTS = {dialect.name: dialect for dialect in (STOCKPOT, PAPER, MERGEKIT, PEFT)}


@dataclass(frozen=True)
class Election:
    """What the signs elected in a vector say of it."""

    sum: int = 0
    """How many of them are positive, less how many are negative."""
    undecided: int = 0
    """How many are neither, since the sum is 0."""


def merge_vectors(
    vectors: Tensor,
    dialect: Dialect,
    weights: Sequence[float] | None = None,
    *,
    least_divisor: float | None = None,
    overwrite: bool = False,
) -> Tensor:
    """One vector [d] of sparse task vectors [M, d] of a model, each with its weight (1 by default).

    Args:
        vectors: the task vectors.
        dialect: how they are merged.
        weights: one for each.
        least_divisor: what agreeing entries are divided by where an elected sum's divisor is less than it.
        overwrite: whether weighted task vectors may take the place of ``vectors``, which spares their room.
    """
    return merge_part(vectors, dialect, weights, None, least_divisor=least_divisor, overwrite=overwrite)[0]


def merge_part(
    vectors: Tensor,
    dialect: Dialect,
    weights: Sequence[float] | None,
    sign_of_zero: int | None,
    *,
    least_divisor: float | None = None,
    overwrite: bool = False,
) -> tuple[Tensor, Election]:
    """One vector [d] of sparse task vectors [M, d] of a part of a model; 0 where no entry counts.

    ``sign_of_zero`` is the sign of sums of 0; None takes the part for the whole, which says it.
    Vector by vector and in place, with operations that are quick on a CPU: comparisons and masks are not among them.
    """
    factors = [1.0] * len(vectors) if weights is None else list(weights)
    total = torch.zeros_like(vectors[0])
    if dialect.elect == "none":
        for vector, factor in zip(vectors, factors, strict=True):
            total.add_(vector, alpha=factor)
        if dialect.divide == "none":
            return total, Election()
        divisor = sum(factors) if dialect.divide == "weights" else len(factors)
        return total.div_(divisor or 1.0), Election()
    voting = vectors
    if dialect.weigh != "after" and weights is not None:
        voting = torch.mul(vectors, _column(factors, vectors), out=vectors if overwrite else None)
    signs, election = _elect(voting, dialect.elect)
    _decide(signs, election, dialect.sign_of_zero(election.sum) if sign_of_zero is None else sign_of_zero)
    divisors = torch.zeros_like(total)
    for votes, factor in zip(voting, factors, strict=True):
        agreeing = (votes * signs).clamp_min_(0)  # the magnitude of the vote where it is for the sign, else 0
        if dialect.weigh == "after":
            total.add_(agreeing, alpha=factor)
        else:
            total.add_(agreeing)
        if dialect.divide != "none":
            share = factor if dialect.divide == "weights" else 1.0
            divisors.add_(agreeing.sign_(), alpha=share)
    total.mul_(signs)
    if dialect.divide == "none":
        return total, election
    if least_divisor is not None:
        return total.div_(divisors.clamp_min_(least_divisor)), election
    # where nothing agrees the sum is 0 as well
    return total.div_(divisors.add_((divisors == 0).to(divisors.dtype))), election


def _column(factors: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(factors, dtype=like.dtype, device=like.device).unsqueeze(1)


def elect_signs(vectors: Tensor, elect: Elect = "sum", zero_sum: ZeroSum = "majority") -> Tensor:
    """The sign [d], 1 or -1, that a model's task vectors [M, d] elect in each place."""
    signs, election = _elect(vectors, elect)
    return _decide(signs, election, replace(STOCKPOT, zero_sum=zero_sum).sign_of_zero(election.sum))


def _elect(vectors: Tensor, elect: Elect) -> tuple[Tensor, Election]:
    """The signs [d], 0 where the sum is 0.

    Summed in float64, in which entries that cancel but for rounding have the same sum, and so the same sign, in any
    order of the members.
    """
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for vector in vectors:
        total += vector if elect == "sum" else vector.sign()
    total.sign_()
    return total.to(vectors.dtype), Election(int(total.sum()), len(total) - int(torch.count_nonzero(total)))


def _decide(signs: Tensor, election: Election, sign_of_zero: int) -> Tensor:
    return signs.add_((signs == 0).to(signs.dtype), alpha=sign_of_zero) if election.undecided else signs


def sign_conflicts(vectors: Tensor) -> Tensor:
    """Where [d] task vectors [M, d] disagree in sign: some entry is positive and some is negative."""
    return (vectors.amax(dim=0) > 0) & (vectors.amin(dim=0) < 0)
