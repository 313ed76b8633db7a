"""Log-likelihoods of continuations under many systems at once: all models in lock step over each batch.

Nothing larger than one batch of full distributions is ever kept. Contexts that requests share are run once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.lm.forward import (
    Batch,
    LanguageModel,
    automatic_tokens,
    device_of,
    dtype_of,
    free_memory,
    is_out_of_memory,
    kept_logits,
    make_batch,
    max_length_of,
    shared_vocabulary,
    synchronize,
    width_of,
)
from harness.lm.mixing import Mixer, System, check_systems
from harness.lm.packing import Row, batches, lay_out

TOLERANCE = 1e-3


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
    """Why packing was tried and given up."""
    tokens_forwarded: int = 0
    """Tokens that each member ran, with padding; the trial of packing included."""
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
        packed: run what requests share once, under a tree mask; None tries it on one row, and does not where a model
            then says something else (a sliding window, positions of its own making).
        max_length: tokens a model is given at most; the least of what the models take if None. Longer contexts are
            cut on the left, as lm-eval's ``hf`` does.
        per_token: keep the log-probability of every target token.
        progress: called with the requests done and their number after each batch.

    Raises:
        NotApplicable: for models of different vocabularies, or logits that are NaN or inf.
        BadInput: for systems or requests that cannot be scored, or a model in training mode.
    """
    check_systems(systems, len(models))
    vocabulary = shared_vocabulary(models)
    limit = max_length or min(max_length_of(model) for model in models)
    _check_requests(requests, vocabulary, limit)
    work = Work(batch_tokens or automatic_tokens(models, vocabulary), packed is not False)
    run = _Pass(models, Mixer(systems, len(models)), requests, limit, work, on_trial=packed is None)
    run.all(progress)
    return run.result(per_token)


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


@dataclass
class _Pass:
    """One pass over the requests: which are open, and the answers so far."""

    models: Sequence[LanguageModel]
    mixer: Mixer
    requests: Sequence[Request]
    limit: int
    work: Work
    on_trial: bool

    def __post_init__(self) -> None:
        whole = [(request.context + request.continuation)[-(self.limit + 1) :] for request in self.requests]
        self.sequences = [tokens[:-1] for tokens in whole]
        self.targets = [request.continuation for request in self.requests]
        self.starts = [0, *itertools.accumulate(len(target) for target in self.targets)]
        self.work.tokens_alone = sum(map(len, self.sequences))
        self.work.truncated = sum(
            len(request.context) + len(request.continuation) > len(tokens)
            for request, tokens in zip(self.requests, whole, strict=True)
        )
        shape = (len(self.mixer.systems), self.starts[-1])
        self.log_probs, self.first = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        self.open = set(range(len(self.requests)))

    def rows(self, which: Sequence[int], packed: bool) -> list[Row]:
        """These requests in rows; a row calls a request by its number."""
        rows = lay_out(
            [self.sequences[r] for r in which],
            packed=packed,
            width=width_of(self.models[0]),
            longest=self.work.batch_tokens,
        )
        for row in rows:
            row.paths = {which[index]: path for index, path in row.paths.items()}
        return rows

    def batch(self, rows: Sequence[Row]) -> Batch:
        return make_batch(rows, self.targets, self.starts, device_of(self.models[0]))

    def all(self, progress: Callable[[int, int], None] | None) -> None:
        """Score what is open; go on from there in another way when memory runs out, or packing is given up."""
        while self.open:
            short = 0
            for rows in batches(self.rows(sorted(self.open), self.work.packed), self.work.batch_tokens):
                batch = self.batch(rows)
                try:
                    if not self.one(rows, batch):
                        break
                except RuntimeError as error:
                    if not is_out_of_memory(error) or len(batch.sequences) == 1:
                        raise
                    short = batch.tokens
                    break  # out of this block, for the error holds on to what filled the memory
                self.open.difference_update(batch.sequences)
                if progress:
                    progress(len(self.requests) - len(self.open), len(self.requests))
            if short:
                self.work.batch_tokens = max(1, min(self.work.batch_tokens, short) // 2)
                self.work.halvings += 1
                free_memory()

    def one(self, rows: Sequence[Row], batch: Batch) -> bool:
        """Run the models on one batch and put down what each system says; False if packing fails its trial on it."""
        try:
            logits = self.logits(batch)
        except Exception as error:
            if not (self.on_trial and rows[0].is_tree) or is_out_of_memory(error):
                raise
            return self.give_packing_up(f"a model refuses a tree mask: {error}")
        if self.on_trial and rows[0].is_tree:
            gap = self.gap(rows, batch, logits)
            if not gap < max(TOLERANCE, *(32 * torch.finfo(dtype_of(model)).eps for model in self.models)):
                return self.give_packing_up(f"packed and plain log-probabilities are {gap:.2g} apart")
            self.on_trial = False
        begin = time.perf_counter()
        log_probs, first = self.mixer(logits, batch.slots, batch.targets)
        self.log_probs[:, batch.places] = log_probs.cpu()
        self.first[:, batch.places] = first.cpu()
        self.work.combine_seconds += time.perf_counter() - begin
        return True

    def give_packing_up(self, why: str) -> bool:
        """Go on with plain rows; trees come first, so nothing is put down yet."""
        self.work.packed, self.work.why_plain, self.on_trial = False, why, False
        return False

    def logits(self, batch: Batch) -> list[Tensor]:
        """Each model's logits [R, V] of the positions to read, where the first model is."""
        begin = time.perf_counter()
        inputs = {**batch.inputs, "use_cache": False}
        found = [kept_logits(model, inputs, batch.keep)[0].to(batch.slots.device) for model in self.models]
        synchronize(self.models)
        self.work.forward_seconds += time.perf_counter() - begin
        self.work.tokens_forwarded += batch.tokens
        return found

    def gap(self, rows: Sequence[Row], batch: Batch, logits: Sequence[Tensor]) -> float:
        """How far a sequence of the deepest tree is from what each model says of it in a plain row, at any target.

        A window that slides shows there if anywhere, and so does a sequence that sees another.
        """
        which = _hardest(max(rows, key=lambda row: row.depth))
        packed, plain = (torch.zeros(len(self.models), self.starts[-1]) for _ in range(2))
        self.put_down_models(packed, batch, logits)
        for alone in batches(self.rows(which, packed=False), self.work.batch_tokens):
            again = self.batch(alone)
            self.put_down_models(plain, again, self.logits(again))
        places = [place for r in which for place in range(self.starts[r], self.starts[r + 1])]
        one, other = packed[:, places], plain[:, places]
        return float(torch.where(one == other, 0.0, one - other).abs().max())  # two infinities are equal

    def put_down_models(self, log_probs: Tensor, batch: Batch, logits: Sequence[Tensor]) -> None:
        """The models' own log-probabilities [M, P] of a batch's targets."""
        for k, each in enumerate(logits):
            full = torch.log_softmax(each.float(), dim=-1)
            log_probs[k, batch.places] = full[batch.slots, batch.targets].cpu()

    def result(self, per_token: bool) -> Scored:
        starts = torch.tensor(self.starts)
        owner = torch.repeat_interleave(starts.diff())
        shape = (len(self.mixer.systems), len(self.requests))
        total = torch.zeros(shape, dtype=torch.float64).index_add_(1, owner, self.log_probs.double())
        missed = torch.zeros(shape, dtype=torch.int64).index_add_(1, owner, (~self.first).long())
        return Scored(
            systems=tuple(system.name for system in self.mixer.systems),
            log_likelihood=total,
            greedy=missed == 0,
            starts=tuple(self.starts),
            token_log_probs=self.log_probs if per_token else None,
            work=self.work,
        )


def _hardest(row: Row) -> list[int]:
    """The tree's longest sequence and, if that stands first and so could see no other, the longest that does not."""
    by_length = sorted(row.paths, key=lambda r: len(row.paths[r]), reverse=True)
    stands_first = len(row.paths[by_length[0]]) == row.paths[by_length[0]][-1] + 1
    later = [r for r in by_length if len(row.paths[r]) < row.paths[r][-1] + 1]
    return [by_length[0], later[0]] if stands_first else by_length[:1]
