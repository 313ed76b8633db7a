"""A task vector added to its base: at a scale that is given, or at those that do best on held-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from harness.evaluate.heldout import search, search_layer_scales
from harness.merging.batchnorm import shared_statistics
from harness.merging.scaled import ScaledTaskVector, StreamedTaskVector
from harness.merging.task_vectors import apply_task_vector
from harness.models.streamed import is_held
from harness.models.weights import load_module
from harness.systems.systems import batches_of, merged_model
from harness.types import Ingredients

Scale = Literal["heldout", "heldout_per_layer"] | float
"""The factor of a task vector: a number, the one that does best on held-out, or one for each layer."""


def add_task_vector(
    ingredients: Ingredients, vector: Mapping[str, Tensor], scale: Scale, grid: Sequence[float], *, lowest: bool = False
) -> tuple[nn.Module, dict[str, Any]]:
    """``theta_0 + scale * tau``, and what is recorded of the scale.

    BatchNorm statistics that the base shares with all members are kept, the others recomputed.

    Weights in half precision are rounded once, and each candidate of a search is scored as it would be handed out.

    Args:
        ingredients: their base is theta_0; tau is made from their members.
        vector: tau by tensor name; a tensor without one stays the base's.
        scale: given, or searched.
        grid: the scales that a search tries, of all layers and then, if each has its own, of one at a time.
        lowest: search for the worst instead.

    Returns:
        The module, and ``scale``; of a search ``curve``, ``heldout_evaluations`` and ``search_seconds`` as well.
    """
    base, inputs, device = ingredients.base, ingredients.train_inputs, ingredients.device
    of = [base.weights, *(member.weights for member in ingredients.members)]
    if not isinstance(scale, str):
        weights = apply_task_vector(base.weights, vector, scale)
        return merged_model(base.architecture, weights, of, inputs, device), {"scale": scale}
    models: ScaledTaskVector | StreamedTaskVector
    if is_held(base.architecture, device):
        batches, keep = list(batches_of(inputs, device)), shared_statistics(of)
        models = ScaledTaskVector(load_module(base).to(device), base.weights, vector, batches, keep)
    else:
        models = StreamedTaskVector(base, vector, device)
    if scale == "heldout":
        found = search(grid, models.at, ingredients.heldout, lowest=lowest)
    else:
        found = search_layer_scales(models.layers, grid, models.at_each, ingredients.heldout, lowest=lowest)
    return found.module, found.details
