"""The contract: what a method is given, what it must return, and what a result says. Read this file first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.says import Says, least_said

Family = Literal["single", "output", "weights", "trained", "staged"]
Need = Literal["members", "base", "train", "heldout"]
Status = Literal["ok", "not_applicable", "failed"]
Criterion = Literal["accuracy", "nll"]


class NotApplicable(Exception):
    """Raised by a method that cannot be applied to these ingredients; the message is the reason a reader sees."""


class Unscored(Exception):
    """Why a combination has no scores; those that are evaluated beside it have theirs."""


class UndeclaredInput(Exception):
    """Raised when a method touches an ingredient that it did not declare under ``needs``."""


@dataclass(frozen=True)
class Architecture:
    """A model family and its options, enough to build the module; two are the same if they compare equal."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f",{key}={value}" for key, value in self.options)


@dataclass(frozen=True)
class Reader:
    """What turns raw examples into a model's inputs; two are the same if they do the same, wherever they lie."""

    digest: str
    folder: str = field(compare=False)
    """With the files of its tokenizer or image processor."""
    most: int | None = field(default=None, compare=False)
    """Tokens of a text that the model is given at most; None where nothing limits them, and of images."""

    def __str__(self) -> str:
        return self.digest


@dataclass(frozen=True)
class Tokenizer:
    """What turns text into a model's tokens; two are the same if they do the same, wherever they lie."""

    digest: str
    folder: str = field(compare=False)
    size: int = field(default=0, compare=False)
    """``tokens_known`` of it."""
    begins: int | None = field(default=None, compare=False)
    """The token that a text without context begins with: other texts are the same without it."""


def tokens_known(tokenizer: Any) -> int:
    """The least vocabulary that has all tokens of a transformers tokenizer: its highest id and one."""
    return max(tokenizer.get_vocab().values()) + 1


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled inputs [I, ...]: say images with one label each, or token windows [I, L] with L - 1 each.

    ``labels`` is flat, [N] int64: of windows, the tokens that follow all tokens but the last, window by window. A
    prediction has a row for every label, so methods need not know what they are given.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    ids: Sequence[str]
    """One stable id for each input."""
    digest: str
    groups: Sequence[str] = ()
    """Of each input, the group it belongs to (a domain of text, a view of images), where the task has groups."""
    batch: int = 250
    """Inputs that are run at once: few enough that activations stay in the cache, which doubles the speed."""
    criterion: Criterion = "accuracy"
    """What held-out choices go by: the more telling of the two for this kind of data."""
    tokenizer: Tokenizer | None = None
    """Whose tokens the windows are made of."""
    kind: str = ""
    """The kind of task that says how networks are run on a batch of it (``kinds.Kind``), and how they are trained."""
    clean: Tensor | None = None
    """The inputs [I, ...] uncorrupted, where the task has them: what a stage that restores them should say."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def full_batch(self) -> Tensor:
        """The first inputs [B, ...], as many as are run at once."""
        return self.inputs[: self.batch]


@dataclass(frozen=True, eq=False)
class Member:
    """One trained model: its weights are read from disk only when touched.

    ``start`` names the initialisation that it was trained from: members that share it may be averaged.
    ``provenance`` records how it was trained (rate, epochs, the bootstrap resample, the checkpoint's epoch...).
    """

    name: str
    architecture: Architecture
    weights: Mapping[str, Tensor]
    start: str
    seed: int
    provenance: Mapping[str, Any]
    digest: str
    tokenizer: Tokenizer | None = None
    """Of a language model that brought its own; None for one that reads the task's tokens."""
    identity: str = ""
    """What identifies it among members, as the digest does, but whatever code made it; of copies it is the same."""
    says: Says = "probabilities"
    """What is known of its answers."""

    @property
    def draws(self) -> str:
        """What seeds that which is random about it: new code for training it does not draw anew."""
        return self.identity or self.digest


@dataclass(frozen=True, eq=False)
class Pool:
    """Members that a user holds and, where they were fine-tuned from one model, that base.

    ``kind`` says how the members differ, which some methods ask for: ``fine_tunes``, ``independent``,
    ``architectures``, ``bootstrap`` (each trained on a resample) or ``checkpoints`` (one run's, in time order).
    """

    name: str
    kind: str
    members: tuple[Member, ...]
    base: Member | None = None

    def subset(self, indices: Sequence[int]) -> Pool:
        """The pool of the members at these positions, in this order."""
        return Pool(self.name, self.kind, tuple(self.members[i] for i in indices), self.base)


class Part(ABC):
    """One model as a combination runs it: the same part on the same batch always gives the same numbers."""

    name: str
    digest: str
    tokenizer: Tokenizer | None = None
    """As ``Member.tokenizer``."""
    vocabulary: int | None = None
    """Of a language model, the tokens that it has logits for, padding and all."""
    by_row: bool = True
    """Whether what it says of an example is the same whatever else is in the batch."""
    says: Says = "probabilities"
    """As ``Member.says``: of one that gives no probabilities, log-probabilities are 0 for its answer, else -inf."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """The network, in eval mode."""

    @property
    def network(self) -> nn.Module:
        """What is called for its logits: the module, or what makes it stochastic."""
        return self.module

    @abstractmethod
    def log_probs(self, batch: Tensor) -> Tensor:
        """Normalised log-probabilities [B, C] in float32."""

    def run_once(self, batch: Tensor) -> None:
        """Run the network on a batch as one call of a combination does: costs are counted of this."""
        self.log_probs(batch)


class Combination(ABC):
    """What a method returns: one system that gives normalised log-probabilities for a batch."""

    details: dict[str, Any]
    """What building it found out (chosen weights, held-out scores, curves): JSON values, shown in the report."""
    deciding: float = 0.0
    """Floating-point operations that choosing its models takes for an example, where a model of its own decides."""

    @abstractmethod
    def log_probs(self, batch: Tensor) -> Tensor:
        """Normalised log-probabilities [B, C] in float32; every model call it needs is made here."""

    def run(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities [B, C], and how often each of ``parts()`` ran for each of their rows, int64 [B, parts].

        Whoever does not run every part once for every example says so here, and its ``log_probs`` are the first value.
        """
        found = self.log_probs(batch)
        return found, self.every_part_once(len(found))

    def every_part_once(self, count: int) -> Tensor:
        """Calls [count, parts] of so many examples, all 1."""
        return torch.ones(count, len(self.parts()), dtype=torch.int64)

    @property
    def says(self) -> Says:
        """What its log-probabilities mean: where a part gives no probabilities, only the most probable class counts."""
        return least_said(part.says for part in self.parts())

    @property
    def calls_vary(self) -> bool:
        """Whether it says itself, in ``run``, which parts an example calls."""
        return type(self).run is not Combination.run

    @property
    def replays(self) -> bool:
        """Whether predictions of its parts are enough to tell what it says (``replay``): then these are shared."""
        return False

    def replay(self, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As ``run``, from log-probabilities [N, C] of each of ``parts()``, in their order: no model runs."""
        raise NotImplementedError(f"{type(self).__name__} has to be run")

    def dial(self) -> Sequence[Combination]:
        """The same system at the settings of what decides between quality and cost, from cheap to dear on held-out.

        They have the parts of this one, in its order, and replay as it does. Most systems have nothing to turn.
        """
        return ()

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The models it runs, each as often as it is run where it is called."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything but the pool's members to an existing folder; nothing written is a pickle."""


def check_tokens(parts: Sequence[Part], split: Split) -> None:
    """Raise ``NotApplicable`` where a model would be given the tokens of another model's tokenizer."""
    for part in parts:
        if part.tokenizer and split.tokenizer and part.tokenizer != split.tokenizer:
            raise NotApplicable(
                f"{part.name} has a tokenizer of its own, so its tokens are not those of the others: such members can "
                "only form a sequence-level ensemble (linear, with uniform or given weights)"
            )
    check_vocabulary(parts, split)


def check_vocabulary(parts: Sequence[Part], split: Split) -> None:
    """Raise ``NotApplicable`` where a model that reads the windows' tokens does not have all of them."""
    if split.tokenizer is None:
        return
    largest = int(split.inputs.max())
    for part in parts:
        reads = part.tokenizer in (None, split.tokenizer)
        if reads and part.vocabulary and part.vocabulary <= largest:
            raise NotApplicable(
                f"{part.name} has a vocabulary of {part.vocabulary} tokens, and the text has token {largest}"
            )


def shared_labels(names: Sequence[str], sizes: Sequence[int], known: int | None) -> int:
    """The labels that all of several models are told apart by: all that they have, or those of their tokenizer.

    A vocabulary is often padded beyond the tokens of its tokenizer. One model, or models padded alike, are taken as
    they are; models padded otherwise are cut to the tokens that the tokenizer knows (``cut_to``).

    Raises:
        NotApplicable: where there is no such tokenizer, or a model has fewer tokens than it.
    """
    if len(set(sizes)) == 1:
        return sizes[0]
    other = next(k for k, size in enumerate(sizes) if size != sizes[0])
    differ = f"{names[0]} has a vocabulary of {sizes[0]} and {names[other]} one of {sizes[other]}"
    if known is None:
        raise NotApplicable(f"{differ}, and no tokenizer says which labels they share")
    for name, size in zip(names, sizes, strict=True):
        if size < known:
            raise NotApplicable(f"{differ}: {name} lacks some of the {known} tokens of their tokenizer")
    return known


def cut_to(size: int, log_probs: Tensor) -> Tensor:
    """Log-probabilities [..., C] of the first ``size`` labels alone, normalised again; untouched if C is ``size``."""
    return log_probs if log_probs.shape[-1] == size else torch.log_softmax(log_probs[..., :size], dim=-1)


def stack(parts: Sequence[Part], predictions: Sequence[Tensor]) -> Tensor:
    """Predictions [N, C] of several parts as [M, N, C], cut to the vocabulary that they share."""
    sizes = [each.shape[-1] for each in predictions]
    known = parts[0].tokenizer.size if parts[0].tokenizer and len(set(sizes)) > 1 else None
    size = shared_labels([part.name for part in parts], sizes, known)
    return torch.stack([cut_to(size, each) for each in predictions])


Predict = Callable[[Part, Split], Tensor]
"""Log-probabilities [N, C] of one part on one split; the runner's version caches them."""


@dataclass
class Ingredients:
    """Everything a method may use; the test split is not among it, and touching what it did not declare raises."""

    pool_: Pool
    train_: Split
    heldout_: Split
    predict: Predict
    seed: int
    needs: frozenset[str]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def _declared(self, need: Need) -> None:
        if need not in self.needs:
            raise UndeclaredInput(f"the method uses '{need}' but declares only {sorted(self.needs)}")

    @property
    def pool(self) -> Pool:
        """The members, without the base."""
        self._declared("members")
        return Pool(self.pool_.name, self.pool_.kind, self.pool_.members)

    @property
    def members(self) -> tuple[Member, ...]:
        """The pool's members, at least one."""
        if not self.pool.members:
            raise NotApplicable(f"pool '{self.pool.name}' is empty")
        return self.pool.members

    @property
    def base(self) -> Member:
        """The model the members were fine-tuned from; a pool without one makes the method not applicable."""
        self._declared("base")
        if self.pool_.base is None:
            raise NotApplicable(f"pool '{self.pool_.name}' has no base model that its members started from")
        return self.pool_.base

    @property
    def train(self) -> Split:
        """The training split; a task without one makes the method not applicable."""
        self._declared("train")
        if not len(self.train_.inputs):
            raise NotApplicable("the task has no training split")
        return self.train_

    @property
    def train_inputs(self) -> Tensor:
        """Inputs [N, ...] of the training split, which a merge measures its statistics on, where it has any.

        Most merges have none, so a task without a training split gives no inputs, and is no reason not to apply.
        """
        self._declared("train")
        return self.train_.inputs

    @property
    def heldout(self) -> Split:
        self._declared("heldout")
        return self.heldout_

    def predictions(self, parts: Sequence[Part], split: Split) -> list[Tensor]:
        """Log-probabilities [N, C] of each part on a split that this method may see, over all its own labels."""
        if split is self.train_:
            self._declared("train")
        elif split is self.heldout_:
            self._declared("heldout")
        else:
            raise UndeclaredInput(f"a method may predict on train and held-out only, not on '{split.name}'")
        check_tokens(parts, split)
        return [self.predict(part, split) for part in parts]

    def stacked(self, parts: Sequence[Part], split: Split) -> Tensor:
        """The same as [M, N, C], over the labels that the parts share."""
        return stack(parts, self.predictions(parts, split))

    def generator(self) -> torch.Generator:
        """A fresh generator in the same state at every call, seeded by the variant's seed."""
        return torch.Generator(device="cpu").manual_seed(self.seed)
