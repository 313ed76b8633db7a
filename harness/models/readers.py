"""What turns raw examples into a model's inputs, as transformers reads it from the model's folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.models.checkpoint import CONFIG, error_line, quiet, read_object, signature
from harness.models.heads import IMAGE, SEQUENCE, Head
from harness.models.tokens import read_tokenizer, tokenizer_of
from harness.store import digest
from harness.types import Reader

PROCESSOR = ("preprocessor_config.json", "processor_config.json", CONFIG)
"""Files that say how images are prepared; of timm's models the configuration does."""
ENDLESS = 10**6
"""Tokens that a tokenizer is said to take where nobody set a limit: more than any model has positions."""


def reader_in(folder: Path, head: Head) -> Reader:
    """The reader in a model's folder, of the kind that its head is for.

    Raises:
        BadInput: a folder without a tokenizer, or image processor, or with one that cannot be read.
    """
    if head == SEQUENCE:
        return _of_texts(folder)
    if head == IMAGE:
        return Reader(digest([type(image := image_processor(folder)).__name__, _plain(image.to_dict())]), str(folder))
    raise ValueError(f"a {head.words} reads no raw examples")


def _of_texts(folder: Path) -> Reader:
    if (words := tokenizer_of(folder)) is None:
        raise BadInput("the tokenizer is missing", place=str(folder), hint="save the tokenizer beside the model")
    return Reader(digest([words.digest, longest(folder)]), str(folder))


def longest(folder: Path) -> int | None:
    """How many tokens of a text the model in a folder is given at most; None where nothing limits them.

    The tokenizer says so, or else how many positions the model has, less those that some models count from.
    """
    words = read_tokenizer(folder)
    if words.model_max_length < ENDLESS:
        return int(words.model_max_length)
    settings = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    positions = settings.get("max_position_embeddings", settings.get("n_positions"))
    if not isinstance(positions, int) or positions < 1:
        return None
    counted_from_padding = str(settings.get("model_type")) in ("roberta", "xlm-roberta", "camembert", "longformer")
    return positions - (int(settings.get("pad_token_id") or 0) + 1 if counted_from_padding else 0)


def tokens_of(texts: Sequence[Sequence[str]], reader: Reader) -> Any:
    """Tokens of texts, or pairs of texts, each a list as the tokenizer makes it: cut to what the model takes."""
    folder = Path(reader.folder)
    words, most = read_tokenizer(folder), longest(folder)
    pairs = [each[1] for each in texts] if len(texts[0]) > 1 else None
    return words([each[0] for each in texts], pairs, truncation=most is not None, max_length=most, verbose=False)


def padded(tokens: Any, reader: Reader) -> Any:
    """Lists of tokens as tensors [B, L], padded to the longest; a tokenizer without padding pads with its end."""
    words = read_tokenizer(Path(reader.folder))
    if words.pad_token is None:
        words.pad_token = words.eos_token
    return words.pad(tokens, return_tensors="pt", verbose=False) if words.pad_token else words.pad(tokens)


def padding_of(reader: Reader) -> int | None:
    """The token that texts are padded with."""
    words = read_tokenizer(Path(reader.folder))
    found: int | None = words.eos_token_id if words.pad_token_id is None else words.pad_token_id
    return found


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
