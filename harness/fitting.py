"""Fitting output rules on held-out predictions: every fit minimises the mean negative log-likelihood in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from harness.combining import confidence_features, mix_log_linear, temper

FLOOR = -1e4
"""Stands for log 0 where a fit needs a finite number."""
BLOCK = 64 * 2**20
"""Bytes of predictions, in float64, that a fit works on at once: with a large vocabulary a copy of all is too much."""


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


def _finite(stacked: Tensor) -> Tensor:
    return stacked.double().clamp(min=FLOOR)


def fit_linear(stacked: Tensor, labels: Tensor, *, steps: int = 2000, tolerance: float = 1e-9) -> Tensor:
    """Weights [M] on the simplex, by expectation-maximisation from uniform.

    Only the probabilities of the true labels [M, N] matter, so a step costs M*N; the problem is convex, and the
    gap to the optimum is at most ``log max_k mean_n p_k / p`` (the duality gap), at which the iteration stops.
    """
    true = _of_label(stacked, labels).double()
    true = (true - true.max(dim=0).values.clamp(min=FLOOR)).exp()  # the scale per example does not move the optimum
    true = true[:, true.any(dim=0)]  # an example that no member allows says nothing, and would end the iteration early
    weights = torch.full((len(true),), 1 / len(true), dtype=torch.float64, device=true.device)
    for _ in range(steps):
        mixture = (weights @ true).clamp(min=torch.finfo(torch.float64).tiny)
        gain = (true / mixture).mean(dim=1)
        weights = weights * gain
        weights = weights / weights.sum()
        if float(gain.max()) < 1 + tolerance:
            break
    weights = torch.where(weights < 1e-6, 0.0, weights)
    return weights / weights.sum()


def fit_log_linear(stacked: Tensor, labels: Tensor, *, ridge: float = 1e-4, steps: int = 50) -> Tensor:
    """Unconstrained weights [M], negative ones allowed, by Newton's method with backtracking from uniform.

    ``ridge/2 * |w - 1/M|^2`` is added to the mean loss: it decides between members that say the same, where the
    loss alone has no single minimum, and is far below the noise of a held-out split.
    """
    members = len(stacked)
    start = torch.full((members,), 1 / members, dtype=torch.float64, device=stacked.device)
    true = _finite(_of_label(stacked, labels))  # [M, N]
    blocks = _blocks(stacked)

    def objective(weights: Tensor) -> Tensor:
        norms = torch.cat([_mix(weights, _finite(stacked[:, rows])).logsumexp(dim=-1) for rows in blocks])
        return (norms - weights @ true).mean() + ridge / 2 * (weights - start).square().sum()

    def derivatives(weights: Tensor) -> tuple[Tensor, Tensor]:
        gradient = ridge * (weights - start)
        hessian = ridge * torch.eye(members, dtype=torch.float64, device=stacked.device)
        for rows in blocks:
            logs = _finite(stacked[:, rows])
            posterior = torch.softmax(_mix(weights, logs), dim=-1)
            mean = (logs * posterior).sum(dim=-1)  # [M, n]: expected log-probability under the mixture
            gradient += (mean - true[:, rows]).sum(dim=1) / len(labels)
            spread = ((logs - mean.unsqueeze(-1)) * posterior.sqrt()).flatten(1)
            hessian += spread @ spread.T / len(labels)
        return gradient, hessian

    weights = start
    loss = objective(weights)
    for _ in range(steps):
        gradient, hessian = derivatives(weights)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6:
            trial = objective(weights - size * step)
            if trial <= loss - 1e-4 * size * float(gradient @ step):
                break
            size /= 2
        else:
            break
        weights, improved, loss = weights - size * step, float(loss - trial), trial
        if improved < 1e-12:
            break
    return weights


def _mix(weights: Tensor, logs: Tensor) -> Tensor:
    """``sum_k w_k logs_k`` [n, C]."""
    return (weights @ logs.flatten(1)).view(logs.shape[1:])


def fit_gate(stacked: Tensor, labels: Tensor, rule: str, *, ridge: float = 1e-2) -> tuple[Tensor, Tensor]:
    """The ``bias`` [M] and ``slopes`` [3] of a confidence gate (``combining.Gated``), by L-BFGS from uniform weights.

    ``ridge/2 * |slopes|^2 + ridge/2 * |bias|^2`` keeps a gate that learns nothing at equal weights.
    """
    blocks = _blocks(stacked)
    features = torch.cat([confidence_features(_finite(stacked[:, rows])) for rows in blocks], dim=1)
    centre = features.mean(dim=(0, 1))
    scale = features.std(dim=(0, 1)).clamp(min=1e-6)
    features = (features - centre) / scale
    true = _finite(_of_label(stacked, labels))
    bias = torch.zeros(len(stacked), 1, dtype=torch.float64, device=stacked.device, requires_grad=True)
    slopes = torch.zeros(3, dtype=torch.float64, device=stacked.device, requires_grad=True)

    def terms() -> Iterator[Tensor]:
        yield ridge / 2 * (slopes.square().sum() + bias.square().sum())
        for rows in blocks:
            weights = torch.softmax(features[:, rows] @ slopes + bias, dim=0)
            if rule == "linear":  # the true labels' probabilities are enough
                likelihood = torch.logsumexp(true[:, rows] + weights.log(), dim=0)
            else:  # the derivative by a weight is the log itself, which has to be finite
                mixed = mix_log_linear(_finite(stacked[:, rows]), weights)
                likelihood = mixed.gather(-1, labels[rows].unsqueeze(-1))
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
    """The temperature in [1/20, 20] with the least loss: the loss is convex in 1/T, so a golden section finds it."""
    logs = log_probs.double().clamp(min=FLOOR)
    low, high = math.log(1 / 20), math.log(20)
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if nll(temper(logs, math.exp(left)), labels) <= nll(temper(logs, math.exp(right)), labels):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def select_greedily(
    stacked: Tensor, labels: Tensor, *, rounds: int, score: Callable[[Tensor, Tensor], float]
) -> tuple[list[int], list[float]]:
    """Greedy selection with replacement (Caruana et al. 2004): how often each member is in, and the scores by round.

    Each round adds the member whose addition to the mean probability scores best on these examples (the first of
    equals); the selection with the best score over all rounds is kept, so it is never worse than the best member.
    """
    probabilities = stacked.double().exp()
    total = torch.zeros_like(probabilities[0])
    chosen: list[int] = []
    scores: list[float] = []
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


