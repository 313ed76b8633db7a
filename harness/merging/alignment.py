"""Weight matching: putting a model's interchangeable units into the order in which they resemble another model's most.

Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithms 1 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, average
from harness.merging.permutations import Units, reordered

STARTS = 4
MOST_SWEEPS = 100
LEAST_GAIN = 1e-12


@dataclass(frozen=True, eq=False)
class Alignment:
    """A model with its units in a better order: it computes what it did, and its weights resemble the reference's."""

    weights: dict[str, Tensor]
    orders: dict[str, Tensor]
    """By name of the units [n]: the place where the model had what is now in place i."""
    similarity: tuple[float, ...]
    """The inner product with the reference of all learned weights that can move: at first, and after each sweep."""

    @property
    def moved(self) -> bool:
        """Whether any unit is in another place than before."""
        return any(not torch.equal(order, torch.arange(len(order))) for order in self.orders.values())


def align(
    reference: Weights, model: Weights, layers: Sequence[Units], generator: torch.Generator, starts: int = STARTS
) -> Alignment:
    """Reorder a model's units so that the inner product of its weights with the reference's is as large as can be.

    The best of several descents (``descend``), since one can end in a poor local maximum: of shuffled networks with 2,
    4 and 6 units a layer, one descent recovers nine in ten, the best of four 96 %. The paper takes one.

    Args:
        reference: what the model is compared with, under the same names and shapes as the model.
        model: the weights to reorder; they are not changed.
        layers: which units are free (``permutations.interchangeable``).
        generator: draws the orders in which layers are taken.
        starts: how many descents there are.
    """
    descents = [descend(reference, model, layers, generator) for _ in range(starts)]
    return max(descents, key=lambda alignment: alignment.similarity[-1])


def descend(
    reference: Weights, model: Weights, layers: Sequence[Units], generator: torch.Generator, sweeps: int = MOST_SWEEPS
) -> Alignment:
    """Coordinate descent: layer by layer, in a new random order in each sweep, each layer's units are reordered best.

    While all other layers stay, that is a linear assignment. It ends when a sweep gains nothing, or after ``sweeps``.
    """
    aligned = dict(model)
    orders = {units.name: torch.arange(units.size) for units in layers}
    similarity = [_similarity(reference, aligned, layers)]
    for _ in range(sweeps):
        gained = False
        for index in torch.randperm(len(layers), generator=generator).tolist():
            units = layers[index]
            order = best_order(reference, aligned, units)
            trial = reordered(aligned, units, order)
            # measured, not taken from the assignment, which is not exact for a weight that reads and writes these units
            if _gain(reference, aligned, trial, units) > LEAST_GAIN:
                aligned, gained = trial, True
                orders[units.name] = orders[units.name][order]
        similarity.append(_similarity(reference, aligned, layers))
        if not gained:
            break
    return Alignment(aligned, orders, tuple(similarity))


def align_to_mean(
    models: Sequence[Weights], layers: Sequence[Units], generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """MergeMany: align each of two or more models in turn to the mean of the others, until none moves.

    The sum of the inner products of all pairs never falls. Arguments as for ``align``.
    """
    aligned = [dict(model) for model in models]
    for _ in range(MOST_SWEEPS):
        moved = False
        for index in torch.randperm(len(models), generator=generator).tolist():
            others = average(aligned[:index] + aligned[index + 1 :])
            alignment = descend(others, aligned[index], layers, generator)
            aligned[index] = alignment.weights
            moved = moved or alignment.moved
        if not moved:
            break
    return aligned


def best_order(reference: Weights, model: Weights, units: Units) -> Tensor:
    """The order [n] of one layer's units in the model that resembles the reference most, all other layers as they are.

    Computed in float64 from the similarity of each pair of units, summed over all tensors that hold them.
    """
    groups = units.size // units.group
    of_units = torch.zeros(units.size, units.size, dtype=torch.float64)
    of_groups = torch.zeros(groups, groups, dtype=torch.float64)
    for axis in units.axes:
        if axis.learned:
            total = of_groups if axis.of_groups else of_units
            rows, columns = (
                weights[axis.tensor].double().unflatten(axis.dim, (len(total), -1)).movedim(axis.dim, 0).flatten(1)
                for weights in (reference, model)
            )
            total += rows @ columns.T
    return assignment(of_units, of_groups)


def assignment(of_units: Tensor, of_groups: Tensor) -> Tensor:
    """The order [n] that maximises ``sum_i of_units[i, order[i]]``, and the same of the groups it keeps together.

    Args:
        of_units: [n, n] similarity of unit i of one model and unit j of the other.
        of_groups: [n / g, n / g] what the groups' own tensors add; each g neighbours are a group.
    """
    groups = len(of_groups)
    size = len(of_units) // groups
    if size == 1:
        return _assign(of_units + of_groups)
    blocks = of_units.view(groups, size, groups, size).transpose(1, 2)
    within = torch.stack([_assign(block) for block in blocks.flatten(0, 1)]).view(groups, groups, size)
    best = blocks.gather(3, within.unsqueeze(-1)).sum(dim=(2, 3))  # what two groups have in common at best
    chosen = _assign(best + of_groups)
    return (within[torch.arange(groups), chosen] + size * chosen.unsqueeze(1)).flatten()


def _assign(similarity: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment  # half a second, and few runs align anything

    return torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])


def _learned(layers: Sequence[Units]) -> list[str]:
    """The names of the learned tensors that hold these units, each once."""
    return list(dict.fromkeys(axis.tensor for units in layers for axis in units.axes if axis.learned))


def _similarity(reference: Weights, model: Weights, layers: Sequence[Units]) -> float:
    return sum(float((reference[n].double() * model[n].double()).sum()) for n in _learned(layers))


def _gain(reference: Weights, model: Weights, trial: Weights, units: Units) -> float:
    """How much the similarity rises; exactly 0 where what changes places is equal."""
    names = _learned([units])
    return sum(float((reference[n].double() * (trial[n].double() - model[n].double())).sum()) for n in names)
