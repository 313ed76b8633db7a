"""Fitting output rules on held-out predictions: every fit minimises the mean negative log-likelihood in float64.

What is fitted is the rule as it is applied, exact zeros included (``rules``). An example whose loss is infinite
whatever the parameters says nothing about them and is left out; parameters with which an example's loss is infinite
are never chosen where others make all losses finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness.systems.rules import confidence_features, floor_zeros, mix_log_linear, temper

BLOCK = 64 * 2**20
"""Bytes of predictions, in float64, that a fit works on at once: with a large vocabulary a copy of all is too much."""
LEAST = 1e-6
"""Weights below it are 0; what is wanted for its veto only has this weight."""


def nll(log_probs: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(-log_probs.gather(-1, labels.unsqueeze(-1)).double().mean())


def accuracy(log_probs: Tensor, labels: Tensor) -> float:
    """Share of examples whose most probable label is the right one."""
    return float((log_probs.argmax(dim=-1) == labels).double().mean())


def _of_label(stacked: Tensor, labels: Tensor) -> Tensor:
    return stacked.gather(-1, labels.expand(len(stacked), -1).unsqueeze(-1)).squeeze(-1)


def _blocks(stacked: Tensor) -> list[slice]:
    """Ranges of examples of [M, N, C], each with at most ``BLOCK`` bytes of predictions, or one example."""
    size = max(1, BLOCK // (8 * stacked[:, :1].numel()))
    return [slice(start, start + size) for start in range(0, stacked.shape[1], size)]


def _finite(block: Tensor, zeros: bool) -> Tensor:
    """Log-probabilities in float64 as they count against labels; without ``zeros`` they are as they are."""
    return floor_zeros(block.double()) if zeros else block.double()


def fit_linear(stacked: Tensor, labels: Tensor, *, steps: int = 2000, tolerance: float = 1e-9) -> Tensor:
    """Weights [M] on the simplex, by expectation-maximisation from uniform.

    Only the probabilities of the true labels [M, N] matter, so a step costs M*N; the problem is convex, and the
    gap to the optimum is at most ``log max_k mean_n p_k / p`` (the duality gap), at which the iteration stops.
    """
    true = _of_label(stacked, labels).double()
    true = true[:, ~true.isneginf().all(dim=0)]
    true = (true - true.max(dim=0).values).exp()  # the scale per example does not move the optimum
    weights = uniform(len(true)).to(true.device)
    if not true.numel():
        return weights
    for _ in range(steps):
        mixture = (weights @ true).clamp(min=torch.finfo(torch.float64).tiny)
        gain = (true / mixture).mean(dim=1)
        weights = weights * gain
        weights = weights / weights.sum()
        if float(gain.max()) < 1 + tolerance:
            break
    # a member that alone allows an example has at least its share, 1/N
    weights = torch.where(weights < min(LEAST, 0.5 / true.shape[1]), 0.0, weights)
    return weights / weights.sum()


def fit_log_linear(stacked: Tensor, labels: Tensor, *, ridge: float = 1e-4) -> Tensor:
    """Weights [M] of any sign with the least loss of all.

    ``ridge/2 * |w - 1/M|^2`` is added to the mean loss: it decides between members that say the same, where the
    loss alone has no single minimum, and is far below the noise of a held-out split.

    As long as no member with exact zeros changes the sign of its weight, the loss is convex: vetoes come and go with
    the sign. A member that excludes a right label gets no positive weight. The others that exclude labels are first
    given their vetoes and free weights, which is a bound from below; one whose weight is then not positive is tried
    with both signs (branch and bound). Only uniform weights may make members contradict each other on an example
    whose label one of them excludes: they are kept if nothing is better.
    """
    loss = _LogLinearLoss(stacked, labels, ridge)
    best, lowest = loss.start, loss.of_rule(loss.start) if loss.wrong.any() else math.inf
    unbounded = torch.full_like(loss.start, math.inf)
    bounds = [(-unbounded, unbounded.masked_fill(loss.wrong, 0.0))]
    while bounds:
        low, high = bounds.pop()
        weights, value = _minimise(loss, loss.start, low, high, loss.excludes & (high > 0))
        if value >= lowest:
            continue
        doubtful = loss.excludes & (high > 0) & (weights < LEAST)
        if not doubtful.any():
            best, lowest = weights, value
            continue
        worst = torch.arange(len(weights)) == weights.where(doubtful, math.inf).argmin()
        bounds += [(low.masked_fill(worst, LEAST), high), (low, high.masked_fill(worst, 0.0))]
    return best.to(stacked.device)


class _LogLinearLoss:
    """The loss of log-linear weights [M], float64 on the CPU, while the members ``vetoing`` [M] stay the same."""

    def __init__(self, stacked: Tensor, labels: Tensor, ridge: float) -> None:
        self.stacked, self.labels, self.ridge = stacked, labels, ridge
        self.start = uniform(len(stacked))
        self.blocks = _blocks(stacked)
        excludes = [stacked[:, rows].isneginf().flatten(1).any(dim=1) for rows in self.blocks]
        self.excludes = torch.stack(excludes).any(dim=0).cpu()  # [M]: members with exact zeros
        self.wrong = _of_label(stacked, labels).isneginf().any(dim=1).cpu()  # [M]: those that exclude a right label

    def _pull(self, weights: Tensor) -> float:
        return self.ridge / 2 * float((weights - self.start).square().sum())

    def _terms(self, weights: Tensor, vetoing: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each block: its finite logs [M, n, C], labels [n], and ``sum_k w_k log p_k`` after vetoes [n, C]."""
        vetoing = vetoing.nonzero().flatten().to(self.stacked.device)
        for rows in self.blocks:
            block = self.stacked[:, rows]
            logs = _finite(block, bool(self.excludes.any()))
            mixed = (weights.to(logs) @ logs.flatten(1)).view(logs.shape[1:])
            if len(vetoing):
                mixed.masked_fill_(block[vetoing].isneginf().any(dim=0), -math.inf)
            yield logs, self.labels[rows], mixed

    def __call__(self, weights: Tensor, vetoing: Tensor) -> float:
        total = 0.0
        for _, labels, mixed in self._terms(weights, vetoing):
            total += float((mixed.logsumexp(dim=-1) - mixed.gather(-1, labels.unsqueeze(-1)).squeeze(-1)).sum())
        return total / len(self.labels) + self._pull(weights)

    def of_rule(self, weights: Tensor) -> float:
        """The loss of the rule itself; infinite where a member of positive weight excludes the right label."""
        total = 0.0
        for rows in self.blocks:
            labels = self.labels[rows]
            total += nll(mix_log_linear(self.stacked[:, rows].double(), weights), labels) * len(labels)
        return total / len(self.labels) + self._pull(weights)

    def derivatives(self, weights: Tensor, vetoing: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient [M] and Hessian [M, M]."""
        gradient = self.ridge * (weights - self.start)
        hessian = self.ridge * torch.eye(len(weights), dtype=torch.float64)
        for logs, labels, mixed in self._terms(weights, vetoing):
            posterior = torch.softmax(mixed, dim=-1)
            mean = (logs * posterior).sum(dim=-1)  # [M, n]: expected log-probability under the mixture
            gradient += (mean - _of_label(logs, labels)).sum(dim=1).cpu() / len(self.labels)
            spread = ((logs - mean.unsqueeze(-1)) * posterior.sqrt()).flatten(1)
            hessian += (spread @ spread.T).cpu() / len(self.labels)
        return gradient, hessian


def _minimise(
    loss: _LogLinearLoss, start: Tensor, low: Tensor, high: Tensor, vetoing: Tensor, *, steps: int = 200
) -> tuple[Tensor, float]:
    """The weights within bounds with the least loss, and the loss: Newton's method with backtracking.

    Each step is the minimum of the quadratic model within the bounds, so that it is a descent also at a bound.
    """
    from scipy.optimize import lsq_linear  # half a second, and what only looks at methods fits nothing

    weights = start.clamp(low, high)
    value = loss(weights, vetoing)
    if math.isnan(value):  # so are the predictions, and what is made of them shall be seen to be
        return torch.full_like(weights, math.nan), value
    for _ in range(steps):
        gradient, hessian = loss.derivatives(weights, vetoing)
        root = torch.linalg.cholesky(hessian)
        target = -torch.linalg.solve_triangular(root, gradient.unsqueeze(-1), upper=False).squeeze(-1)
        bounds = ((low - weights).numpy(), (high - weights).numpy())
        step = torch.from_numpy(lsq_linear(root.T.numpy(), target.numpy(), bounds, method="bvls", tol=1e-14).x)
        descent = -float(gradient @ step)
        size = 1.0
        while (trial := loss(weights + size * step, vetoing)) > value - 1e-4 * size * descent and size > 1e-18:
            size /= 2
        if trial > value:  # by rounding: the last digit is reached
            break
        weights, value = (weights + size * step).clamp(low, high), trial
        if descent < 1e-10:  # Newton's error is squared by a step
            break
    return weights, value


def fit_gate(stacked: Tensor, labels: Tensor, rule: str, *, ridge: float = 1e-2) -> tuple[Tensor, Tensor]:
    """The ``bias`` [M] and ``slopes`` [3] of a confidence gate (``rules.Gated``), by L-BFGS from uniform weights.

    ``ridge/2 * |slopes|^2 + ridge/2 * |bias|^2`` keeps a gate that learns nothing at equal weights. A gate's weights
    are all positive, so an example has an infinite loss under every gate where all members exclude its label (linear)
    or any one does (log-linear).
    """
    excluded = _of_label(stacked, labels).isneginf()
    lost = excluded.all(dim=0) if rule == "linear" else excluded.any(dim=0)
    if lost.all():
        return torch.zeros(len(stacked), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    if lost.any():
        stacked, labels = stacked[:, ~lost], labels[~lost]
    blocks = _blocks(stacked)
    features = torch.cat([confidence_features(stacked[:, rows].double()) for rows in blocks], dim=1)
    centre = features.mean(dim=(0, 1))
    scale = features.std(dim=(0, 1)).clamp(min=1e-6)
    features = (features - centre) / scale
    true = _of_label(stacked, labels).double()
    zeros = any(bool(stacked[:, rows].isneginf().any()) for rows in blocks)
    bias = torch.zeros(len(stacked), 1, dtype=torch.float64, device=stacked.device, requires_grad=True)
    slopes = torch.zeros(3, dtype=torch.float64, device=stacked.device, requires_grad=True)

    def terms() -> Iterator[Tensor]:
        yield ridge / 2 * (slopes.square().sum() + bias.square().sum())
        for rows in blocks:
            scores = features[:, rows] @ slopes + bias
            if rule == "linear":  # the true labels' probabilities are enough
                likelihood = torch.logsumexp(true[:, rows] + torch.log_softmax(scores, dim=0), dim=0)
            else:  # the derivative by a weight is the log itself, which has to be finite
                block = stacked[:, rows]
                mixed = torch.einsum("mn,mnc->nc", torch.softmax(scores, dim=0), _finite(block, zeros))
                if zeros:
                    mixed = mixed.masked_fill(block.isneginf().any(dim=0), -math.inf)
                likelihood = torch.log_softmax(mixed, dim=-1).gather(-1, labels[rows].unsqueeze(-1))
            yield -likelihood.sum() / len(labels)

    _lbfgs([bias, slopes], terms)
    return bias.detach().flatten(), slopes.detach() / scale


def _lbfgs(parameters: list[Tensor], terms: Callable[[], Iterable[Tensor]]) -> None:
    """Minimise the sum of the terms; the graph of each is let go before the next one is made."""
    optimiser = torch.optim.LBFGS(parameters, max_iter=40, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        total = 0.0
        for term in terms():
            term.backward()
            total += float(term.detach())
        return total

    with torch.enable_grad():
        optimiser.step(closure)


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature in [1/20, 20] with the least loss, to a relative error of 1e-6.

    The loss is convex in 1/T, so a bounded search in log T finds the minimum. An end of the range is returned exactly
    where no temperature within is better. Examples whose right label is excluded are left out; where all are, it is 1.
    """
    from scipy.optimize import minimize_scalar

    possible = ~_of_label(log_probs.unsqueeze(0), labels)[0].isneginf()
    if not possible.any():
        return 1.0
    logs, labels = log_probs[possible].double(), labels[possible]

    def loss(log_temperature: float) -> float:
        return nll(temper(logs, math.exp(log_temperature)), labels)

    ends = (math.log(1 / 20), math.log(20))
    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    return math.exp(min((ends[0], float(best.x), ends[1]), key=loss))


def select_greedily(
    stacked: Tensor, labels: Tensor, *, rounds: int, score: Callable[[Tensor, Tensor], Any]
) -> tuple[list[int], list[Any]]:
    """Greedy selection with replacement (Caruana et al. 2004): how often each member is in, and the scores by round.

    Each round adds the member whose addition to the mean probability scores best on these examples (the first of
    equals); the selection with the best score over all rounds is kept, so it is never worse than the best member.
    """
    probabilities = stacked.double().exp()
    total = torch.zeros_like(probabilities[0])
    chosen: list[int] = []
    scores: list[Any] = []
    for size in range(1, rounds + 1):
        trials = [score(((total + member) / size).log(), labels) for member in probabilities]
        best = max(range(len(trials)), key=lambda k: (trials[k], -k))
        total = total + probabilities[best]
        chosen.append(best)
        scores.append(trials[best])
    rounds_kept = max(range(len(scores)), key=lambda i: (scores[i], -i)) + 1
    return [chosen[:rounds_kept].count(k) for k in range(len(stacked))], scores


def uniform(members: int) -> Tensor:
    """Equal weights [M] in float64."""
    return torch.full((members,), 1 / members, dtype=torch.float64)
