"""Classifiers from folders on batches of raw examples: each reads them with its own tokenizer or image processor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.forward import reader_of
from harness.models.raw import contents
from harness.models.readers import padded, padding_of, pixels_of, tokens_of
from harness.models.training import Schedule

AT_ONCE = 32
"""Texts of about one length that are run at once: of texts of many lengths, padding would be most of the work."""


def logits_of_texts(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [B, C] of a batch [B, 3] of texts (``raw``), whose bytes are a JSON list of one or two texts each."""
    reader, device = reader_of(module), _device(module)
    texts: list[Sequence[str]] = [json.loads(content) for content in contents(batch)]
    tokens = tokens_of(texts, reader)
    _say_padding(module, padding_of(reader))
    order = torch.tensor([len(each) for each in tokens["input_ids"]]).argsort(stable=True)
    found = []
    for rows in order.split(AT_ONCE):
        these = {name: [values[row] for row in rows.tolist()] for name, values in tokens.items()}
        found.append(_logits(module, {name: each.to(device) for name, each in padded(these, reader).items()}))
    return torch.cat(found)[order.argsort()]


def logits_of_images(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [B, C] of a batch [B, 3] of images (``raw``), whose bytes are image files."""
    pixels = pixels_of(contents(batch), reader_of(module)).to(_device(module))
    return _logits(module, {"pixel_values": pixels}) if _is_pretrained(module) else _logits(module, {}, pixels)


def schedule(epochs: int) -> Schedule:
    """That of fine-tuning a pretrained model whole (Devlin et al. 2019)."""
    return Schedule(epochs, lr=5e-5, batch_size=16)


def _logits(module: nn.Module, inputs: Mapping[str, Tensor], *first: Tensor) -> Tensor:
    """A network that a user's function builds may give logits themselves."""
    found: Any = module(*first, **inputs)
    logits: Tensor = found if isinstance(found, Tensor) else found.logits
    return logits


def _is_pretrained(module: nn.Module) -> bool:
    """Whether it is a model of transformers, whose inputs have names."""
    return hasattr(getattr(module, "config", None), "get_text_config")


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _say_padding(module: nn.Module, padding: int | None) -> None:
    """A decoder's classifier reads its last token: it has to know which ones are padding."""
    if not _is_pretrained(module):
        return
    config: Any = module.config.get_text_config()  # type: ignore[operator, union-attr]
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = padding
