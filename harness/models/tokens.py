"""Which tokens a pool's models read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.keys import Key, digest, file_digest
from harness.models.checkpoint import error_line, quiet, signature
from harness.models.settings import read_object
from harness.store import Store, read_json, write_json
from harness.types import Member, Pool, Tokenizer, tokens_known

FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
"""Any of these makes tokens; a folder without one has no tokenizer."""
ASIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
"""What says how, beside them."""


def reading(pool: Pool, tokenizer: Tokenizer | None) -> Pool:
    """The pool in which every model without a tokenizer of its own reads this one's tokens.

    Fine-tunes made here, adapters, and folders of weights alone bring none: theirs is their base's.
    """

    def with_tokens(member: Member) -> Member:
        return member if member.tokenizer else replace(member, tokenizer=tokenizer)

    base = with_tokens(pool.base) if pool.base else None
    return replace(pool, members=tuple(map(with_tokens, pool.members)), base=base)


def read_tokenizer(folder: Path, **settings: Any) -> Any:
    """The tokenizer of a folder, as transformers reads it, with settings of its own (``add_bos_token``).

    Raises:
        BadInput: a tokenizer that cannot be read.
    """
    return _read(folder, _files(folder), tuple(sorted(settings.items())))


def _files(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    return tuple(signature(folder / name) for name in FILES + ASIDE if (folder / name).is_file())


@lru_cache(maxsize=16)
def _read(folder: Path, files: tuple[tuple[Path, int, int], ...], settings: tuple[tuple[str, Any], ...]) -> Any:
    from transformers import AutoTokenizer

    _check_ids(folder)
    options = {"local_files_only": True, "trust_remote_code": False, **dict(settings)}
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder), **options)
    except Exception as error:  # tokenizers raises plain exceptions
        raise BadInput(f"the tokenizer cannot be read: {error_line(error)}", place=str(folder)) from None


TOKENS = 2**22
"""Ids of tokens are below: tokenizers keeps a number for each id up to the largest, used or not, and ends the process
where it has no room for them. The largest vocabularies have a tenth."""


def _check_ids(folder: Path) -> None:
    """``BadInput`` where a file of a tokenizer has an id that no vocabulary is large enough for."""
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            try:
                said = read_object(folder / name)
            except BadInput:  # which transformers says too, where it reads this file at all
                continue
            ids = (each for each in _ids(name, said) if isinstance(each, int | float))
            if (largest := max(ids, default=0)) >= TOKENS:
                hint = f"ids are below {TOKENS:,}"
                raise BadInput(f"{name} has a token of the id {largest:,}", place=str(folder), hint=hint)


def _ids(name: str, said: Mapping[str, Any]) -> Iterator[Any]:
    """All ids of tokens in a file, among what else may stand in their place."""
    if name == "tokenizer.json":
        model, added = said.get("model"), said.get("added_tokens")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        yield from vocabulary.values() if isinstance(vocabulary, dict) else ()
        yield from (token.get("id") for token in added if isinstance(token, dict)) if isinstance(added, list) else ()
    elif name == "tokenizer_config.json":
        decoder = said.get("added_tokens_decoder")
        yield from (int(key[:20]) for key in decoder if key.isdecimal()) if isinstance(decoder, dict) else ()
    else:
        yield from said.values()


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """The tokenizer in a folder; None where there is none."""
    if not any((folder / name).is_file() for name in FILES):
        return None
    return _described(folder, _files(folder))


def kept_tokenizer(folder: Path, store: Store) -> tuple[Tokenizer, int] | None:
    """As ``tokenizer_of``, and how many tokens it has; from the store once its files were read.

    A run that makes nothing new then does without transformers, which takes seconds to import.
    """
    if (found := [folder / name for name in (*FILES, *ASIDE, "config.json") if (folder / name).is_file()]) == []:
        return None
    key = Key.of("tokenizer_facts", code=__name__, files={file.name: file_digest(file) for file in found})
    if not store.has(key):
        if (tokenizer := tokenizer_of(folder)) is None:
            return None
        facts = {"digest": tokenizer.digest, "size": tokenizer.size, "begins": tokenizer.begins}
        with store.write(key) as target:
            write_json(target / "tokenizer.json", {**facts, "tokens": len(read_tokenizer(folder))})
    facts = read_json(store.read(key) / "tokenizer.json")
    return Tokenizer(facts["digest"], str(folder), facts["size"], facts["begins"]), facts["tokens"]


@cache
def _described(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> Tokenizer:
    words = _read(folder, files, ())
    begins = words.eos_token_id if words.bos_token_id is None else words.bos_token_id
    return Tokenizer(_digest(words, files), str(folder), tokens_known(words), begins)


def _digest(words: Any, files: tuple[tuple[Path, int, int], ...]) -> str:
    """What a tokenizer makes of text: two with the same digest make the same tokens, however they are written down."""
    backend = getattr(words, "backend_tokenizer", None)
    if backend is None:  # a tokenizer in Python: by its class and files
        contents = [[file.name, file.read_bytes().hex()] for file, _, _ in files]
        return digest([type(words).__name__, contents])
    does: dict[str, Any] = json.loads(backend.to_str())
    for setting in ("version", "padding", "truncation", "decoder"):  # how it is called, and text out of tokens
        does.pop(setting, None)
    for token in does.get("added_tokens") or []:
        token.pop("special", None)  # which only says what is left out of text
    return digest(does)
