"""What turns raw examples into a model's inputs, as transformers reads it from the model's folder."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.errors import BadInput
from harness.keys import digest
from harness.models.checkpoint import CONFIG, error_line, quiet, signature
from harness.models.heads import IMAGE, READ_TEXTS, Head
from harness.models.tokens import read_tokenizer, tokenizer_of
from harness.types import Reader

PROCESSOR = ("preprocessor_config.json", "processor_config.json", CONFIG)
"""Files that say how images are prepared; of timm's models the configuration does."""
ENDLESS = 10**6
"""Tokens that a tokenizer is said to take where nobody set a limit: more than any model has positions."""


def reader_in(folder: Path, head: Head, model: Any = None) -> Reader:
    """The reader in a model's folder, of the kind that its head is for; of the model only the shapes are asked for.

    None stands for a network that nothing is known of.

    Raises:
        BadInput: a folder without a tokenizer, or image processor, or with one that cannot be read.
    """
    if head in READ_TEXTS:
        return _of_texts(folder, model)
    if head == IMAGE:
        return Reader(digest([type(image := image_processor(folder)).__name__, _plain(image.to_dict())]), str(folder))
    raise ValueError(f"a {head.words} reads no raw examples")


def _of_texts(folder: Path, model: Any) -> Reader:
    if (words := tokenizer_of(folder)) is None:
        raise BadInput("the tokenizer is missing", place=str(folder), hint="save the tokenizer beside the model")
    most = _longest(folder, model)
    return Reader(digest([words.digest, most]), str(folder), most)


def _longest(folder: Path, model: Any) -> int | None:
    """How many tokens of a text a model is given at most; None where nothing limits them.

    As the tokenizer says, as in transformers' pipelines, and no more than the model has positions.
    """
    limits = (read_tokenizer(folder).model_max_length, None if model is None else positions_of(model))
    return min((int(limit) for limit in limits if limit is not None and limit < ENDLESS), default=None)


def positions_of(model: Any) -> int | None:
    """How many tokens a model has positions for; None where its configuration does not say.

    Some tables of positions are counted from the one behind that of padding, as RoBERTa's.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    for name, part in model.named_modules():
        padding = getattr(part, "padding_idx", None)
        if "position" in name and padding is not None and len(part.weight) == positions:
            return positions - padding - 1
    return positions


def tokens_of(texts: Sequence[Sequence[str]], reader: Reader) -> dict[str, list[list[int]]]:
    """Tokens of texts, or pairs of texts, as the tokenizer makes them: cut to what the model takes.

    A text without any token, which no network can run on, is read as the end of a text.
    """
    words = read_tokenizer(Path(reader.folder))
    pairs = [each[1] for each in texts] if len(texts[0]) > 1 else None
    most = reader.most
    made = words([each[0] for each in texts], pairs, truncation=most is not None, max_length=most, verbose=False)
    tokens: dict[str, list[list[int]]] = {name: list(values) for name, values in made.items()}
    end = next((token for token in (words.eos_token_id, words.pad_token_id) if token is not None), 0)
    for row in (row for row, text in enumerate(tokens["input_ids"]) if not text):
        for name in tokens:
            tokens[name][row] = [{"input_ids": end, "attention_mask": 1}.get(name, 0)]
    return tokens


def cut(texts: Sequence[Sequence[str]], reader: Reader) -> int:
    """How many of some texts the model is not given whole."""
    if reader.most is None:
        return 0
    words = read_tokenizer(Path(reader.folder))
    pairs = [each[1] for each in texts] if len(texts[0]) > 1 else None
    made = words([each[0] for each in texts], pairs, verbose=False)["input_ids"]
    return sum(len(text) > reader.most for text in made)


def padded(tokens: Mapping[str, Sequence[Sequence[int]]], reader: Reader, padding: int) -> dict[str, Tensor]:
    """Lists of tokens as tensors [B, L], filled up on the right to the longest; there is always a mask."""
    words = read_tokenizer(Path(reader.folder))
    fill = {"input_ids": padding, "token_type_ids": words.pad_token_type_id}
    found = {name: _filled(rows, fill.get(name, 0)) for name, rows in tokens.items()}
    if "attention_mask" not in found:
        found["attention_mask"] = _filled([[1] * len(row) for row in tokens["input_ids"]], 0)
    return found


def _filled(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def padding_of(reader: Reader) -> int:
    """The token that a tokenizer pads texts with, or else ends them with."""
    words = read_tokenizer(Path(reader.folder))
    return next((int(token) for token in (words.pad_token_id, words.eos_token_id) if token is not None), 0)


def pixels_of(images: Sequence[bytes], reader: Reader) -> Any:
    """Images as their model takes them, [B, channels, height, width]."""
    from transformers.image_utils import load_image

    opened = [load_image(_opened(image)) for image in images]
    return image_processor(Path(reader.folder))(images=opened, return_tensors="pt")["pixel_values"]


def _opened(image: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(image))


def image_processor(folder: Path) -> Any:
    """The image processor of a folder, as transformers reads it; ``BadInput`` where it cannot."""
    return _processor(folder, tuple(signature(folder / name) for name in PROCESSOR if (folder / name).is_file()))


@lru_cache(maxsize=16)
def _processor(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> Any:
    from transformers import AutoImageProcessor

    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a processor's own checks raise
        hint = "save the image processor beside the model"
        fault = f"the image processor cannot be read: {error_line(error)}"
        raise BadInput(fault, place=str(folder), hint=hint) from None


def _plain(settings: Any) -> Any:
    return json.loads(json.dumps(settings, sort_keys=True, default=str))
