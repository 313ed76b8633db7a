"""Monte Carlo dropout: one network run as many, each pass with masks of its own (Gal and Ghahramani 2016)."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from harness.keys import digest
from harness.systems.parts import MemberPart


class DropoutPass(MemberPart):
    """One stochastic forward pass of a member: dropout on, BatchNorm in eval (Gal and Ghahramani 2016)."""

    by_row = False

    def __init__(self, of: MemberPart, index: int, seed: int) -> None:
        super().__init__(of.member, of.device)
        self.of, self.index, self.seed = of, index, seed
        self.name = f"{of.name} pass {index}"
        self.digest = digest([of.digest, "dropout", index, seed])

    @property
    def module(self) -> nn.Module:
        return self.of.module  # one network for all passes

    @property
    def network(self) -> nn.Module:
        return StochasticNetwork(self.module, self.seed + 7919 * self.index)

    def reference(self) -> dict[str, Any]:
        return {"member": self.member.digest, "pass": self.index, "seed": self.seed}


class StochasticNetwork(nn.Module):
    """A network in eval mode whose dropout stays on.

    The masks are drawn anew for every example, from a seed made of this one's and the input's bytes: the same batch
    gives the same numbers, whatever ran before.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        super().__init__()
        self.network, self.seed = network, seed
        self.training = False

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Whatever the network gives for its arguments, of which the first is the batch."""
        batch = arguments[0] if arguments else next(iter(named.values()))
        layers = dropout_layers(self.network)
        flags = [layer.training for layer in layers]
        try:
            for layer in layers:
                layer.training = True
            with torch.random.fork_rng(devices=[batch.device] if batch.device.type == "cuda" else []):
                torch.manual_seed(self.seed ^ int(hash_of(batch)[:12], 16))
                return self.network(*arguments, **named)
        finally:
            for layer, flag in zip(layers, flags, strict=True):
                layer.training = flag

    def get_base_model(self) -> nn.Module:
        """The network that takes the arguments, as adapters name it."""
        return self.network

    def __getattr__(self, name: str) -> Any:
        """What else a scorer asks a language model for, such as its configuration, is the network's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


def hash_of(batch: Tensor) -> str:
    """sha256 of a tensor's values and shape."""
    plain = batch.detach().cpu().contiguous()
    return hashlib.sha256(plain.numpy().tobytes() + str(tuple(plain.shape)).encode()).hexdigest()


def dropout_layers(module: nn.Module) -> list[nn.Module]:
    """The parts of a network that drop units while they are in training mode: layers, and attention as in Llama."""
    return [layer for layer in module.modules() if _rate(layer) is not None]


def has_dropout(module: nn.Module) -> bool:
    """Whether any part of a network drops anything."""
    return any(_rate(layer) for layer in dropout_layers(module))


def _rate(layer: nn.Module) -> float | None:
    """The share of units that a layer drops, if it is of a kind that drops any."""
    if isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout |
                  nn.FeatureAlphaDropout):  # fmt: skip
        return layer.p
    rate = getattr(layer, "attention_dropout", None)  # a number that transformers hands to a function, as Llama has it
    own = getattr(layer, "dropout", None)
    if type(layer).__name__.endswith("Attention") and isinstance(own, nn.Dropout):
        rate = own.p  # and as BERT has it
    return rate if isinstance(rate, float) else None
