"""A smaller network of the same family as a model of transformers: its configuration with half the widths."""

from __future__ import annotations

from typing import Any

from harness.errors import BadInput
from harness.models import configuration
from harness.models.checkpoint import error_line, quiet
from harness.types import Architecture

WIDTHS = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "embedding_size", "hidden_sizes",
    "embed_dim", "num_heads", "neck_hidden_sizes",
)  # fmt: skip
"""Settings that are halved where a configuration has them, by transformers' common names; layers stay as many."""


def half_width(architecture: Architecture) -> Architecture:
    """The architecture with half the heads and half the width of every layer: about a quarter of most matrices.

    Raises:
        BadInput: for a configuration that allows no such thing.
    """
    whole = configuration.config_of(configuration.settings_of(architecture))
    half = configuration.config_of(configuration.settings_of(architecture))
    for name in WIDTHS:
        if (value := getattr(half, name, None)) is not None:
            setattr(half, name, _halved(name, value))
    head = configuration.HEADS[architecture.name]
    sizes = []
    for config in (half, whole):
        try:
            with quiet():
                sizes.append(sum(each.numel() for each in configuration.without_values(config, head).parameters()))
        except Exception as error:  # whatever the parts of such a network ask of their sizes
            raise BadInput(f"no '{whole.model_type}' of half the width can be built: {error_line(error)}") from None
    if sizes[0] >= sizes[1]:
        raise BadInput(f"the configuration of '{whole.model_type}' says none of the widths that could be halved")
    return configuration.like(architecture, half)


def _halved(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_halved(name, each) for each in value]
    if not isinstance(value, int) or value % 2:
        raise BadInput(f"{name} is {value}, which has no half")
    return value // 2
