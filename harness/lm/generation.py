"""Text from any rule: members decode in lock step, each with a cache of its own where keys and values are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.exhausted import is_out_of_memory
from harness.lm.forward import (
    LanguageModel,
    device_of,
    gap,
    kept_logits,
    network_of,
    parameters_of,
    row_log_probs,
    shared_vocabulary,
    switch_lengths,
)
from harness.lm.mixing import check_logits, check_rule
from harness.systems.rules import Rule


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: temperature, then the ``top_k`` best, then the best that hold ``top_p`` of these.

    Temperature 0 takes the best token. Each prompt has a random stream of its own, from ``seed`` and its number: what
    it gets does not depend on the batch it is in.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise BadInput(f"temperature {self.temperature} is negative")
        if self.top_k is not None and self.top_k < 1:
            raise BadInput(f"top_k {self.top_k} leaves no token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadInput(f"top_p {self.top_p} is not in (0, 1]")


@dataclass(frozen=True)
class Stop:
    """When a text is done: at one of the tokens ``ids``, or when its end decodes to one of ``strings``."""

    ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    decode: Callable[[list[int]], str] | None = None

    def reached(self, tokens: list[int]) -> bool:
        """Whether the last of these generated tokens ends the text.

        A string may begin and end inside tokens. A token is at least a byte, and one more is decoded before it, for
        decoders may drop a space from the first.
        """
        if tokens[-1] in self.ids:
            return True
        if self.decode is None or not self.strings:
            return False
        reach = 1 + max(len(string.encode()) for string in self.strings)
        end = self.decode(tokens[-reach:])
        return any(string in end for string in self.strings)


@dataclass(frozen=True)
class Generated:
    """The tokens that follow one prompt, and the log-probability of each under the rule, in nats."""

    tokens: list[int]
    log_probs: list[float]
    """As the rule has them: of a text that is drawn, before temperature, ``top_k`` and ``top_p``."""


Processing = Callable[[Tensor], Callable[[Tensor, Tensor], Tensor]]
NEVER = Stop()
BEST = Sampling()


def generate(
    models: Sequence[LanguageModel],
    rule: Rule,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    **settings: Any,
) -> list[list[int]]:
    """The tokens alone of what ``write`` gives for these arguments."""
    return [each.tokens for each in write(models, rule, prompts, max_new_tokens, **settings)]


@torch.no_grad()
def write(
    models: Sequence[LanguageModel],
    rule: Rule,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop: Stop = NEVER,
    sampling: Sampling = BEST,
    numbers: Sequence[int] | None = None,
    cache: bool = True,
    processing: Processing | None = None,
) -> list[Generated]:
    """What follows each prompt, of at most ``max_new_tokens`` tokens; one of ``stop.ids`` is the last.

    One batch: prompts are padded on the left, and one that is done leaves the batch. For a member that ``sees_padding``
    prompts of one length are a batch; one that ``has_state`` runs its whole text again for every token.

    Args:
        models: causal language models of one vocabulary, in eval mode; the rule's members in order.
        numbers: of the prompts, for their random streams; their places if None.
        cache: keep each member's keys and values; without, every token runs its whole text again.
        processing: from a prompt [1, T] to what makes other logits of a model's [1, V], given the text [1, T] so far;
            every prompt then runs alone.

    Raises:
        NotApplicable: for models of different vocabularies, or logits that are NaN or inf.
        BadInput: for an empty prompt, a rule of another number of members, or a model in training mode.
    """
    shared_vocabulary(models)
    check_rule(rule, len(models), "generation")
    for p, prompt in enumerate(prompts):
        if not prompt:
            raise BadInput("the prompt has no tokens", place=f"prompt {p}")
    texts = [Generated([], []) for _ in prompts]
    if not prompts or max_new_tokens < 1:
        return texts
    seeds = range(len(prompts)) if numbers is None else numbers
    if batches := _apart(models, prompts, processing is not None):
        for batch in batches:
            found = write(
                models,
                rule,
                [prompts[p] for p in batch],
                max_new_tokens,
                stop=stop,
                sampling=sampling,
                numbers=[seeds[p] for p in batch],
                cache=cache,
                processing=processing,
            )
            for p, text in zip(batch, found, strict=True):
                texts[p] = text
        return texts
    device = device_of(models[0])
    streams = [torch.Generator().manual_seed(hash((sampling.seed, number)) % 2**63) for number in seeds]
    decoders = [_Decoder(model, cache) for model in models]
    active = list(range(len(prompts)))
    ids, mask = _padded(prompts, device)
    process = processing(ids) if processing else (lambda ids, logits: logits)
    for _ in range(max_new_tokens):
        logits = [process(ids, decoder(ids, mask).to(device).float()) for decoder in decoders]
        stacked = torch.stack([torch.log_softmax(each, -1) for each in logits])
        check_logits(stacked)
        ruled = rule(stacked)
        chosen = _choose(ruled, sampling, [streams[p] for p in active])
        values = ruled.gather(-1, chosen[:, None].to(ruled.device)).squeeze(-1)
        for p, token, value in zip(active, chosen.tolist(), values.tolist(), strict=True):
            texts[p].tokens.append(token)
            texts[p].log_probs.append(value)
        staying = [row for row, p in enumerate(active) if not stop.reached(texts[p].tokens)]
        if not staying:
            break
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        if len(staying) < len(active):
            active = [active[row] for row in staying]
            rows = torch.tensor(staying, device=device)
            ids, mask = ids[rows], mask[rows]
            for decoder in decoders:
                decoder.keep_rows(rows)
    return texts


def _apart(models: Sequence[LanguageModel], prompts: Sequence[Sequence[int]], alone: bool) -> list[list[int]]:
    """Batches of prompts that must not be padded together, or each of them ``alone``; none if all may be one."""
    if alone and len(prompts) > 1:
        return [[p] for p in range(len(prompts))]
    lengths = sorted({len(prompt) for prompt in prompts})
    if len(lengths) == 1 or not any(sees_padding(model, prompts) for model in models):
        return []
    return [[p for p, prompt in enumerate(prompts) if len(prompt) == length] for length in lengths]


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids [B, T], padded on the left, and the mask [B, T] of what is no padding."""
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)


def sees_padding(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether padding on the left moves what a model says: by a state, by positions of its own making, by a switch.

    Tried on the shortest prompt, padded as the longest needs it.
    """
    if "position_ids" not in parameters_of(model) or has_state(model) or switch_lengths(model):
        return True
    short, long = min(prompts, key=len), max(prompts, key=len)
    ids, mask = _padded([short, long], device_of(model))
    network, padding = network_of(model), len(long) - len(short)
    alone = row_log_probs(network, short, position_ids=_positions(mask[:1, padding:]))
    try:
        padded = row_log_probs(network, ids[0].tolist(), attention_mask=mask[:1], position_ids=_positions(mask[:1]))
    except (RuntimeError, ValueError, MemoryError) as error:
        if is_out_of_memory(error):
            raise
        return True
    return gap(alone[-1], padded[-1], model) > 0


def _positions(mask: Tensor) -> Tensor:
    """Where tokens stand in their texts, from the mask [B, T] of what is no padding."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def has_state(model: LanguageModel) -> bool:
    """Whether what a model remembers of a text is more than each token's keys and values (Mamba and hybrids)."""
    from transformers import DynamicCache
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    if getattr(network_of(model), "_is_stateful", False):
        return True
    config = getattr(model, "config", None)
    layers = DynamicCache(config=config).layers if config is not None else []
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)


class _Decoder:
    """One member and its cache, if it has one of which rows can be dropped."""

    def __init__(self, model: LanguageModel, cache: bool) -> None:
        self.model, self.cache = model, cache and not has_state(model)
        self.past: Any = None
        self.seen = 0

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, V] of the next token, for texts [B, T] of which the cache has seen the beginning."""
        if any(self.seen <= switch < ids.shape[1] for switch in switch_lengths(self.model)):
            self.past, self.seen = None, 0  # what it has read so far, it now reads otherwise
        new = ids[:, self.seen :]
        keep = torch.zeros_like(new, dtype=torch.bool)
        keep[:, -1] = True
        inputs: dict[str, Any] = {"input_ids": new, "use_cache": self.cache}
        told = {"attention_mask": mask, "position_ids": _positions(mask)[:, self.seen :]}  # as transformers' generate
        inputs |= {name: value for name, value in told.items() if name in parameters_of(self.model)}
        if self.past is not None:
            inputs["past_key_values"] = self.past
        logits, output = kept_logits(self.model, inputs, keep)
        past = getattr(output, "past_key_values", None)
        if self.cache and hasattr(past, "batch_select_indices"):
            self.past, self.seen = past, ids.shape[1]
        return logits

    def keep_rows(self, rows: Tensor) -> None:
        """Forget the other rows."""
        if self.past is not None:
            self.past.batch_select_indices(rows.to(device_of(self.model)))


def _choose(log_probs: Tensor, sampling: Sampling, streams: Sequence[torch.Generator]) -> Tensor:
    """The next token [B] from log-probabilities [B, V]."""
    if sampling.temperature == 0:
        return log_probs.argmax(dim=-1)
    probabilities = filtered(log_probs, sampling).exp()
    drawn = torch.tensor([torch.rand((), generator=stream, dtype=torch.float64) for stream in streams])
    rising = probabilities.double().cumsum(dim=-1)
    point = drawn.to(rising.device)[:, None] * rising[:, -1:]
    return torch.searchsorted(rising, point, right=True).squeeze(-1).clamp(max=rising.shape[-1] - 1)


def filtered(log_probs: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities [B, V] to draw from, in the order of transformers: temperature, ``top_k``, ``top_p``.

    Tokens that tie with the last of ``top_k`` stay; ``top_p`` takes the smallest set of best tokens that holds at
    least that much.
    """
    kept = torch.log_softmax(log_probs / sampling.temperature, dim=-1)
    if sampling.top_k is not None and sampling.top_k < kept.shape[-1]:
        least = kept.topk(sampling.top_k, dim=-1).values[:, -1:]
        kept = torch.log_softmax(kept.masked_fill(kept < least, -torch.inf), dim=-1)
    if sampling.top_p is not None:
        ordered, order = kept.sort(dim=-1, descending=True, stable=True)
        before = ordered.exp().cumsum(dim=-1) - ordered.exp()
        outside = torch.zeros_like(kept, dtype=torch.bool).scatter(-1, order, before >= sampling.top_p)
        kept = torch.log_softmax(kept.masked_fill(outside, -torch.inf), dim=-1)
    return kept
