"""Log-likelihoods of continuations under many systems at once: all models in lock step over each batch.

Nothing larger than one batch of full distributions is ever kept. Contexts that requests share are run once. What a
system says does not depend on the others: those whose members must run in another way have a pass of their own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from lm_eval.models.utils import resolve_max_length
from torch import Tensor

from harness.errors import BadInput
from harness.exhausted import free_memory, is_out_of_memory
from harness.lm.forward import (
    Batch,
    LanguageModel,
    automatic_tokens,
    device_of,
    gap,
    kept_logits,
    make_batch,
    network_of,
    row_log_probs,
    shared_vocabulary,
    switch_lengths,
    synchronize,
)
from harness.lm.mixing import Mixer, NotFinite, System, check_systems
from harness.lm.packing import Row, batches, lay_out
from harness.types import NotApplicable

WIDTH = 1024
"""What the models' hidden size is taken for where packing is planned: the layout, and with it the rounding of a model's
numbers, is not to depend on the models beside it."""


@dataclass(frozen=True)
class Request:
    """Token ids: how likely is the continuation after the context? Neither may be empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass
class Work:
    """What a pass did."""

    batch_tokens: int
    """Tokens of a batch at most, with padding; after any halving."""
    packed: bool
    """Whether shared contexts were run once, under a tree mask."""
    why_plain: str = ""
    """Why members did not run packed, and the systems that have them neither."""
    tokens_forwarded: int = 0
    """Tokens that each member ran, with padding; those of a member that ran packed and plain are added up."""
    tokens_on_trial: int = 0
    """Tokens that all members together ran to find out whether they may run packed."""
    tokens_alone: int = 0
    """Tokens that a scorer with one row per request would run, without padding."""
    forward_seconds: float = 0.0
    """In the members; the trial of packing included."""
    combine_seconds: float = 0.0
    """In the rules of all systems."""
    halvings: int = 0
    """How often memory ran out."""
    truncated: int = 0
    """Requests whose context was cut on the left to fit the model."""

    def add(self, other: Work) -> None:
        """Count another pass's work, done with fewer tokens a batch if memory ran out."""
        self.batch_tokens = min(self.batch_tokens, other.batch_tokens)
        for name in ("tokens_forwarded", "forward_seconds", "combine_seconds", "halvings"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def halve(self, short: int) -> None:
        """Go on with fewer tokens than a batch of ``short`` that memory was too small for."""
        self.batch_tokens = max(1, min(self.batch_tokens, short) // 2)
        self.halvings += 1
        free_memory()


@dataclass(frozen=True, eq=False)
class Scored:
    """Per system and request, in the order given: log-likelihood float64 [S, R], in nats, and greedy bool [S, R].

    Greedy says that every token of the continuation is its system's first choice. ``token_log_probs`` [S, P] in
    float32 and ``starts`` (R + 1 numbers: request r has the tokens starts[r] to starts[r + 1]) if asked for.
    """

    systems: tuple[str, ...]
    log_likelihood: Tensor
    greedy: Tensor
    starts: tuple[int, ...]
    token_log_probs: Tensor | None
    work: Work

    def answers(self, system: str) -> list[tuple[float, bool]]:
        """One system's (log-likelihood, greedy) per request, as lm-eval wants them."""
        s = self.systems.index(system)
        return list(zip(self.log_likelihood[s].tolist(), self.greedy[s].tolist(), strict=True))


@torch.no_grad()
def score(
    models: Sequence[LanguageModel],
    systems: Sequence[System],
    requests: Sequence[Request],
    *,
    batch_tokens: int | None = None,
    packed: bool | None = None,
    max_length: int | None = None,
    per_token: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Scored:
    """Score every request under every system from one pass over the models.

    Args:
        models: causal language models of one vocabulary, in eval mode. Log-probabilities are float32 whatever theirs.
        batch_tokens: tokens of a batch, with padding; from the free memory if None. Halved when memory runs out.
        packed: run what requests share once, under a tree mask. Every model is first tried on one row; one that then
            says something else (a sliding window, positions of its own making, a state instead of attention) runs
            plainly if None, together with the systems that have it, and is an error if True.
        max_length: tokens a model is given at most; the least of what the models take if None. Longer contexts are
            cut on the left, as lm-eval's ``hf`` does.
        per_token: keep the log-probability of every target token.
        progress: called with the requests done and their number after each batch.

    Raises:
        NotApplicable: for models of different vocabularies, one that is not causal, or (``NotFinite``) logits that are
            NaN or inf.
        BadInput: for systems or requests that cannot be scored, a model in training mode, or one that cannot be packed.
    """
    check_systems(systems, len(models))
    vocabulary = shared_vocabulary(models)
    limit = max_length or min(resolve_max_length(getattr(model, "config", None)) for model in models)
    _check_requests(requests, vocabulary, limit)
    asked = _Asked(requests, limit)
    work = Work(batch_tokens or automatic_tokens(models, vocabulary), packed is not False)
    work.tokens_alone, work.truncated = sum(map(len, asked.sequences)), asked.truncated
    used = sorted({k for system in systems for k in system.members})
    if requests:
        shortest = min(asked.sequences, key=len)
        for k in used:
            _check_causal(models[k], k, shortest)
    refusals = {} if packed is False else _try_packing({k: models[k] for k in used}, asked, work)
    if packed and refusals:
        k, why = next(iter(refusals.items()))
        raise BadInput(f"model {k} cannot run packed: {why}", place="packed", hint="leave it out: each model is tried")
    work.why_plain = "; ".join(f"model {k}: {why}" for k, why in refusals.items())
    groups = _alike(models, systems, refusals, packed is not False)
    shape = (len(systems), asked.starts[-1])
    log_probs, first = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for number, (how, chosen) in enumerate(groups.items()):
        run = _Pass(models, [systems[s] for s in chosen], asked, how, Work(work.batch_tokens, how.packed))
        for open_ in run.all():
            if progress:
                progress(((number + 1) * len(requests) - open_) // len(groups), len(requests))
        log_probs[chosen], first[chosen] = run.log_probs, run.first
        work.add(run.work)
    work.packed = any(how.packed for how in groups)
    owner = torch.repeat_interleave(torch.tensor(asked.starts).diff())
    totals = torch.zeros((len(systems), len(requests)), dtype=torch.float64)
    missed = torch.zeros((len(systems), len(requests)), dtype=torch.int64)
    return Scored(
        systems=tuple(system.name for system in systems),
        log_likelihood=totals.index_add_(1, owner, log_probs.double()),
        greedy=missed.index_add_(1, owner, (~first).long()) == 0,
        starts=asked.starts,
        token_log_probs=log_probs if per_token else None,
        work=work,
    )


@dataclass(frozen=True)
class _How:
    """How the models of a pass are run: packed or not, and the lengths at which any of them changes."""

    packed: bool
    switches: tuple[int, ...]


def _alike(
    models: Sequence[LanguageModel], systems: Sequence[System], refusals: Container[int], packed: bool
) -> dict[_How, list[int]]:
    """Positions of the systems whose members are run alike."""
    groups: dict[_How, list[int]] = {}
    for s, system in enumerate(systems):
        switches = sorted({length for k in system.members for length in switch_lengths(models[k])})
        how = _How(packed and not any(k in refusals for k in system.members), tuple(switches))
        groups.setdefault(how, []).append(s)
    return groups


def _check_requests(requests: Sequence[Request], vocabulary: int, limit: int) -> None:
    for r, request in enumerate(requests):
        place = f"request {r}"
        if not request.context or not request.continuation:
            empty = "continuation" if request.context else "context"
            raise BadInput(f"the {empty} has no tokens", place=place)
        if len(request.continuation) > limit:
            raise BadInput(f"{len(request.continuation)} tokens to score with a model of {limit}", place=place)
        tokens = request.context + request.continuation
        if not 0 <= min(tokens) <= max(tokens) < vocabulary:
            raise BadInput(f"token {max(tokens)} with a vocabulary of {vocabulary}", place=place)


def _check_causal(model: LanguageModel, k: int, tokens: Sequence[int]) -> None:
    """``NotApplicable`` for a model that says otherwise of tokens once others follow: it could not be padded."""
    network = network_of(model)  # without the dropout of a stochastic pass, which is drawn for each batch
    alone, followed = row_log_probs(network, tokens), row_log_probs(network, [*tokens, *tokens[:1]])
    if apart := gap(alone, followed[: len(tokens)], model):
        raise NotApplicable(f"model {k} is not causal: a token that follows moves its log-probabilities by {apart:.2g}")


class _Asked:
    """Requests as the models are given them: sequences, and of each its last predictions, one after another."""

    def __init__(self, requests: Sequence[Request], limit: int) -> None:
        whole = [(request.context + request.continuation)[-(limit + 1) :] for request in requests]
        self.sequences = [tokens[:-1] for tokens in whole]
        self.targets = [request.continuation for request in requests]
        self.starts = (0, *itertools.accumulate(len(target) for target in self.targets))
        self.truncated = sum(
            len(request.context) + len(request.continuation) > len(tokens)
            for request, tokens in zip(requests, whole, strict=True)
        )

    def rows(self, which: Sequence[int], how: _How, longest: int) -> list[list[Row]]:
        """These requests in rows, of which a list holds those that may run together; a row calls them by number."""
        kinds: dict[tuple[bool, ...], list[int]] = {}
        for r in which:
            kinds.setdefault(tuple(len(self.sequences[r]) > switch for switch in how.switches), []).append(r)
        found = []
        for chosen in kinds.values():
            sequences = [self.sequences[r] for r in chosen]
            rows = lay_out(sequences, packed=how.packed, width=WIDTH, longest=longest)
            for row in rows:
                row.paths = {chosen[index]: path for index, path in row.paths.items()}
            found.append(rows)
        return found

    def batches(self, which: Sequence[int], how: _How, tokens: int) -> Iterator[list[Row]]:
        """The same as batches of at most so many tokens."""
        return itertools.chain.from_iterable(batches(rows, tokens) for rows in self.rows(which, how, tokens))

    def batch(self, rows: Sequence[Row], model: LanguageModel) -> Batch:
        return make_batch(rows, self.targets, self.starts, device_of(model))


def _try_packing(models: Mapping[int, LanguageModel], asked: _Asked, work: Work) -> dict[int, str]:
    """Why models cannot be packed: those that say something else of a tree than of its sequences."""
    while True:
        try:
            tries = {k: _why_plain(model, asked, work) for k, model in models.items()}
            return {k: why for k, why in tries.items() if why}
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or work.batch_tokens == 1:
                raise
        work.halve(work.batch_tokens)


def _why_plain(model: LanguageModel, asked: _Asked, work: Work) -> str:
    """What is wrong with the deepest tree under this model; nothing if all is well, or there is no tree.

    A window that slides shows there if anywhere, and so does a sequence that sees another.
    """
    how = _How(True, switch_lengths(model))
    rows = [row for rows in asked.rows(range(len(asked.sequences)), how, work.batch_tokens) for row in rows]
    deepest = max((row for row in rows if row.is_tree), key=lambda row: row.depth, default=None)
    if deepest is None:
        return ""
    packed, plain = (torch.zeros(asked.starts[-1]) for _ in range(2))
    which = _hardest(deepest)
    trials = [(packed, [deepest]), *((plain, rows) for r in which for rows in asked.rows([r], _How(False, ()), 0))]
    for log_probs, alone in trials:
        batch = asked.batch(alone, model)
        try:
            logits = kept_logits(model, {**batch.inputs, "use_cache": False}, batch.keep)[0]
        except Exception as error:
            if log_probs is plain or is_out_of_memory(error):
                raise
            return f"it refuses a tree mask ({error})"
        full = torch.log_softmax(logits.float(), dim=-1)
        log_probs[batch.places] = full[batch.slots, batch.targets].cpu()
        work.tokens_on_trial += batch.tokens
    places = [place for r in which for place in range(asked.starts[r], asked.starts[r + 1])]
    apart = gap(packed[places], plain[places], model)
    return f"packed and plain log-probabilities are {apart:.2g} apart" if apart else ""


class _Pass:
    """One pass over the requests, for systems whose members are run alike: which are open, and the answers so far."""

    def __init__(
        self, models: Sequence[LanguageModel], systems: Sequence[System], asked: _Asked, how: _How, work: Work
    ) -> None:
        self.kept = sorted({k for system in systems for k in system.members})  # no other model runs
        self.models, self.asked, self.how, self.work = [models[k] for k in self.kept], asked, how, work
        renumbered = [replace(s, members=tuple(self.kept.index(k) for k in s.members)) for s in systems]
        self.mixer = Mixer(renumbered, len(self.kept))
        shape = (len(systems), asked.starts[-1])
        self.log_probs, self.first = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        self.open = set(range(len(asked.sequences)))

    def all(self) -> Iterator[int]:
        """Score what is open, and say after each batch how much still is; in smaller batches when memory runs out."""
        while self.open:
            short = 0
            for rows in self.asked.batches(sorted(self.open), self.how, self.work.batch_tokens):
                batch = self.asked.batch(rows, self.models[0])
                try:
                    self.one(batch)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or len(batch.sequences) == 1:
                        raise
                    short = batch.tokens
                    break  # out of this block, for the error holds on to what filled the memory
                self.open.difference_update(batch.sequences)
                yield len(self.open)
            if short:
                self.work.halve(short)

    def one(self, batch: Batch) -> None:
        """Run the models on one batch and put down what each system says."""
        begin = time.perf_counter()
        inputs = {**batch.inputs, "use_cache": False}
        logits = [kept_logits(model, inputs, batch.keep)[0].to(batch.slots.device) for model in self.models]
        synchronize(self.models)
        self.work.forward_seconds += time.perf_counter() - begin
        self.work.tokens_forwarded += batch.tokens
        begin = time.perf_counter()
        try:
            log_probs, first = self.mixer(logits, batch.slots, batch.targets)
        except NotFinite as error:
            raise NotFinite(self.kept[error.model]) from None
        self.log_probs[:, batch.places] = log_probs.cpu()
        self.first[:, batch.places] = first.cpu()
        self.work.combine_seconds += time.perf_counter() - begin


def _hardest(row: Row) -> list[int]:
    """The tree's longest sequence and, if that stands first and so could see no other, the longest that does not."""
    by_length = sorted(row.paths, key=lambda r: len(row.paths[r]), reverse=True)
    stands_first = len(row.paths[by_length[0]]) == row.paths[by_length[0]][-1] + 1
    later = [r for r in by_length if len(row.paths[r]) < row.paths[r][-1] + 1]
    return [by_length[0], later[0]] if stands_first else by_length[:1]
