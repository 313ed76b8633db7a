"""Which networks can be written with experts, and how."""

from __future__ import annotations

from harness.merging.decoder_experts import DecoderForm
from harness.merging.experts import Form
from harness.merging.hidden_experts import HiddenLayerForm
from harness.models.architectures import takes
from harness.models.causal_lm import vocabulary_of
from harness.types import Architecture, NotApplicable


def form_of(architecture: Architecture) -> Form:
    """How networks of an architecture are written with experts; ``NotApplicable`` where they cannot be here."""
    if vocabulary_of(architecture) is not None:
        return DecoderForm(architecture)
    if takes(architecture, "experts"):
        return HiddenLayerForm(architecture)
    raise NotApplicable(f"architecture {architecture.name} has no hidden layer that can be split into experts here")
