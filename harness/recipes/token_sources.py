"""What a recipe says of the tokenizer: whose it is, and where single tokens' embeddings come from.

Source: mergekit 0.1.5, ``mergekit/tokenizer/config.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import BadInput
from harness.recipes.references import Around, Reference
from harness.strict import yaml
from harness.strict.fields import Count, Strict
from harness.strict.model import read_part


class TokenizerKeys(Strict):
    """The keys of ``tokenizer``."""

    source: str = "union"
    tokens: dict[str, dict[str, Any]] | None = None
    pad_to_multiple_of: Count | None = None


class TokenKeys(Strict):
    """The keys of one of its ``tokens``."""

    source: Any = None
    force: bool = False


class RowKeys(Strict):
    """The keys of a ``source`` that is no model."""

    kind: Literal["zero", "model_token"]
    model: str | None = None
    token: str | None = None
    token_id: int | None = None


@dataclass(frozen=True)
class TokenRow:
    """Where the embedding of one token comes from."""

    model: Reference | None = None
    """Whose it is; None where the recipe leaves it open."""
    token: str | None = None
    """The token of that model whose it is, where it is another one than the token itself."""
    token_id: int | None = None
    """That one's number, where the recipe has a number."""
    zero: bool = False
    """Whether it is all zeros."""
    force: bool = False
    """Whether all models get it, even those that have the token."""


@dataclass(frozen=True)
class TokenizerSource:
    """The tokenizer of the result."""

    source: Reference | Literal["union", "base"]
    tokens: Mapping[str, TokenRow]
    pad_to_multiple_of: int | None = None


def read_tokenizer(document: yaml.Document, around: Around) -> TokenizerSource | None:
    """What ``tokenizer`` or ``tokenizer_source`` says; None where there is neither.

    Raises:
        BadInput: both, keys that are not known, or models that are none; with the line.
    """
    short, long = document.value.get("tokenizer_source"), document.value.get("tokenizer")
    if short is not None and long is not None:
        place = document.place(("tokenizer_source",))
        raise BadInput("both 'tokenizer_source' and 'tokenizer'", place=place, hint="write tokenizer: {source: ...}")
    if short is not None:
        return TokenizerSource(_source(short, document.place(("tokenizer_source",)), around), {})
    if long is None:
        return None
    keys = read_part(TokenizerKeys, document, ("tokenizer",))
    source = _source(keys.source, document.place(("tokenizer", "source")), around)
    tokens = {token: _row(document, ("tokenizer", "tokens", token), around) for token in keys.tokens or {}}
    return TokenizerSource(source, tokens, keys.pad_to_multiple_of)


def _source(text: str, place: str, around: Around) -> Reference | Literal["union", "base"]:
    if text == "union":
        return "union"
    if text == "base":
        return "base"
    try:
        return around.reference(text, place)
    except BadInput as fault:
        choices = ["union", "base", *fault.choices]
        raise BadInput(fault.problem, place=fault.place, given=text, choices=choices, hint=fault.hint) from None


def _row(document: yaml.Document, at: yaml.Position, around: Around) -> TokenRow:
    keys = read_part(TokenKeys, document, at)
    place = document.place((*at, "source"))
    if keys.source is None:
        return TokenRow(force=keys.force)
    if isinstance(keys.source, str):
        return TokenRow(around.reference(keys.source, place), force=keys.force)
    row = read_part(RowKeys, document, (*at, "source"))
    if row.kind == "zero":
        return TokenRow(zero=True, force=keys.force)
    if row.model is None:
        raise BadInput("the key 'model' is missing", place=place)
    if (row.token is None) == (row.token_id is None):
        raise BadInput("a model_token has either 'token' or 'token_id'", place=place)
    return TokenRow(around.reference(row.model, place), row.token, row.token_id, force=keys.force)
