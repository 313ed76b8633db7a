"""Mask-predict: a masked language model revises its own output, its least probable tokens again and again.

Ghazvininejad et al. 2019, arXiv:1904.09324.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.models.masked import Tokens, ask, mask_of, read_texts, write_text
from harness.types import Reader


@dataclass(frozen=True)
class Restored:
    """What a model makes of texts."""

    texts: list[str]
    calls: Tensor
    """How often it ran for each, int64 [N]."""
    why_not: list[str]
    """Why it made nothing of a text, which is as it was then; empty where it did."""


@dataclass
class _Draft:
    """A text that is being restored."""

    text: Tokens
    ids: list[int]
    places: list[int] = field(default_factory=list)
    """The positions that are restored."""
    sure: dict[int, float] = field(default_factory=dict)
    """The log-probability of what stands at each of them, when it was put there."""
    calls: int = 0


def mask_predict(module: nn.Module, reader: Reader, texts: Sequence[str], rounds: int, share: float) -> Restored:
    """Fill in what is corrupted in texts at once, and then revise that for so many rounds.

    Corrupted is what a text marks with the mask, and of its other tokens the ``share`` that is the least probable
    under the model, all tokens being there (one more call). Of N such tokens round t = 1 .. ``rounds`` masks the
    floor(N (1 - t / (rounds + 1))) least probable ones again, and predicts them from the others. A text is done when
    a round changes nothing.

    Args:
        module: the masked language model.
        reader: its tokenizer.
        texts: any number.
        rounds: 0 is the output of one shot.
        share: from 0 to 1.
    """
    read = read_texts(texts, reader)
    drafts = [_Draft(text, list(text.ids), list(text.marked)) for text in read]
    able = [draft for draft in drafts if not draft.text.why_not]
    if share:
        _doubt(module, reader, able, share)
    busy = [draft for draft in able if draft.places]
    _predict(module, reader, busy, [draft.places for draft in busy])
    for number in range(1, rounds + 1):
        again = [_least_sure(draft, len(draft.places) * (rounds + 1 - number) // (rounds + 1)) for draft in busy]
        busy, again = [d for d, a in zip(busy, again, strict=True) if a], [places for places in again if places]
        changed = _predict(module, reader, busy, again)
        busy = [draft for draft, new in zip(busy, changed, strict=True) if new]
    calls = torch.tensor([draft.calls for draft in drafts], dtype=torch.int64)
    written = [write_text(draft.text, draft.ids, reader) for draft in drafts]
    return Restored(written, calls, [text.why_not for text in read])


def _doubt(module: nn.Module, reader: Reader, drafts: Sequence[_Draft], share: float) -> None:
    """Add the tokens that the model finds the least probable where they are to what is restored; early ones first."""

    def least(row: int, log_probs: Tensor) -> list[int]:
        own = drafts[row].text.own
        ids = torch.tensor([drafts[row].ids[place] for place in own], dtype=torch.int64)
        order = log_probs.gather(1, ids.unsqueeze(1)).squeeze(1).argsort(stable=True)
        return [own[k] for k in order[: int(share * len(own))].tolist()]

    held, own = [draft.ids for draft in drafts], [draft.text.own for draft in drafts]
    for draft, places in zip(drafts, ask(module, reader, [d.text for d in drafts], held, own, least), strict=True):
        draft.places = sorted({*draft.places, *places})
        draft.calls += 1


def _least_sure(draft: _Draft, count: int) -> list[int]:
    """So many of the restored positions, those with the least probable tokens; early ones first."""
    return sorted(sorted(draft.places, key=lambda place: (draft.sure[place], place))[:count])


def _predict(
    module: nn.Module, reader: Reader, drafts: Sequence[_Draft], places: Sequence[Sequence[int]]
) -> list[bool]:
    """Mask positions of each text and put the most probable tokens there; whether that changed any."""
    mask = mask_of(reader)[1]
    held = [_with(draft.ids, at, mask) for draft, at in zip(drafts, places, strict=True)]
    best = ask(module, reader, [d.text for d in drafts], held, places, lambda _, said: said.max(dim=-1))
    changed = []
    for draft, at, (sure, tokens) in zip(drafts, places, best, strict=True):
        new = tokens.tolist()
        changed.append(any(draft.ids[place] != token for place, token in zip(at, new, strict=True)))
        for place, token, value in zip(at, new, sure.tolist(), strict=True):
            draft.ids[place], draft.sure[place] = token, value
        draft.calls += 1
    return changed


def _with(ids: Sequence[int], places: Sequence[int], token: int) -> list[int]:
    """Tokens with one token at some positions."""
    changed = list(ids)
    for place in places:
        changed[place] = token
    return changed
