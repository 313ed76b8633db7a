"""The systems that methods return: an output rule over several models, or one model; both are saved and loaded here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.combining import Rule
from harness.merging.batchnorm import recalibrate
from harness.models import forward
from harness.models.weights import load_module, module_with, save_weights, without_ties
from harness.store import digest, read_json, write_json
from harness.types import Architecture, Combination, Ingredients, Member, Part, Pool

CPU = torch.device("cpu")


class MemberPart(Part):
    """A member as it is, dropout off; its module is loaded when it is first run."""

    def __init__(self, member: Member, device: torch.device = CPU) -> None:
        self.member, self.device = member, device
        self.name, self.digest = member.name, member.digest
        self._module: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        if self._module is None:
            self._module = load_module(self.member).to(self.device)
        return self._module

    def log_probs(self, batch: Tensor) -> Tensor:
        return forward.log_probs(self.module, batch)

    def reference(self) -> dict[str, Any]:
        """What finds this part again in a pool."""
        return {"member": self.digest}


class DropoutPass(MemberPart):
    """One stochastic forward pass of a member: dropout on, BatchNorm in eval (Gal and Ghahramani 2016).

    The masks are drawn anew for every example, from a seed made of the pass and the batch's bytes: the same pass over
    the same batches gives the same numbers, whatever ran before.
    """

    def __init__(self, member: Member, index: int, seed: int, device: torch.device = CPU) -> None:
        super().__init__(member, device)
        self.index, self.seed = index, seed
        self.name = f"{member.name} pass {index}"
        self.digest = digest([member.digest, "dropout", index, seed])

    def log_probs(self, batch: Tensor) -> Tensor:
        layers = dropout_layers(self.module)
        flags = [layer.training for layer in layers]
        batch_seed = int(hash_of(batch)[:12], 16)
        try:
            for layer in layers:
                layer.training = True
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed((self.seed + 7919 * self.index) ^ batch_seed)
                return super().log_probs(batch)
        finally:
            for layer, flag in zip(layers, flags, strict=True):
                layer.training = flag

    def reference(self) -> dict[str, Any]:
        return {"member": self.member.digest, "pass": self.index, "seed": self.seed}


def hash_of(batch: Tensor) -> str:
    """sha256 of a tensor's values and shape."""
    plain = batch.detach().cpu().contiguous()
    return hashlib.sha256(plain.numpy().tobytes() + str(tuple(plain.shape)).encode()).hexdigest()


def dropout_layers(module: nn.Module) -> list[nn.Module]:
    """The dropout layers of a network."""
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def has_dropout(module: nn.Module) -> bool:
    """Whether any dropout layer of a network drops anything."""
    return any(getattr(layer, "p", 0) > 0 for layer in dropout_layers(module))


class OutputCombination(Combination):
    """An output rule over the predictions of several parts."""

    def __init__(self, parts: Sequence[MemberPart], rule: Rule, details: Mapping[str, Any] | None = None) -> None:
        self._parts, self.rule = tuple(parts), rule
        self.details = dict(details or {})

    def combine(self, stacked: Tensor) -> Tensor:
        """The rule on predictions [M, ..., C] of the parts, made once and shared: no model runs."""
        return self.rule(stacked)

    def log_probs(self, batch: Tensor) -> Tensor:
        return self.combine(torch.stack([part.log_probs(batch) for part in self._parts]))

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
        return self.parts()[0].log_probs(batch)

    def parts(self) -> Sequence[Part]:
        return (ModelPart(str(self.architecture), self.module, f"in-memory-{id(self.module)}"),)

    def save(self, folder: Path) -> None:
        save_weights(without_ties(self.module), folder / "model.safetensors")
        write_json(folder / "architecture.json", [self.architecture.name, dict(self.architecture.options)])


def load_combination(
    folder: Path, pool: Pool, device: torch.device = CPU, shared: dict[str, MemberPart] | None = None
) -> Combination:
    """The combination saved in a folder; an output rule finds its members in the pool by their digests.

    Combinations that are held at once are given one dictionary as ``shared``: a part of several is then loaded once.
    """
    if (folder / "rule.json").is_file():
        members = {m.digest: m for m in (*pool.members, *((pool.base,) if pool.base else ()))}
        references = read_json(folder / "parts.json")
        parts = [
            DropoutPass(members[r["member"]], r["pass"], r["seed"], device)
            if "pass" in r
            else MemberPart(members[r["member"]], device)
            for r in references
        ]
        shared = {} if shared is None else shared
        return OutputCombination([shared.setdefault(part.digest, part) for part in parts], Rule.load(folder))
    name, options = read_json(folder / "architecture.json")
    architecture = Architecture(name, tuple(sorted(options.items())))
    return SingleModel(architecture, module_with(architecture, load_file(folder / "model.safetensors")).to(device))


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
