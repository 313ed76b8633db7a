"""RegMean (Jin et al. 2023, arXiv:2212.09849): the layer whose outputs are nearest to those of every member's layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.merging.arithmetic import Weights, average, substituted
from harness.models import forward

CUT_OFF = 1e-9
"""Directions in which the inputs have less than this share of their largest power decide nothing."""

Grams = dict[str, Tensor]
"""The Gram matrix ``X^T X`` [D, D] of each layer's inputs in float64, by the name of the layer's weight."""

Layer = nn.Linear | nn.Conv2d


def input_grams(module: nn.Module, batches: Iterable[Tensor]) -> Grams:
    """The Gram matrix of the inputs of every linear layer and (by im2col) every plain 2-D convolution.

    Left out are grouped convolutions and paddings other than a number of zeros, which im2col does not cover, and
    weights that are tied to another tensor, which serve two layers.

    Args:
        module: the network in eval mode.
        batches: inputs, as ``forward.logits`` takes them.
    """
    layers = dict(_layers(module))
    grams = {weight: _empty(layer) for weight, layer in layers.items()}
    with _watched(layers, grams), torch.inference_mode():
        for batch in batches:
            forward.logits(module, batch)
    return grams


def regression_mean(
    models: Sequence[Weights], grams: Iterable[Mapping[str, Tensor]], alpha: float
) -> Weights:
    """``W = (sum_k W_k G_k) (sum_k G_k)^-1`` for each weight that has Gram matrices; the mean of all other tensors.

    Without shrinkage W is the least-squares solution: ``sum_k |X_k W^T - X_k W_k^T|^2`` is least. Where that leaves W
    open (inputs that are always 0) it is the members' mean.

    Args:
        models: the members' weights, [out, D] or [out, in, h, w] with ``D = in h w`` for a layer.
        grams: of each member; used one after the other, so they need not all exist at once.
        alpha: in [0, 1]; elements off the diagonal are multiplied by it, and 0 leaves a mean of columns weighted by
            the power of their input.
    """
    mean = average(models)
    power: Grams = {}
    pull: Grams = {}
    for model, of_member in zip(models, grams, strict=True):
        for name, gram in of_member.items():
            shrunk = alpha * gram + (1 - alpha) * gram.diag().diag()
            # from the mean: members that agree give their weight exactly, whatever the inputs leave open
            apart = (model[name].double() - mean[name].double()).flatten(1).to(gram.device) @ shrunk
            power[name] = shrunk + power.get(name, 0.0)
            pull[name] = apart + pull.get(name, 0.0)
    moved = {}
    for name, total in power.items():
        step = pull[name] @ torch.linalg.pinv(total, rtol=CUT_OFF, hermitian=True)
        moved[name] = mean[name].double() + step.view(mean[name].shape).cpu()
    return substituted(mean, moved)


def _layers(module: nn.Module) -> Iterator[tuple[str, Layer]]:
    state = module.state_dict()
    uses = [tensor.data_ptr() for tensor in state.values()]
    for name, layer in module.named_modules():
        weight = f"{name}.weight" if name else "weight"
        if isinstance(layer, nn.Conv2d):
            fits = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        else:
            fits = isinstance(layer, nn.Linear)
        if fits and uses.count(state[weight].data_ptr()) == 1:
            yield weight, layer


def _empty(layer: Layer) -> Tensor:
    width = layer.weight[0].numel()
    return torch.zeros(width, width, dtype=torch.float64, device=layer.weight.device)


def _rows(layer: Layer, inputs: Tensor) -> Tensor:
    """What the flattened weight [out, D] is multiplied with: one row [D] for each example, token or position."""
    if isinstance(layer, nn.Linear):
        return inputs.flatten(0, -2)
    assert not isinstance(layer.padding, str)
    patches = functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # [B, D, L]
    return patches.transpose(1, 2).flatten(0, 1)


@contextmanager
def _watched(layers: Mapping[str, Layer], grams: Grams) -> Iterator[None]:
    """While this lasts, what the layers are given is added to their Gram matrices."""

    def observe(gram: Tensor, layer: Layer, inputs: tuple[Tensor, ...]) -> None:
        rows = _rows(layer, inputs[0]).double()
        gram.addmm_(rows.T, rows)

    handles = [layer.register_forward_pre_hook(partial(observe, grams[name])) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
