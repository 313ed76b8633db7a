"""Models with other tokens made alike: one tokenizer for all, and each model's rows in its order.

Sources: mergekit 0.1.5, ``mergekit/tokenizer/embed.py``. Without a tokenizer, by the numbers of tokens alone, there are
the policies of ``align_rows``, which mergekit lacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import BadInput
from harness.recipes import joint_tokenizer
from harness.recipes.configuration import vocabulary_size
from harness.recipes.layers import is_head, of_vocabulary, spelled_alike, twin
from harness.recipes.row_files import write_tensors
from harness.recipes.token_rows import ZERO, Rows, Wanted, rows_for_lacking, rows_of
from harness.recipes.token_sources import TokenizerSource, TokenRow
from harness.streaming.plan import Source

if TYPE_CHECKING:
    import numpy as np

Policy = Literal["refuse", "intersect", "union"]
_BIAS = re.compile(r"(?:^|\.)(?:(?:lm_head|predictions)(?:\.decoder)?|vocab_projector|embed_out)\.bias$")


@dataclass(frozen=True)
class Model:
    """A model that is merged, as far as its vocabulary goes."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Source]


@dataclass(frozen=True)
class Aligned:
    """Models whose tensors have the same rows for the same tokens."""

    tensors: Mapping[str, Mapping[str, Source]]
    """Of every model, under names that are the same in all: its own, but for those that were written anew."""
    rows: int | None
    """Tokens of the result; None where they are the donor's."""
    tokenizer: Path | None = None
    """The folder with the result's tokenizer; None where it is the donor's, file by file."""
    token_ids: Mapping[int, int | None] | None = None
    """For the donor's tokens, by number, their new numbers; None where all have kept theirs."""


def has_rows(name: str) -> bool:
    """Whether a tensor's rows are those of the tokens: embeddings, output matrices and their biases."""
    return of_vocabulary(name) or _BIAS.search(name) is not None


def align_tokens(
    models: Mapping[str, Model],
    base: str | None,
    asked: TokenizerSource,
    scratch: Path,
    *,
    source: Path | None = None,
    place: str | None = None,
) -> Aligned:
    """Give all models the tokens of one tokenizer.

    A model's row of a token that it has is kept. Another token's row is what the recipe says, else the row of the one
    model that has it, else the base's, else the mean over the models that have it; and zeros where none has it. Rows of
    padding are the mean of all rows.

    Args:
        models: by the recipe's texts, in its order. One without a tokenizer has the donor's.
        base: the recipe's; without one the first model is the donor.
        asked: what the recipe says.
        scratch: a folder for new tensors and the tokenizer, which have to stay until the merge is written.
        source: the folder of the tokenizer where ``asked`` names a model.
        place: of the key in the recipe, for errors.

    Raises:
        BadInput: no tokenizer or one that cannot be read, tensors of other widths, a token that a model lacks.
    """
    donor = base if base is not None else next(iter(models))
    words = _read_all(models, donor)
    own = words[donor]
    if isinstance(asked.source, str):
        origin, new = models[donor].folder, _of_all(asked.source, words, models, donor)
    else:
        origin = source or models[asked.source.text].folder
        new = _needs(joint_tokenizer.read_words(origin), origin)
    new = joint_tokenizer.with_tokens(new, asked.tokens)
    vocabulary = new.get_vocab()
    ids = _ids(words, models, vocabulary)
    rules = {
        vocabulary[token]: rule
        for token, said in asked.tokens.items()
        if (rule := _rule(token, said, words, ids, vocabulary, place)) is not None
    }
    forced = [vocabulary[token] for token, said in asked.tokens.items() if said.force]
    padding = -ids.shape[1] % asked.pad_to_multiple_of if asked.pad_to_multiple_of else 0
    tensors = _written(models, base, Wanted(ids, rules, forced, padding), scratch)
    folder = None if origin == models[donor].folder else origin
    if not joint_tokenizer.are_alike(new, joint_tokenizer.read_words(origin)):
        new.save_pretrained(folder := scratch / "tokenizer")
    return Aligned(tensors, ids.shape[1] + padding, folder, joint_tokenizer.renumbered(own, new))


def align_rows(models: Mapping[str, Model], base: str | None, policy: Policy, scratch: Path) -> Aligned:
    """Give all models equally many tokens, going by their numbers alone: token 7 of one is token 7 of all.

    That holds for fine-tunes that added tokens to one tokenizer. "refuse" refuses models with other numbers of tokens;
    "intersect" keeps those that all models have; "union" keeps those that any has, and a model that lacks one gets the
    row of the base, or of the one that has it, or the mean of those that do.

    Args:
        models, base, scratch: as ``align_tokens``.
        policy: what becomes of tokens that not all models have.

    Raises:
        BadInput: models with other numbers of tokens where that is refused.
    """
    spelled = spelled_alike({text: model.tensors for text, model in models.items()})
    sizes = {
        text: [tensor.shape[0] for name, tensor in tensors.items() if has_rows(name)]
        for text, tensors in spelled.items()
    }
    if len({each for counts in sizes.values() for each in counts}) <= 1:
        return Aligned(spelled, None)
    counts = {text: min(each, default=0) for text, each in sizes.items()}
    if policy == "refuse":
        said = ", ".join(f"'{text}' has {count}" for text, count in counts.items())
        hint = "name a 'tokenizer_source', or what becomes of tokens that not all have: vocabulary: intersect, or union"
        raise BadInput(f"the models have embeddings of other numbers of tokens: {said}", hint=hint)
    import numpy as np

    numbers = np.arange((min if policy == "intersect" else max)(counts.values()))
    ids = np.stack([np.where(numbers < count, numbers, -1) for count in counts.values()])
    return Aligned(_written(models, base, Wanted(ids, {}, [], 0), scratch), len(numbers))


def _needs(words: Any | None, folder: Path) -> Any:
    if words is None:
        raise BadInput("the folder has no tokenizer", place=str(folder), hint="name one that has: 'tokenizer_source'")
    return words


def _read_all(models: Mapping[str, Model], donor: str) -> dict[str, Any]:
    """Each model's tokenizer, the donor's without tokens that it has no rows for."""
    own = _needs(joint_tokenizer.read_words(models[donor].folder), models[donor].folder)
    own = joint_tokenizer.without_unused(own, _rows_of(models[donor]), models[donor].folder)
    others = {text: joint_tokenizer.read_words(model.folder) for text, model in models.items() if text != donor}
    return {text: own if others.get(text) is None else others[text] for text in models}


def _rows_of(model: Model) -> int:
    """The tokens that a model has rows for, by its configuration or its embedding."""
    stored = [tensor.shape[0] for name, tensor in model.tensors.items() if of_vocabulary(name)]
    return vocabulary_size(model.config) or max(stored, default=0)


def _of_all(source: str, words: Mapping[str, Any], models: Mapping[str, Model], donor: str) -> Any:
    """The donor's tokenizer, or one with the tokens of all."""
    if source == "base":
        return words[donor]
    order = [donor, *(text for text in words if text != donor)]
    return joint_tokenizer.union(words[donor], [(words[text], _rows_of(models[text])) for text in order])


def _ids(words: Mapping[str, Any], models: Mapping[str, Model], vocabulary: Mapping[str, int]) -> np.ndarray:
    """[models, tokens] the row that each model has for each token of a vocabulary, -1 for none."""
    import numpy as np

    ids = np.full((len(models), max(vocabulary.values()) + 1), -1)
    for index, (text, model) in enumerate(models.items()):
        own, rows = words[text].get_vocab(), _rows_of(model)
        for token, number in vocabulary.items():
            if (row := own.get(token, rows)) < rows:
                ids[index, number] = row
    return ids


def _rule(
    token: str,
    said: TokenRow,
    words: Mapping[str, Any],
    ids: np.ndarray,
    vocabulary: Mapping[str, int],
    place: str | None,
) -> tuple[int, int] | None:
    """The model and the row that a recipe names for a token; None where it leaves that open."""
    if said.zero:
        return ZERO, 0
    if said.model is None:
        if said.force:
            raise BadInput(f"token '{token}' is forced on all models, and has no source", place=place)
        return None
    texts = list(words)
    if said.model.text not in texts:
        problem = f"token '{token}' is of '{said.model.text}', which is not merged here"
        raise BadInput(problem, place=place, given=said.model.text, choices=texts)
    model = texts.index(said.model.text)
    if said.token_id is not None:
        return model, said.token_id
    name = token if said.token is None else said.token
    row = int(ids[model, vocabulary[token]]) if said.token is None else words[said.model.text].get_vocab().get(name, -1)
    if row < 0:
        raise BadInput(f"'{said.model.text}' has no token '{name}'", place=place)
    return model, row


def _written(
    models: Mapping[str, Model], base: str | None, wanted: Wanted, scratch: Path
) -> dict[str, Mapping[str, Source]]:
    """All tensors of all models, those with rows of tokens as they are wanted: copies where they are not so already."""
    spelled = spelled_alike({text: model.tensors for text, model in models.items()})
    texts = list(models)
    fresh: dict[str, dict[str, tuple[Rows, Mapping[int, Source]]]] = {text: {} for text in texts}
    for name in dict.fromkeys(name for tensors in spelled.values() for name in tensors if has_rows(name)):
        sources = _sources(name, spelled)
        lacking = rows_for_lacking(wanted, list(sources), texts.index(base) if base is not None else None)
        for index, source in sources.items():
            rows = rows_of(index, wanted, lacking)
            _check(name, rows, sources, models)
            if not rows.is_all_of(index, source.shape[0]):
                fresh[texts[index]][name] = rows, sources
    return {
        text: {**tensors, **write_tensors(scratch / f"vocabulary-{index}.safetensors", fresh[text])}
        if fresh[text]
        else tensors
        for index, (text, tensors) in enumerate(spelled.items())
    }


def _sources(name: str, spelled: Mapping[str, Mapping[str, Source]]) -> dict[int, Source]:
    """The tensors of one name, by the number of their model; an output matrix that is tied is the embedding."""
    sources = {}
    for index, tensors in enumerate(spelled.values()):
        place = name if name in tensors else twin(name, tensors) if is_head(name) else None
        if place is not None:
            sources[index] = tensors[place]
    return sources


def _check(name: str, rows: Rows, sources: Mapping[int, Source], models: Mapping[str, Model]) -> None:
    """``BadInput`` where rows do not exist, or do not fit together."""
    texts = list(models)
    first = next(iter(sources))
    for index, source in sources.items():
        place = str(models[texts[index]].folder)
        if not source.is_float:
            raise BadInput(f"'{name}' is stored as {source.dtype}, which has no rows to move", place=place)
        if source.shape[1:] != sources[first].shape[1:]:
            problem = f"'{name}' is {list(source.shape)} and in '{texts[first]}' {list(sources[first].shape)}"
            raise BadInput(problem, place=place, hint="only the number of tokens may differ")
        beyond = rows.row[(rows.owner == index) & ((rows.row >= source.shape[0]) | (rows.row < 0))]
        if len(beyond):
            raise BadInput(f"'{name}' has {source.shape[0]} rows, and none for token {beyond[0]}", place=place)
    if absent := sorted({int(each) for each in rows.owner.tolist() if each >= 0} - sources.keys()):
        place = str(models[texts[absent[0]]].folder)
        raise BadInput(f"'{name}' is missing, and a token's row should be from there", place=place)
