"""The tokenizer of a merge: one model's, or the union of all, as mergekit builds it.

Source: mergekit 0.1.5, ``mergekit/tokenizer/build.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from harness.errors import BadInput


def read_words(folder: Path) -> Any | None:
    """The tokenizer of a folder, which is shared and not to be changed; None where the folder has none.

    Raises:
        BadInput: one that transformers cannot read.
    """
    from harness.models.tokens import FILES, read_tokenizer

    return read_tokenizer(folder) if any((folder / name).is_file() for name in FILES) else None


def without_unused(tokenizer: Any, rows: int, folder: Path) -> Any:
    """A tokenizer without the tokens that a model has no rows for.

    Raises:
        BadInput: where they cannot be taken out: of tokenizers in Python, and of others than byte-pair encodings.
    """
    beyond = {token for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    does: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    kind = does["model"]["type"] if does else type(tokenizer).__name__
    if kind != "BPE":
        problem = f"its tokenizer has {len(beyond)} tokens more than the model has rows, such as '{min(beyond)}'"
        raise BadInput(f"{problem}, and is of type {kind}, not BPE", place=str(folder))
    from tokenizers import Tokenizer

    model = does["model"]
    does["added_tokens"] = [each for each in does["added_tokens"] if each["id"] < rows]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in beyond}
    model["merges"] = [each for each in model["merges"] if not beyond & {*_merged(each), "".join(_merged(each))}]
    smaller = deepcopy(tokenizer)
    smaller._tokenizer = Tokenizer.from_str(json.dumps(does))
    return smaller


def _merged(merge: str | list[str]) -> list[str]:
    """The two tokens that a rule of a byte-pair encoding makes one of."""
    return merge.split(" ") if isinstance(merge, str) else merge


def union(base: Any, all_words: Iterable[tuple[Any, int]]) -> Any:
    """The base's tokenizer with all others' tokens added, in the order of the models and of their numbers.

    Args:
        base: is left as it is.
        all_words: each model's tokenizer, the base's first, and the number of its rows: tokens beyond are left out.
    """
    plain: dict[str, None] = {}
    added: dict[str, Any] = {}
    for tokenizer, rows in all_words:
        own = {number: token for number, token in tokenizer.added_tokens_decoder.items() if number < rows}
        marked = {token.content for token in tokenizer.added_tokens_decoder.values()}
        for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
            if number < rows and token not in marked:
                plain.setdefault(token)
        for token in own.values():
            added.setdefault(token.content, token)
    known = base.get_vocab()
    whole = deepcopy(base)
    whole.add_tokens([token for token in plain if token not in known and token not in added])
    whole.add_tokens(list(added.values()))
    return whole


def with_tokens(tokenizer: Any, tokens: Iterable[str]) -> Any:
    """A tokenizer with the tokens that a recipe names."""
    known = tokenizer.get_vocab()
    lacking = [token for token in tokens if token not in known]
    if not lacking:
        return tokenizer
    larger = deepcopy(tokenizer)
    larger.add_tokens(lacking)
    return larger


def are_alike(one: Any, other: Any) -> bool:
    """Whether two tokenizers make the same tokens of all text."""
    if one is other:
        return True
    if getattr(one, "backend_tokenizer", None) is None or getattr(other, "backend_tokenizer", None) is None:
        return type(one) is type(other) and one.get_vocab() == other.get_vocab()
    return bool(one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str())


def renumbered(donor: Any, new: Any) -> Mapping[int, int | None] | None:
    """For the donor's tokens, by number, their numbers in a new tokenizer; None where all have kept theirs.

    Of those that it lacks, such as an end of text, those that have the same part in it stand in.
    """
    known = new.get_vocab()
    ids: dict[int, int | None] = {number: known.get(token) for token, number in donor.get_vocab().items()}
    if all(old == number for old, number in ids.items()):
        return None
    for part in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        old = getattr(donor, f"{part}_token_id", None)
        if old is not None and ids.get(old) is None:
            ids[old] = getattr(new, f"{part}_token_id", None)
    return ids
