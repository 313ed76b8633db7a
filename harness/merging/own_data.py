"""The data that tells what each of several fine-tunes is for: its own training examples, or texts that a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models import forward
from harness.models.tokens import read_tokenizer
from harness.models.weights import load_module
from harness.types import Ingredients, Member, NotApplicable, Split, Tokenizer

ENOUGH = 10_000
"""Labels (of text, tokens) in the examples of each member, or group, that are looked at: more change nothing."""


@dataclass(frozen=True)
class OwnData:
    """Of each member, batches of inputs; none where it has no data of its own."""

    batches: Sequence[Sequence[Tensor]]
    words: Sequence[str]
    """What they are, for a reader."""


def own_data(
    ingredients: Ingredients, groups: Sequence[str] | None = None, prompts: Sequence[Sequence[str]] | None = None
) -> OwnData:
    """What each member is for, in their order.

    Args:
        ingredients: with the members and, unless there are texts, the training split.
        groups: of the training split, one for each member; by default those that the members were trained on. Where
            these are the same for all, or not known, a member's own are the inputs whose labels it gives more
            probability than the others do.
        prompts: texts of each member, in its place, for language models.

    Raises:
        NotApplicable: where the groups or texts are not of the members and the split.
    """
    members = ingredients.members
    if groups is not None and prompts is not None:
        raise NotApplicable("'data' and 'prompts' both say what each expert is for: name one of them")
    for name, given in (("data", groups), ("prompts", prompts)):
        if given is not None and len(given) != len(members):
            raise NotApplicable(f"'{name}' has {len(given)} items, and there are {len(members)} members")
    if prompts is not None:
        return OwnData(_of_texts(prompts, members), [f"{len(texts)} prompts" for texts in prompts])
    split = ingredients.train
    trained_on = [[group] for group in groups] if groups is not None else _trained_on(members)
    if trained_on is None:
        return _of_rows(split, _says_best(ingredients, split), "of which it is right with the highest probability")
    known = set(split.groups)
    for group in (group for some in trained_on for group in some):
        if group not in known:
            there = f"its groups are {', '.join(sorted(known))}" if known else "it has no groups"
            raise NotApplicable(f"no training examples are of '{group}': {there}")
    rows = [[row for row, group in enumerate(split.groups) if group in some] for some in trained_on]
    return _of_rows(split, rows, *(f"of {' and '.join(some)}" for some in trained_on))


def _trained_on(members: Sequence[Member]) -> list[list[str]] | None:
    """The groups that each was trained on; None where that tells none from another."""
    known: list[list[str]] = [list(member.provenance.get("groups", ())) for member in members]
    return known if all(known) and (len(members) == 1 or len(set(map(tuple, known))) > 1) else None


def _of_rows(split: Split, rows: Sequence[Sequence[int]], *words: str) -> OwnData:
    """Batches of these rows, thinned out evenly; ``words`` of each member, or of all."""
    chosen = [spread(split, some) for some in rows]
    batches = [list(split.inputs[some].split(split.batch)) if some else [] for some in chosen]
    said = words if len(words) == len(rows) else words * len(rows)
    return OwnData(batches, [f"{len(some)} training inputs {of}" for some, of in zip(chosen, said, strict=True)])


def spread(split: Split, rows: Sequence[int], labels: int = ENOUGH) -> list[int]:
    """As many of these rows of a split as have so many labels, at even distances; at least one, where there is one."""
    count = min(len(rows), max(1, labels * len(split.inputs) // len(split.labels)))
    return [rows[position * len(rows) // count] for position in range(count)]


def _says_best(ingredients: Ingredients, split: Split) -> list[list[int]]:
    """Of each member the rows whose labels it gives the highest mean log-probability; equal ones are the first's."""
    rows = spread(split, range(len(split.inputs)), ENOUGH * len(ingredients.members))
    labels = split.labels.view(len(split.inputs), -1)[rows]
    given = []
    for member in ingredients.members:
        module = load_module(member).to(ingredients.device)
        with torch.inference_mode():
            found = [
                _of_labels(forward.log_probs(module, split.inputs[list(some)]), labels[start : start + len(some)])
                for start, some in _batches(rows, split.batch)
            ]
        given.append(torch.cat(found).cpu())
    best = torch.stack(given).argmax(dim=0).tolist()
    return [[row for row, who in zip(rows, best, strict=True) if who == member] for member in range(len(given))]


def _batches(rows: Sequence[int], size: int) -> list[tuple[int, Sequence[int]]]:
    return [(start, rows[start : start + size]) for start in range(0, len(rows), size)]


def _of_labels(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Of each input [B] the mean log-probability of its labels [B, L]."""
    flat = labels.flatten().to(log_probs.device)
    return log_probs.gather(1, flat.unsqueeze(1)).view(labels.shape).mean(dim=1)


def _of_texts(prompts: Sequence[Sequence[str]], members: Sequence[Member]) -> list[list[Tensor]]:
    tokenizer = members[0].tokenizer  # merged members share it
    if tokenizer is None:
        raise NotApplicable("'prompts' are for language models: 'data' names groups of training examples")
    if not all(texts and all(texts) for texts in prompts):
        raise NotApplicable("'prompts' has an expert without a text, or an empty text")
    return [batches_of_texts(texts, tokenizer) for texts in prompts]


def batches_of_texts(texts: Sequence[str], tokenizer: Tokenizer) -> list[Tensor]:
    """Each text as a batch of its own [1, T + 1]: what is run is all but a window's last token, which is none of it."""
    words: Any = read_tokenizer(Path(tokenizer.folder))
    starts = [(words.bos_token or "") + text for text in texts]
    tokens = [words(text, add_special_tokens=False)["input_ids"] for text in starts]
    return [torch.tensor([[*some, some[-1]]]) for some in tokens]
