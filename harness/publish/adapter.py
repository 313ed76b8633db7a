"""A model as an adapter on its base, in PEFT's format: thin factors of what differs, and whole modules for the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.merging.lowrank import Factors, factorise, rounding
from harness.merging.lowrank_words import count, described
from harness.models import forward
from harness.models.adapter_base import base_layout, inverse, own_order, reorder_rows
from harness.models.adapters import TOLERANCE
from harness.models.architectures import marked
from harness.models.checkpoint import error_line, quiet
from harness.models.pretrained import FolderWeights, Layout, ReadAs, load_pretrained
from harness.models.weights import load_into
from harness.types import Member


@dataclass(frozen=True)
class Split:
    """How what a model changes in its base is written down."""

    factors: Mapping[str, Factors]
    """By the name of the module whose weight they are added to."""
    whole: Sequence[str]
    """Modules that are saved as they are."""
    biases: Sequence[str]
    """Tensors that PEFT saves beside factors."""
    tied: Mapping[str, str]
    """Tensors that are one with another in both models, such as an output layer: the other, by their names."""


@dataclass(frozen=True)
class Written:
    """What an adapter is, and how far it is from the model that it stands for."""

    split: Split
    rank: int
    gap: float
    """The largest difference of log-probabilities."""
    count: int
    """Of the inputs that it was found on."""
    labels: tuple[str, ...] = ()
    """Of a classifier whose base has no head that names them, in the order of the adapter's rows."""
    sentences: tuple[str, ...] = field(init=False)
    """For the model card."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentences", (
            *described(self.split.factors, self.rank, [*self.split.whole, *self.split.biases]),
            f"log-probabilities within {self.gap:.2g} of the model's on {count(self.count, 'test input')}",
            *([f"its labels, which the base does not name, are in this order: {', '.join(self.labels)}"]
              if self.labels else []),
        ))  # fmt: skip

    def __str__(self) -> str:
        return "; ".join(self.sentences)


def write_adapter(module: nn.Module, base: Member, rank: int, inputs: Tensor, folder: Path) -> Written:
    """Write what a model changes in its base as a LoRA adapter, and read it back with PEFT.

    Weights of layers that PEFT adapts become factors (``factorise``), their biases are saved beside them. All other
    modules that changed are saved whole, and so are weights whose factors would be no smaller than they are, such as
    small heads.

    Args:
        module: the model, in eval mode.
        base: what it differs from, a model in a folder of transformers.
        rank: the largest of the factors.
        inputs: [B, ...], on which both are compared.
        folder: which exists, and is empty.

    Raises:
        BadInput: a model with other tensors than its base, or that is its base; something changed that no module of
            PEFT holds; an adapter that is read back as another model than was written.
    """
    on = _Base.of(base)
    module = on.in_own_order(module.cpu())
    start: Any = on.load()
    split = _split(module, start, rank, on)
    claimed = _claimed(module, start, split)
    try:
        with quiet(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
            warnings.simplefilter("ignore")
            _save(module, start, split, rank, folder)
            read = _read(on.load(fresh=1), folder)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # PEFT has no kinds of its own
        raise BadInput(f"peft cannot hold the difference from the base: {error_line(error)}") from None
    with torch.inference_mode():
        scored, promised, found = (forward.log_probs(each, inputs) for each in (module, claimed, read))
    if not _distance(found, promised) <= TOLERANCE * float(promised[promised.isfinite()].abs().max()):
        far = f"log-probabilities are {_distance(found, promised):.2g} apart"
        raise BadInput(f"the adapter is another model when peft runs it: {far}", hint="export the whole model")
    labels = on.read_as.names if on.described.head.drawn else ()
    return Written(split, rank, _distance(found, scored), len(inputs), labels)


@dataclass(frozen=True)
class _Base:
    """What an adapter is written on, as whoever loads it has it: a classifier's labels are in its own order."""

    member: Member
    folder: Path
    read_as: ReadAs
    order: tuple[int, ...] | None
    """For each label of the task, its row."""
    described: Layout

    @classmethod
    def of(cls, member: Member) -> _Base:
        weights = member.weights
        if not isinstance(weights, FolderWeights):
            raise BadInput("only models of transformers in folders have adapters", hint="export the whole model")
        own, order = own_order(weights.folder, weights.read_as, weights.read_as.labels)
        return cls(member, weights.folder, own, order, base_layout(weights.folder, weights.read_as))

    def load(self, fresh: int | None = None) -> nn.Module:
        """The base; where it lacks a head, that is all zeros, or drawn with a seed."""
        read_as = self.read_as if fresh is None or not self.described.head.drawn else replace(self.read_as, fresh=fresh)
        return marked(load_pretrained(self.folder, read_as), self.member.architecture)

    def in_own_order(self, module: nn.Module) -> nn.Module:
        """A model whose labels are in the task's order, in the base's."""
        reordered = module if self.order is None else deepcopy(module)
        reorder_rows(reordered, self.described, inverse(self.order))
        return reordered

    @property
    def saved(self) -> set[str]:
        """Modules that are always saved whole: heads, by PEFT's habit, and what the base's folder lacks."""
        return {name.rpartition(".")[0] for name in {*(self.described.head.rows or {}), *self.described.head.drawn}}


def _distance(one: Tensor, other: Tensor) -> float:
    """Between log-probabilities; of a label that both rule out, none."""
    return float((one - other).masked_fill(one == other, 0.0).abs().max())


def _split(module: nn.Module, base: nn.Module, rank: int, on: _Base) -> Split:
    ours, theirs = module.state_dict(), base.state_dict()
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            what = "has another shape in its base" if name in ours and name in theirs else "is in one of the two only"
            hint = "export the whole model, without --adapter-rank"
            raise BadInput(f"the model is no change of its base's weights: '{name}' {what}", hint=hint)
    tied = _tied(ours, theirs)
    changed = [name for name in ours if name not in tied and not torch.equal(ours[name], theirs[name])]
    factors: dict[str, Factors] = {}
    small: dict[str, Factors] = {}
    whole, biases = set(on.saved), []
    for name in changed:
        path, _, leaf = name.rpartition(".")
        layer = base.get_submodule(path)
        if not _is_adapted(layer) or leaf not in ("weight", "bias") or _is_saved_by_peft(path, base):
            whole.add(path)
        elif leaf == "bias":
            biases.append(name)
        elif path not in whole:
            found = factorise(ours[name].double() - theirs[name].double(), rank, rounding(theirs[name]))
            if found.rank:
                is_small = found.up.numel() + found.down.numel() >= ours[name].numel()
                (small if is_small else factors)[path] = found
    if factors:
        whole |= small.keys()
    else:
        factors = small  # an adapter without any is none
    if "" in whole:
        name = next(name for name in changed if "." not in name)
        raise BadInput(f"'{name}' belongs to no module that an adapter could save", hint="export the whole model")
    whole = {path for path in whole if not any(path.startswith(f"{other}.") for other in whole)}
    factors = {path: each for path, each in factors.items() if not _within(path, whole)}
    if not factors:
        owners = sorted({name.rpartition(".")[0] for name in changed})
        what = f"only {', '.join(owners[:3])} differ" if owners else "the model is its base"
        raise BadInput(f"there is nothing for factors of a rank: {what}", hint="export the whole model")
    biases = [name for name in biases if not _within(name.rpartition(".")[0], whole)]
    return Split(factors, sorted(whole), biases, {name: first for name, first in tied.items() if first in changed})


def _tied(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of a tensor that both models have under an earlier name as well."""
    first: dict[tuple[int, int], str] = {}
    places = {name: (ours[name].data_ptr(), theirs[name].data_ptr()) for name in ours if ours[name].numel()}
    return {name: known for name, place in places.items() if (known := first.setdefault(place, name)) != name}


def _within(path: str, whole: set[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in whole)


def _is_saved_by_peft(path: str, base: nn.Module) -> bool:
    """Whether PEFT saves a module of its own accord, as it does the heads of sequence classifiers by their names."""
    return _task_type(base) == "SEQ_CLS" and path.endswith(("classifier", "score"))


def _is_adapted(layer: nn.Module) -> bool:
    """Whether PEFT has factors for the weight of a layer, and can merge them."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer.groups == 1
    return isinstance(layer, nn.Linear | nn.Embedding | Conv1D)


def _claimed(module: nn.Module, base: nn.Module, split: Split) -> nn.Module:
    """The model that the adapter is to be: the base with the factors' products, and what is saved as it is."""
    state, ours = dict(base.state_dict()), module.state_dict()
    for path, each in split.factors.items():
        weight = state[f"{path}.weight"]
        state[f"{path}.weight"] = (weight.double() + (each.up.double() @ each.down.double()).view_as(weight)).float()
    for name in state:
        if name in split.biases or _within(name.rpartition(".")[0], set(split.whole)):
            state[name] = ours[name]
    state |= {name: state[first] for name, first in split.tied.items()}
    claimed = deepcopy(module)
    load_into(claimed, state)
    return claimed


def _save(module: nn.Module, base: Any, split: Split, rank: int, folder: Path) -> None:
    """Put the model's differences into an adapter around the base, and write it."""
    from peft import LoraConfig, get_peft_model

    # "^": a name in a pattern may otherwise stand after any other
    ranks = {f"^{path}": each.rank for path, each in split.factors.items() if each.rank < rank}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        target_modules=sorted(split.factors),
        modules_to_save=list(split.whole) or None,
        bias="all" if split.biases else "none",
        task_type=_task_type(base),
        ensure_weight_tying=bool(split.tied),
        init_lora_weights=False,
    )
    wrapped: Any = get_peft_model(base, config)
    inner = wrapped.get_base_model()
    for path, each in split.factors.items():
        _fill(inner.get_submodule(path), each)
    for path in split.whole:
        inner.get_submodule(path).modules_to_save["default"].load_state_dict(module.get_submodule(path).state_dict())
    for name in split.biases:
        layer = inner.get_submodule(name.rpartition(".")[0])
        getattr(layer, "base_layer", layer).bias.copy_(module.get_parameter(name))
    config.target_modules = sorted(config.target_modules or ())  # PEFT's set is written in another order each time
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)


def _fill(layer: Any, factors: Factors) -> None:
    """Give a layer of PEFT its factors; an embedding and a Conv1D have their weights transposed."""
    if hasattr(layer, "lora_embedding_A") and "default" in layer.lora_embedding_A:
        layer.lora_embedding_A["default"].copy_(factors.up.T)
        layer.lora_embedding_B["default"].copy_(factors.down.T)
        return
    up, down = (factors.down.T, factors.up.T) if getattr(layer, "fan_in_fan_out", False) else (factors.up, factors.down)
    for place, values in ((layer.lora_A["default"].weight, down), (layer.lora_B["default"].weight, up)):
        place.copy_(values.reshape(place.shape))


def _task_type(base: nn.Module) -> str | None:
    """What PEFT calls the model's task; None where it makes no difference to it."""
    from transformers.models.auto import modeling_auto as known

    name = type(base).__name__
    types = {"CAUSAL_LM": known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
             "SEQ_CLS": known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES}  # fmt: skip
    return next((task for task, names in types.items() if name in names.values()), None)


def _read(base: Any, folder: Path) -> nn.Module:
    """The base with the adapter of a folder, as PEFT runs it unmerged."""
    from peft import PeftModel

    wrapped: Any = PeftModel.from_pretrained(base, str(folder), local_files_only=True)
    read: nn.Module = wrapped.eval().get_base_model()
    return read
