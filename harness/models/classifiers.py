"""Classifiers from folders on batches of raw examples: each reads them with its own tokenizer or image processor."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.forward import reader_of
from harness.models.raw import contents
from harness.models.readers import padded, padding_of, pixels_of, tokens_of
from harness.models.training import Schedule
from harness.types import Reader

AT_ONCE = 32
"""Texts of about one length that are run at once: of texts of many lengths, padding would be most of the work."""
FEELS_PADDING = {
    "canine", "convbert", "fnet", "funnel", "mobilebert", "nystromformer", "perceiver", "reformer", "xlnet", "yoso"
}  # fmt: skip
"""Families of transformers whose scores of a text change where it is padded on the right, mask or no mask (they mix
neighbours or landmarks, or read the last place): their texts are run with others of the same length only."""


def logits_of_texts(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [B, C] of a batch [B, 3] of texts (``raw``), whose bytes are a JSON list of one or two texts each."""
    reader = reader_of(module)
    order: list[int] = []
    found = []
    for rows, logits in run_tokens(module, tokens_of(texts_of(batch), reader), reader):
        order += rows
        found.append(logits)
    return torch.cat(found)[torch.tensor(order).argsort()]


def run_tokens(
    module: nn.Module, tokens: Mapping[str, Sequence[Sequence[int]]], reader: Reader
) -> Iterator[tuple[list[int], Tensor]]:
    """What a network says of texts by their tokens: rows of about one length, and its logits of these [n, ...]."""
    device, takes = _device(module), _taken(module)
    with _padding(module, tokens["input_ids"], reader) as padding:
        for rows in _groups(module, tokens["input_ids"]):
            these = {name: [values[row] for row in rows] for name, values in tokens.items()}
            inputs = {name: each.to(device) for name, each in padded(these, reader, padding).items() if takes(name)}
            yield rows, _logits(module, inputs)


def texts_of(batch: Tensor) -> list[Sequence[str]]:
    """The texts of a batch [B, 3]: of each example one, or a pair."""
    return [json.loads(content) for content in contents(batch)]


def logits_of_images(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [B, C] of a batch [B, 3] of images (``raw``), whose bytes are image files."""
    pixels = pixels_of(contents(batch), reader_of(module)).to(_device(module))
    return _logits(module, {"pixel_values": pixels}) if _is_pretrained(module) else _logits(module, {}, pixels)


def schedule(epochs: int) -> Schedule:
    """That of fine-tuning a pretrained model whole (Devlin et al. 2019)."""
    return Schedule(epochs, lr=5e-5, batch_size=16, decay="warm_up")


def _groups(module: nn.Module, texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows of texts that are run at once, in the order of their lengths."""
    lengths = torch.tensor(list(map(len, texts)))
    order = lengths.argsort(stable=True)
    kind = getattr(getattr(module, "config", None), "model_type", None)
    alike = lengths[order].unique_consecutive(return_counts=True)[1].tolist() if kind in FEELS_PADDING else [len(order)]
    return [rows.tolist() for part in order.split(alike) for rows in part.split(AT_ONCE)]


def _taken(module: nn.Module) -> Any:
    """Which inputs the network's ``forward`` has a name for."""
    network: Any = getattr(module, "get_base_model", lambda: module)()
    names = inspect.signature(network.forward).parameters
    if any(each.kind == each.VAR_KEYWORD for each in names.values()) and not _is_pretrained(network):
        return lambda name: True
    return names.__contains__


@contextmanager
def _padding(module: nn.Module, texts: Sequence[Sequence[int]], reader: Reader) -> Iterator[int]:
    """The token that texts are padded with: the model's, for some find the end of a text by it.

    A model without one, which transformers runs on one text at a time, is told meanwhile of a token that none of these
    texts has. One that a user's function builds is given the tokenizer's.
    """
    if not _is_pretrained(module):
        yield padding_of(reader)
        return
    config: Any = module.config.get_text_config()  # type: ignore[operator, union-attr]
    known = getattr(config, "pad_token_id", None)
    if known is not None:
        yield int(known)
        return
    there = {token for text in texts for token in text}
    config.pad_token_id = next((token for token in range(config.vocab_size) if token not in there), 0)
    try:
        yield config.pad_token_id
    finally:
        config.pad_token_id = None


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
