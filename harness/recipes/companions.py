"""What lies beside the weights of a merge: configuration, tokenizer, chat template, processors and licence."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.models.settings import read_object
from harness.recipes.chat_templates import LEGACY_TEMPLATE, MORE_TEMPLATES, TEMPLATE, chosen_template
from harness.recipes.configuration import changed_config, config_text, renumber

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER = re.compile(
    r"tokenizer(\..+)?\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|"
    r"vocab(-\w+)?\.(json|txt)|\w+_vocab\.json|vocab\.txt|merges\.txt|bpe\.codes|dict\.txt|tekken\.json|"
    r"(tokenizer|tiktoken|sentencepiece(\.bpe)?|spiece|spm|spm_char)\.model(\.v\w+)?|.+\.(spm|tiktoken)|"
    r"(emoji|normalizer|byte_maps|word_pronunciation|word_shape)\.json|prophetnet\.tokenizer|chat_template\.jinja"
)
"""The files that transformers' tokenizers read."""
OTHERS = re.compile(
    r"generation_config\.json|(video_|image_)?(pre)?processor_config\.json|chat_template\.json|"
    r"(LICEN[CS]E|COPYING|NOTICE|USE_POLICY)([-_.]\w+)?(\.(txt|md))?",
    re.IGNORECASE,
)
"""What else belongs to a model and not to its weights."""
MAKES_TOKENS = re.compile(r"tokenizer\.json|vocab.*|.*\.(model|spm|tiktoken)(\.v\w+)?|tekken\.json")


@dataclass(frozen=True)
class Companions:
    """The files of a merge but for its weights and its card."""

    files: Mapping[str, bytes | Path]
    """By their place in the new folder: contents, or the file that is copied byte for byte."""


def read_companions(
    donor: Path,
    config: Mapping[str, Any],
    *,
    layers: int | Sequence[int] | None = None,
    tied: bool | None = None,
    dtype: str,
    vocabulary: int | None = None,
    token_ids: Mapping[int, int | None] | None = None,
    chat_template: str | None = None,
    models: Sequence[Path] = (),
    tokenizer: Path | None = None,
    place: str | None = None,
) -> Companions:
    """Everything but weights and card; whatever is wrong with it is said here, before anything is merged.

    Files are the donor's, byte for byte, links followed, but for what the merge changes. Code is never carried over:
    neither files of Python nor the key ``auto_map``.

    Args:
        donor: the folder of the base, or of the first model.
        config: the donor's config.json.
        layers, tied, dtype, vocabulary, token_ids: as ``changed_config``.
        chat_template: as ``chosen_template``; another template than the donor's replaces all that it has.
        models: the folders of all models, in the recipe's order, among which "auto" chooses a template.
        tokenizer: the folder that the tokenizer's files are from; None: the donor.
        place: of ``chat_template`` in the recipe, for errors.

    Raises:
        BadInput: a file that is not JSON, a template where there is no tokenizer, and as those two.
    """
    made = changed_config(
        config, layers=layers, tied=tied, dtype=dtype, vocabulary=vocabulary, token_ids=token_ids, place=str(donor)
    )
    words = _files(tokenizer or donor, TOKENIZER) | _more_templates(tokenizer or donor)
    copied: dict[str, Path] = _files(donor, OTHERS) | words
    template = chosen_template(chat_template, models, place)
    if template is not None:
        if not any(MAKES_TOKENS.fullmatch(name) for name in words):
            problem = "a chat template belongs to a tokenizer, and the folder has none"
            raise BadInput(problem, place=str(donor), hint="leave 'chat_template' out, or name the 'tokenizer_source'")
        copied = {name: file for name, file in copied.items() if not name.startswith((LEGACY_TEMPLATE, MORE_TEMPLATES))}
    files: dict[str, bytes | Path] = {CONFIG: config_text(made).encode(), **copied}
    unwanted = {"auto_map"} if template is None else {"auto_map", "chat_template"}
    for name, said in {name: read_object(file) for name, file in copied.items() if name.endswith(".json")}.items():
        kept = dict(said)
        if name.endswith("_config.json"):
            kept = {key: value for key, value in said.items() if key not in unwanted}
        if name == GENERATION and token_ids is not None:
            renumber(kept, token_ids)
        if kept != said:
            files[name] = config_text(kept).encode()
    if template is not None:
        files[TEMPLATE] = template.encode()
    return Companions(files)


def write_companions(folder: Path, companions: Companions) -> None:
    """Write the files into a folder that exists, each on disk when this returns."""
    for name, content in companions.files.items():
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        with open(target, "wb") as handle:
            if isinstance(content, bytes):
                handle.write(content)
            else:
                with open(content, "rb") as source:
                    shutil.copyfileobj(source, handle)
            handle.flush()
            os.fsync(handle.fileno())


def _files(folder: Path, names: re.Pattern[str]) -> dict[str, Path]:
    return {file.name: file for file in sorted(folder.iterdir()) if names.fullmatch(file.name) and file.is_file()}


def _more_templates(folder: Path) -> dict[str, Path]:
    found = sorted((folder / MORE_TEMPLATES).glob("*.jinja"))
    return {f"{MORE_TEMPLATES}/{file.name}": file for file in found if file.is_file()}
