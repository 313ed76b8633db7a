"""Folders of models, read as transformers' ``from_pretrained`` reads them, one tensor at a time.

Which files, which names, which conversions and which ties is asked of transformers itself, on a model without values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models import configuration
from harness.models.checkpoint import (
    CONFIG,
    checkpoint_files,
    quiet,
    read_config,
    read_object,
    refusing,
    signature,
    stored_tensors,
)
from harness.models.configuration import without_values
from harness.models.heads import CAUSAL, Head
from harness.models.label_names import names_of
from harness.models.labelled import ZEROS, LabelledHead, draw, name_labels, read_head
from harness.models.readers import reader_in
from harness.models.weights import ModelWeights
from harness.types import Architecture


@dataclass(frozen=True)
class ReadAs:
    """What a folder's model is read as, where that is not said by the folder."""

    head: Head = CAUSAL
    labels: tuple[str, ...] = ()
    """Of the task, in its order, which is that of the rows of a classifier's output then; its own order if empty."""
    names: tuple[str, ...] = ()
    """Of the model's labels in its own order, where its configuration does not have them."""
    fresh: int | None = None
    """The seed that draws a head for these labels where the folder has none; ``ZEROS``: it is all zeros, so that what
    a fine-tune learned is all of its head; None: a folder without a head is refused."""


AS_CAUSAL = ReadAs()
"""A causal language model, as its folder has it."""


@dataclass(frozen=True)
class Made:
    """What a tensor of a model is made of: stored tensors, by file and name, and what converts them."""

    stored: tuple[tuple[Path, str], ...]
    patterns: tuple[str, ...] = ()
    conversion: Any = None
    """A ``WeightConverter`` of transformers; None for one stored tensor that is taken as it is."""
    first: str = ""
    """The name that the conversion goes by: one may make several tensors."""


@dataclass(frozen=True)
class Layout:
    """Where a folder's model has its tensors from."""

    architecture: Architecture
    names: Mapping[str, None]
    """The tensors of the model in its own order, each tied one under its first name only."""
    made: Mapping[str, Made]
    """By name in the model; tied ones under every name that is stored."""
    same: Mapping[str, tuple[str, ...]]
    """Of tied tensors, all names by each name."""
    notes: tuple[str, ...]
    """What was ignored in reading it."""
    model: nn.Module
    """Without values; conversions ask it for its configuration."""
    head: LabelledHead
    """Of a classifier."""


def layout(folder: Path, read_as: ReadAs = AS_CAUSAL) -> Layout:
    """How a folder's files make a model's tensors.

    Raises:
        BadInput: a folder that ``from_pretrained`` would not read whole: tensors that are missing (it would draw them
            at random), or of other shapes.
    """
    with refusing(folder):
        config = read_config(folder, read_as.head)
        files = checkpoint_files(folder, config)
        return _layout(folder, read_as, tuple(signature(file) for file in (folder / CONFIG, *files)))


@lru_cache(maxsize=64)
def _layout(folder: Path, read_as: ReadAs, files: tuple[tuple[Path, int, int], ...]) -> Layout:
    config, head = read_config(folder, read_as.head), read_as.head
    shapes = {file: stored_tensors(file) for file, _, _ in files[1:]}
    with quiet():
        model: Any = without_values(config, head)
        if head == CAUSAL:
            _check_decoder(model, folder)
        made, unknown = _conversions(model, shapes)
        missing, ignored = _unmatched(model, made.keys(), unknown)
    labelled = LabelledHead()
    if head.labelled:
        labelled = read_head(config, model, missing, read_as, folder)
        if labelled.drawn:
            with quiet():
                model = without_values(config, head)
            made = {name: each for name, each in made.items() if name not in labelled.drawn}
            missing = [name for name in missing if name not in labelled.drawn]
    state = model.state_dict()
    if missing:
        raise BadInput(
            f"the weights do not fit the network: '{missing[0]}' is missing"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            place=str(folder),
        )
    for name in sorted(made.keys() & state.keys()):
        shape = _converted(made[name], name, model, lambda file, stored: shapes[file][stored]).shape
        if shape != state[name].shape:
            raise BadInput(
                f"the weights do not fit the network: '{name}' is {list(shape)}, not {list(state[name].shape)}",
                place=str(folder),
            )
    same = ties_of(model)
    notes = list(labelled.notes)
    settings = read_object(folder / CONFIG)
    if "auto_map" in settings:
        notes.append(f"the folder's own code is not run: transformers' {type(model).__name__} is")
    if ignored:
        notes.append(f"{len(ignored)} stored tensors that {type(model).__name__} does not have are ignored, "
                     f"as transformers does: {', '.join(ignored[:3])}")  # fmt: skip
    if _are_untied(made, same):
        notes.append("its config.json ties tensors that are stored with different values: they are read as two")
        config.tie_word_embeddings = False
        with quiet():
            model = without_values(config, head)
        same = ties_of(model)
        if _are_untied(made, same):
            raise BadInput("tied tensors are stored with different values", place=str(folder))
    seen: set[str] = set()
    names = []
    for name in state:
        if name not in seen:
            names.append(name)
            seen.update(same.get(name, (name,)))
    reader = reader_in(folder, head, model) if head.raw else None
    architecture = configuration.architecture_of(config, head, reader)
    return Layout(architecture, dict.fromkeys(names), made, same, tuple(notes), model, labelled)


def _check_decoder(model: Any, folder: Path) -> None:
    """``BadInput`` for an encoder such as BERT, whose attention sees the tokens that it is asked for."""
    decodes = getattr(model.config, "is_decoder", None) is not False
    if not decodes and any(getattr(part, "is_causal", True) is False for part in model.modules()):
        kind = model.config.model_type
        raise BadInput(
            f"this '{kind}' is no causal language model: it sees the tokens that it is asked for",
            place=str(folder),
            hint="is_decoder is false in its config.json",
        )


def _conversions(model: Any, shapes: Mapping[Path, Mapping[str, Tensor]]) -> tuple[dict[str, Made], list[str]]:
    """What each tensor of a model is made of, and the names that no tensor is made of.

    The names are found as in transformers' ``convert_and_load_state_dict_in_model``.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    state, prefix = model.state_dict(), model.base_model_prefix
    made: dict[str, Made] = {}
    parts: dict[str, list[tuple[Path, str, str]]] = {}
    unknown = []
    places = {name: file for file, tensors in shapes.items() for name in tensors}  # a later file's tensor counts
    for stored in sorted(places, key=dot_natural_key):
        name, pattern = rename_source_key(stored, renamings, converters, prefix, state)
        if name not in state and stored in state:
            name, pattern = rename_source_key(stored, [], [], prefix, state)
        if name not in state:
            unknown.append(name)
        elif pattern is None:
            made.setdefault(name, Made(((places[stored], stored),)))
        else:
            parts.setdefault(name, []).append((places[stored], stored, pattern))
    for first, found in parts.items():
        stored_parts = tuple((file, stored) for file, stored, _ in found)
        patterns = tuple(pattern for _, _, pattern in found)
        whole = Made(stored_parts, patterns, by_pattern[patterns[0]], first)
        for name in _convert(whole, model, lambda file, stored: shapes[file][stored]):
            made[name] = whole
    return made, unknown


def _convert(made: Made, model: Any, read: Any) -> dict[str, Tensor]:
    """All tensors that a conversion makes; ``read`` gives a stored tensor by its file and name."""
    conversion = deepcopy(made.conversion)
    for (file, stored), pattern in zip(made.stored, made.patterns, strict=True):
        conversion.add_tensor(made.first, stored, pattern, read(file, stored))
    converted = conversion.convert(made.first, model=model, config=model.config)
    return {name: each[0] if isinstance(each, list) else each for name, each in converted.items()}


def _converted(made: Made, name: str, model: Any, read: Any) -> Tensor:
    """One tensor of a model."""
    if made.conversion is None:
        tensor: Tensor = read(*made.stored[0])
        return tensor
    return _convert(made, model, read)[name]


def _unmatched(model: Any, made: Any, unknown: list[str]) -> tuple[list[str], list[str]]:
    """The model's tensors that nothing is stored for, and stored ones that it does not have, by its own exceptions."""
    from transformers.utils.loading_report import LoadStateDictInfo

    state = model.state_dict()
    info = LoadStateDictInfo(set(state) - set(made), set(unknown), set(), [], {}, set())
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(info)
    return sorted(info.missing_keys), sorted(info.unexpected_keys)


def ties_of(model: Any) -> dict[str, tuple[str, ...]]:
    """All names of each tied tensor, by each of them."""
    groups: dict[str, list[str]] = {}
    for target, source in model.all_tied_weights_keys.items():
        groups.setdefault(source, [source]).append(target)
    return {name: tuple(names) for names in groups.values() for name in names}


def _are_untied(made: Mapping[str, Made], same: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether tied tensors are stored under several names and differ: then transformers does not tie them."""
    for names in set(same.values()):
        stored = [made[name] for name in names if name in made]
        if any(each.conversion for each in stored) or len(stored) < 2:
            continue
        first, *others = (_read(*each.stored[0]) for each in stored)
        if not all(torch.equal(first, other) for other in others):
            return True
    return False


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
        return tensor


def stored_dtype(folder: Path, head: Head = CAUSAL) -> torch.dtype:
    """The precision of a folder's weights, by transformers' rule: what its configuration says, else the first's."""
    config = read_config(folder, head)
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    stored = (tensor.dtype for file in checkpoint_files(folder, config) for tensor in stored_tensors(file).values())
    return next((dtype for dtype in stored if dtype.is_floating_point), torch.float32)


class FolderWeights(ModelWeights):
    """The tensors of a folder's model by their names in the model; each is read when asked for, and none is kept.

    They have the precision that they are stored in.
    """

    def __init__(self, folder: Path, read_as: ReadAs = AS_CAUSAL) -> None:
        self.folder, self.read_as, self._layout = folder, read_as, layout(folder, read_as)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(name)
        if name in self._layout.head.drawn and self.read_as.fresh == ZEROS:
            return torch.zeros(self._layout.model.state_dict()[name].shape)
        alias = next((each for each in self._layout.same.get(name, (name,)) if each in self._layout.made), None)
        if alias is None:  # transformers computes it, or draws it: it is stored nowhere
            return self.module().state_dict()[name]
        return _in_order(name, _converted(self._layout.made[alias], alias, self._layout.model, _read), self._layout)

    def __contains__(self, name: object) -> bool:
        return name in self._layout.names  # a mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.names)

    def __len__(self) -> int:
        return len(self._layout.names)

    def module(self) -> nn.Module:
        """The model, new at every call, in float32 and eval mode."""
        return load_pretrained(self.folder, self.read_as)


def _in_order(name: str, tensor: Tensor, described: Layout) -> Tensor:
    """A tensor with its rows of labels in the task's order."""
    order, rows = described.head.order, described.head.rows or {}
    if order is None or name not in rows:
        return tensor
    return tensor.index_select(rows[name], torch.tensor(order))


def load_pretrained(folder: Path, read_as: ReadAs = AS_CAUSAL) -> nn.Module:
    """A folder's model by ``from_pretrained``, in float32 and eval mode; ``BadInput`` as in ``layout``."""
    described = layout(folder, read_as)
    settings = configuration.settings_of(described.architecture)
    given: dict[str, Any] = {}
    if read_as.head.labelled:
        given["config"] = deepcopy(described.model.config)
        name_labels(given["config"], names_of(configuration.config_of(settings)))
        given["ignore_mismatched_sizes"] = bool(described.head.drawn)
    with quiet(), torch.random.fork_rng(devices=[]):
        module: Any = read_as.head.reader.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            **given,
        )  # fmt: skip
    if "tie_word_embeddings" in settings:
        module.config.tie_word_embeddings = settings["tie_word_embeddings"]  # as it is, which its file may deny
    with torch.no_grad():
        for name in described.head.rows or ():
            tensor = module.state_dict()[name]
            tensor.copy_(_in_order(name, tensor, described))
    if described.head.drawn and read_as.fresh is not None:
        draw(module, described.head.drawn, read_as.fresh)
    return module.eval()


def probe(module: Any, *more: int) -> Tensor:
    """Token ids [1, T] on which two forms of a model are compared: spread over its vocabulary, and ``more``."""
    vocabulary = module.get_input_embeddings().weight.shape[0]
    return torch.tensor([[*(i * (vocabulary - 1) // 15 for i in range(16)), *more]])


def check_causal(module: nn.Module, name: str) -> None:
    """``BadInput`` where what a model says of a token depends on those that follow it."""
    tokens = probe(module)
    changed = tokens.clone()
    changed[:, -1] = tokens[:, 0]
    with torch.no_grad():
        one, other = (module(input_ids=each, use_cache=False).logits[:, :-1] for each in (tokens, changed))
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
        raise BadInput(f"{name} is no causal language model: it sees the tokens that it is asked for")
