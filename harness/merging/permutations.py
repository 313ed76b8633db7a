"""Which units of a network can change places without changing what it computes, and changing their places."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from harness.merging.arithmetic import Weights
from harness.models.image_networks import RectifiedPool
from harness.models.weights import without_ties
from harness.moe.layer import MixtureOfExperts
from harness.types import NotApplicable

PER_CHANNEL = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Dropout, nn.Identity, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    RectifiedPool,
)  # fmt: skip
"""Layers without weights that treat every channel alike; flattening makes a run of neighbours of each."""
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
SUMS, ACTIVATIONS = (operator.add, torch.add), (torch.relu, functional.relu)
LLAMAS = ("llama", "mistral", "qwen2")
"""Models of transformers that are built and named like Llama."""
OUTSIDE = "inputs and logits"
"""Stands for the channels that mean something to the world outside, and so stay where they are."""


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor along which units lie one after the other, each a run of equally many entries."""

    tensor: str
    dim: int
    of_groups: bool = False
    """Whether what lies along it is the groups of units, not the units."""
    learned: bool = True
    """False for statistics, which move with their unit but do not say which unit it is."""


@dataclass(frozen=True)
class Units:
    """Interchangeable units: the network computes the same after any reordering of all their axes at once.

    With ``group`` above 1, each so many neighbours are a group: groups change places whole, and units within theirs.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    group: int = 1


def interchangeable(module: nn.Module) -> tuple[Units, ...]:
    """The units of a network that are free to change places.

    Image networks are followed from layer to layer: the output channels of each linear layer, convolution or BatchNorm
    whose readers are such layers too, one ordering for all that a residual sum joins. So for ``mlp`` both hidden
    layers are free, and for ``small_cnn`` and ``small_cnn_bn`` the channels of both convolutions (after flattening,
    each with its pixels) and the hidden layer. For ``tiny_llama`` and models like it: the channels of the residual
    stream, and in each layer the attention heads (a key-value head with its query heads, and query heads among those
    that share one; never parts of a head, whose pairs of channels the rotary embedding tells apart) and the hidden
    units of the MLP. Inputs, logits and vocabulary stay where they are. Channels are taken to lie along the second axis
    of what an image network's layers pass on.

    Raises:
        NotApplicable: the network has a layer, or is of a kind, for which this is not known.
    """
    return tuple(_of_llama(module) if hasattr(module, "config") else _of_graph(module))


def reordered(weights: Weights, units: Units, order: Tensor) -> dict[str, Tensor]:
    """The weights with unit ``order[i]`` [n] in place i, bit for bit; tensors that hold none of the units are shared.

    An order of units in groups has to keep the members of each group together.
    """
    result = dict(weights)
    for axis in units.axes:
        places = order[:: units.group] // units.group if axis.of_groups else order
        runs = result[axis.tensor].unflatten(axis.dim, (len(places), -1))
        result[axis.tensor] = runs.index_select(axis.dim, places).flatten(axis.dim, axis.dim + 1)
    return result


class _LayerTracer(fx.Tracer):
    """Records the calls of layers, without looking into those of our own, or into what chooses among experts."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        own = isinstance(module, MixtureOfExperts) or not any(module.children())
        return own or super().is_leaf_module(module, name)


def _of_graph(module: nn.Module) -> Iterator[Units]:
    joined = _joined_axes(module)
    classes: dict[Hashable, list[Axis]] = {}
    for axis in joined:
        if isinstance(axis, Axis) and not joined.connected(axis, OUTSIDE):
            classes.setdefault(joined[axis], []).append(axis)
    tensors = module.state_dict()
    for axes in classes.values():
        size = min(tensors[axis.tensor].shape[axis.dim] for axis in axes)
        yield Units(axes[0].tensor.removesuffix(".weight"), size, tuple(axes))


def _joined_axes(module: nn.Module) -> Any:
    """A disjoint set of the axes of all layers: two are connected if values carry the channels of one to the other."""
    from scipy.cluster.hierarchy import DisjointSet  # half a second, and few runs align anything

    joined = DisjointSet([OUTSIDE])
    carried: dict[fx.Node, Hashable] = {}  # of each value, an axis that its channels lie along

    def join(first: Hashable, *others: Hashable) -> Hashable:
        joined.add(first)
        for other in others:
            joined.add(other)
            joined.merge(first, other)
        return first

    for node in _LayerTracer().trace(module).nodes:
        given = [carried[value] for value in node.all_input_nodes]
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        tensors = layer.state_dict(keep_vars=True) if layer else {}
        if node.op == "placeholder":
            carried[node] = OUTSIDE
        elif node.op == "output":
            join(OUTSIDE, *given)
        elif isinstance(layer, LINEAR) and getattr(layer, "groups", 1) == 1:
            carried[node] = join(*(Axis(f"{node.target}.{name}", 0) for name in tensors))
            join(given[0], Axis(f"{node.target}.weight", 1))
        elif isinstance(layer, _BatchNorm):
            held = {name: isinstance(tensor, nn.Parameter) for name, tensor in tensors.items() if tensor.dim()}
            carried[node] = join(given[0], *(Axis(f"{node.target}.{n}", 0, learned=held[n]) for n in held))
        elif isinstance(layer, PER_CHANNEL) or node.target in SUMS + ACTIVATIONS:
            carried[node] = join(*given)
        else:
            what = f"layer '{node.target}' ({type(layer).__name__})" if layer else f"operation '{node.target}'"
            raise NotApplicable(f"it is not known which units of {what} can change places")
    return joined


def _of_llama(module: nn.Module) -> Iterator[Units]:
    config: Any = module.config
    if config.model_type not in LLAMAS:
        raise NotApplicable(f"which units of a '{config.model_type}' can change places is known for {LLAMAS} only")
    tensors = without_ties(module)
    group = config.num_attention_heads // config.num_key_value_heads
    readers, writers = ["model.embed_tokens", "lm_head", "score"], ["model.norm"]  # a language model, or a classifier
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        q, k, v, o = (f"{layer}.self_attn.{name}_proj" for name in "qkvo")
        gate, up, down = (f"{layer}.mlp.{name}_proj" for name in ("gate", "up", "down"))
        heads = _axes(tensors, [q], 0) + _axes(tensors, [k, v], 0, of_groups=True) + _axes(tensors, [o], 1)
        yield Units(f"{layer}.self_attn", config.num_attention_heads, heads, group)
        hidden = _axes(tensors, [gate, up], 0) + _axes(tensors, [down], 1)
        yield Units(f"{layer}.mlp", config.intermediate_size, hidden)
        readers += [q, k, v, gate, up]
        writers += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm", o, down]
    yield Units("residual stream", config.hidden_size, _axes(tensors, readers, 1) + _axes(tensors, writers, 0))


def _axes(
    tensors: Mapping[str, Tensor], layers: Sequence[str], dim: int, *, of_groups: bool = False
) -> tuple[Axis, ...]:
    """Of these layers, what their weights have along an axis: outputs (0; biases too) or inputs (1)."""
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    return tuple(Axis(name, dim, of_groups) for name in names if name in tensors and dim < tensors[name].dim())
