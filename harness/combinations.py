"""The systems that methods return: an output rule over several models, or one model; both are saved and loaded here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.combining import Linear, Rule
from harness.merging.batchnorm import recalibrate
from harness.models import forward
from harness.models.causal_lm import vocabulary_of
from harness.models.weights import (
    WEIGHTS,
    LazyWeights,
    load_module,
    module_with,
    save_network,
    saved_architecture,
)
from harness.store import digest, read_json, write_json
from harness.types import (
    Architecture,
    Combination,
    Ingredients,
    Member,
    NotApplicable,
    Part,
    Pool,
    cut_to,
    shared_labels,
)

CPU = torch.device("cpu")
SEQUENCE_LEVEL = "a sequence-level mixture"
"""How a mixture of members with different tokenizers is named wherever it is shown: its numbers are not those of a
token-level ensemble."""


class MemberPart(Part):
    """A member as it is, dropout off; its module is loaded when it is first run."""

    def __init__(self, member: Member, device: torch.device = CPU) -> None:
        self.member, self.device = member, device
        self.name, self.digest, self.tokenizer = member.name, member.digest, member.tokenizer
        self.vocabulary = vocabulary_of(member.architecture)
        self._module: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        if self._module is None:
            self._module = load_module(self.member).to(self.device)
        return self._module

    def log_probs(self, batch: Tensor) -> Tensor:
        return forward.log_probs(self.network, batch)

    def reference(self) -> dict[str, Any]:
        """What finds this part again in a pool."""
        return {"member": self.digest}


class DropoutPass(MemberPart):
    """One stochastic forward pass of a member: dropout on, BatchNorm in eval (Gal and Ghahramani 2016)."""

    def __init__(self, of: MemberPart, index: int, seed: int) -> None:
        super().__init__(of.member, of.device)
        self.of, self.index, self.seed = of, index, seed
        self.name = f"{of.name} pass {index}"
        self.digest = digest([of.digest, "dropout", index, seed])

    @property
    def module(self) -> nn.Module:
        return self.of.module  # one network for all passes

    @property
    def network(self) -> nn.Module:
        return StochasticNetwork(self.module, self.seed + 7919 * self.index)

    def reference(self) -> dict[str, Any]:
        return {"member": self.member.digest, "pass": self.index, "seed": self.seed}


class StochasticNetwork(nn.Module):
    """A network in eval mode whose dropout stays on.

    The masks are drawn anew for every example, from a seed made of this one's and the input's bytes: the same batch
    gives the same numbers, whatever ran before.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        super().__init__()
        self.network, self.seed = network, seed
        self.training = False

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Whatever the network gives for its arguments, of which the first (or ``input_ids``) is the batch."""
        batch = arguments[0] if arguments else named["input_ids"]
        layers = dropout_layers(self.network)
        flags = [layer.training for layer in layers]
        try:
            for layer in layers:
                layer.training = True
            with torch.random.fork_rng(devices=[batch.device] if batch.device.type == "cuda" else []):
                torch.manual_seed(self.seed ^ int(hash_of(batch)[:12], 16))
                return self.network(*arguments, **named)
        finally:
            for layer, flag in zip(layers, flags, strict=True):
                layer.training = flag

    def get_base_model(self) -> nn.Module:
        """The network that takes the arguments, as adapters name it."""
        return self.network

    def __getattr__(self, name: str) -> Any:
        """What else a scorer asks a language model for, such as its configuration, is the network's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


def hash_of(batch: Tensor) -> str:
    """sha256 of a tensor's values and shape."""
    plain = batch.detach().cpu().contiguous()
    return hashlib.sha256(plain.numpy().tobytes() + str(tuple(plain.shape)).encode()).hexdigest()


def dropout_layers(module: nn.Module) -> list[nn.Module]:
    """The parts of a network that drop units while they are in training mode: layers, and attention as in Llama."""
    return [layer for layer in module.modules() if _rate(layer) is not None]


def has_dropout(module: nn.Module) -> bool:
    """Whether any part of a network drops anything."""
    return any(_rate(layer) for layer in dropout_layers(module))


def _rate(layer: nn.Module) -> float | None:
    """The share of units that a layer drops, if it is of a kind that drops any."""
    if isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout |
                  nn.FeatureAlphaDropout):  # fmt: skip
        return layer.p
    rate = getattr(layer, "attention_dropout", None)  # a number that transformers hands to a function
    return rate if isinstance(rate, float) else None


def stacked_log_probs(models: Sequence[Callable[[Tensor], Tensor]], batch: Tensor) -> Tensor:
    """Predictions [M, N, C] of models that run one after another, each written to its place as soon as it is there.

    (With a large vocabulary predictions are most of an ensemble's memory: a list that is stacked holds them twice.)
    """
    first = models[0](batch)
    if len(models) == 1:
        return first.unsqueeze(0)
    stacked = first.new_empty((len(models), *first.shape))
    stacked[0] = first
    del first
    for index, model in enumerate(models[1:], start=1):
        stacked[index] = model(batch)
    return stacked


def finite_or_none(details: Any) -> Any:
    """Details as JSON values: a number that is not finite (the loss of an excluded label, say) is None."""
    if isinstance(details, Mapping):
        return {key: finite_or_none(value) for key, value in details.items()}
    if isinstance(details, list | tuple):
        return [finite_or_none(value) for value in details]
    return None if isinstance(details, float) and not math.isfinite(details) else details


class OutputCombination(Combination):
    """An output rule over the predictions of several parts; those that the rule gives weight 0 are never run."""

    def __init__(self, parts: Sequence[MemberPart], rule: Rule, details: Mapping[str, Any] | None = None) -> None:
        self._parts, self.rule = tuple(parts), rule
        self.details = dict(details or {})
        if fewer := rule.used():
            self.rule, kept = fewer
            self._parts = tuple(parts[k] for k in kept)
            self.details["not_run"] = [part.name for k, part in enumerate(parts) if k not in kept]
        if self.by_continuation:
            if not isinstance(rule, Linear):
                raise NotApplicable(f"members have different tokenizers: only {SEQUENCE_LEVEL} by linear is defined")
            self.details["level"] = SEQUENCE_LEVEL
        self.vocabulary = None if self.by_continuation else self._vocabulary()
        """The tokens that language models of one tokenizer are combined over; None for other models."""
        if self.vocabulary is not None and {part.vocabulary for part in self._parts} != {self.vocabulary}:
            cut = f"cut to the {self.vocabulary} tokens of the tokenizer, for the members are padded differently"
            self.details["vocabulary"] = cut

    def _vocabulary(self) -> int | None:
        sizes = [part.vocabulary for part in self._parts if part.vocabulary is not None]
        if len(sizes) < len(self._parts):
            return None
        tokenizer = self._parts[0].tokenizer
        known = tokenizer.size if tokenizer and len(set(sizes)) > 1 else None
        return shared_labels([part.name for part in self._parts], sizes, known)

    @property
    def by_continuation(self) -> bool:
        """Whether the parts have different tokenizers, so that they meet over whole continuations only."""
        return len({part.tokenizer for part in self._parts}) > 1

    def combine(self, stacked: Tensor) -> Tensor:
        """The rule on predictions [M, ..., C] of the parts, made once and shared: no model runs."""
        return self.rule(stacked)

    def log_probs(self, batch: Tensor) -> Tensor:
        if self.by_continuation:
            raise NotApplicable(f"{SEQUENCE_LEVEL} gives no probabilities of tokens")
        return self.combine(stacked_log_probs([partial(self.predict, part) for part in self._parts], batch))

    def predict(self, part: Part, batch: Tensor) -> Tensor:
        """Log-probabilities [B, C] of one part, over the vocabulary that the parts share."""
        found = part.log_probs(batch)
        return found if self.vocabulary is None else cut_to(self.vocabulary, found)

    def parts(self) -> Sequence[MemberPart]:
        return self._parts

    def save(self, folder: Path) -> None:
        self.rule.save(folder)
        write_json(folder / "parts.json", [part.reference() for part in self._parts])


class ModelPart(Part):
    """A model that a method made, held in memory."""

    def __init__(self, name: str, module: nn.Module, identity: str) -> None:
        self.name, self._module, self.digest = name, module, identity

    @property
    def module(self) -> nn.Module:
        return self._module

    def log_probs(self, batch: Tensor) -> Tensor:
        return forward.log_probs(self._module, batch)


class SingleModel(Combination):
    """One model: a soup, a merge, a student, a mixture of experts."""

    def __init__(
        self, architecture: Architecture, module: nn.Module, details: Mapping[str, Any] | None = None
    ) -> None:
        self.architecture, self.module = architecture, module.eval()
        self.details = dict(details or {})

    def log_probs(self, batch: Tensor) -> Tensor:
        return forward.log_probs(self.module, batch)

    def parts(self) -> Sequence[Part]:
        return (ModelPart(str(self.architecture), self.module, f"in-memory-{id(self.module)}"),)

    def save(self, folder: Path) -> None:
        save_network(self.architecture, self.module, folder)


def load_combination(
    folder: Path, pool: Pool, device: torch.device = CPU, shared: dict[str, MemberPart] | None = None
) -> Combination:
    """The combination saved in a folder; an output rule finds its members in the pool by their digests.

    Combinations that are held at once are given one dictionary as ``shared``: a member of several is then loaded once.
    """
    if (folder / "rule.json").is_file():
        members = {m.digest: m for m in (*pool.members, *((pool.base,) if pool.base else ()))}
        references = read_json(folder / "parts.json")
        models = {} if shared is None else shared
        for digest_ in {r["member"] for r in references} - models.keys():
            models[digest_] = MemberPart(members[digest_], device)
        parts = [
            DropoutPass(models[r["member"]], r["pass"], r["seed"]) if "pass" in r else models[r["member"]]
            for r in references
        ]
        return OutputCombination(parts, Rule.load(folder))
    architecture = saved_architecture(folder)
    weights = LazyWeights(folder / WEIGHTS)  # all of them at once would take the memory of two models
    return SingleModel(architecture, module_with(architecture, weights).to(device))


def member_parts(ingredients: Ingredients) -> list[MemberPart]:
    """The pool's members as parts, in the pool's order."""
    return [MemberPart(member, ingredients.device) for member in ingredients.members]


def merged_model(
    architecture: Architecture, weights: Mapping[str, Tensor], train_inputs: Tensor, device: torch.device = CPU
) -> nn.Module:
    """The module that holds merged weights, its BatchNorm statistics recomputed on training inputs [N, ...]."""
    module = module_with(architecture, weights).to(device)
    recalibrate(module, batches_of(train_inputs, device))
    return module


def batches_of(inputs: Tensor, device: torch.device = CPU, size: int = 250) -> Iterable[Tensor]:
    """Inputs in order, in batches of at most ``size``, on the device."""
    return (batch.to(device) for batch in inputs.split(size))
