"""Masked language models on texts: their tokens, what the model says where some are masked, and text again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models.classifiers import run_tokens
from harness.models.tokens import read_tokenizer
from harness.types import Reader, tokens_known

Reduced = TypeVar("Reduced")


@dataclass(frozen=True)
class Tokens:
    """A text as a masked language model reads it."""

    text: str
    ids: tuple[int, ...]
    beside: dict[str, list[int]]
    """What the tokenizer gives with them, such as an attention mask."""
    marked: tuple[int, ...]
    """The positions of the mask's token, where it stands in the text."""
    own: tuple[int, ...]
    """Those of the text's other tokens, without what the tokenizer puts around them."""
    unknown: tuple[str, ...]
    """What stands in the text for each unknown token, where the tokenizer can tell."""
    why_not: str
    """Why the model cannot be given the text; empty where it can."""

    def holding(self, ids: Sequence[int]) -> dict[str, Sequence[int]]:
        """The model's inputs with other tokens in the place of these."""
        return {**self.beside, "input_ids": ids}


def check_mask(folder: Path) -> None:
    """``BadInput`` where the tokenizer in a masked language model's folder has no mask."""
    if read_tokenizer(folder).mask_token_id is None:
        hint = "save the tokenizer with its mask_token"
        raise BadInput("the tokenizer has no mask, so that nothing can be asked", place=str(folder), hint=hint)


def mask_of(reader: Reader) -> tuple[str, int]:
    """The mask as texts have it, and its token."""
    words = read_tokenizer(Path(reader.folder))
    return str(words.mask_token), int(words.mask_token_id)


def read_texts(texts: Sequence[str], reader: Reader) -> list[Tokens]:
    """The tokens of texts, whole: of one that is longer than the model takes it is said that it is."""
    words = read_tokenizer(Path(reader.folder))
    made = words(list(texts), verbose=False, **({"return_offsets_mapping": True} if words.is_fast else {}))
    spans = made.pop("offset_mapping", None)
    columns = {name: list(values) for name, values in made.items()}
    ids = columns.pop("input_ids")
    mask, unknown_word = words.mask_token_id, words.unk_token_id  # each look-up is a search
    special = set(words.all_special_ids) - {unknown_word}
    found = []
    for row, text in enumerate(texts):
        tokens = tuple(ids[row])
        own = tuple(place for place, token in enumerate(tokens) if token not in special)
        marked = tuple(place for place, token in enumerate(tokens) if token == mask)
        unknown = tuple(text[slice(*spans[row][place])] for place in own if spans and tokens[place] == unknown_word)
        why_not = "" if own or marked else "the text has no token"
        if reader.most is not None and len(tokens) > reader.most:
            why_not = f"the text has {len(tokens)} tokens, and the model takes {reader.most}"
        beside = {name: values[row] for name, values in columns.items()}
        found.append(Tokens(text, tokens, beside, marked, own, unknown, why_not))
    return found


def ask(
    module: nn.Module,
    reader: Reader,
    texts: Sequence[Tokens],
    holding: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    reduce: Callable[[int, Tensor], Reduced],
) -> list[Reduced]:
    """Run the model once on each of some texts; what is made of its answers at some places, in the order of the texts.

    Args:
        module: the masked language model.
        reader: its tokenizer.
        texts: any number.
        holding: the tokens that each text is given with.
        places: of each text, the positions that are asked about.
        reduce: from a text's number and log-probabilities [places, V] in float32 to what is kept: special tokens (the
            mask, padding, unknown words) are no answers, and have -inf.
    """
    words = read_tokenizer(Path(reader.folder))
    special = sorted(set(words.all_special_ids))
    known = tokens_known(words)  # a vocabulary is often padded beyond the tokens of its tokenizer
    inputs = [text.holding(ids) for text, ids in zip(texts, holding, strict=True)]
    columns: dict[str, list[Any]] = {name: [each[name] for each in inputs] for name in inputs[0]} if inputs else {}
    found: dict[int, Reduced] = {}
    if inputs:
        with torch.inference_mode():
            for rows, logits in run_tokens(module, columns, reader):
                for row, of_text in zip(rows, logits, strict=True):
                    at = of_text[torch.tensor(list(places[row]), device=of_text.device)].float()
                    at[:, [*special, *range(known, at.shape[-1])]] = -torch.inf
                    found[row] = reduce(row, torch.log_softmax(at, dim=-1).cpu())
    return [found[row] for row in range(len(texts))]


def write_text(text: Tokens, ids: Sequence[int], reader: Reader) -> str:
    """The text with other tokens, as the tokenizer writes it; untouched where they are its own.

    An unknown word that nobody replaced stays as it stands in the text.
    """
    if tuple(ids) == text.ids:
        return text.text
    words = read_tokenizer(Path(reader.folder))
    unknown_word = words.unk_token_id
    special = set(words.all_special_ids) - {unknown_word}
    written: str = words.decode([token for token in ids if token not in special])
    still = [place for place in text.own if text.ids[place] == unknown_word]
    for place, word in zip(still, text.unknown, strict=False):
        if ids[place] == unknown_word:
            written = written.replace(str(words.unk_token), word, 1)
    return written
