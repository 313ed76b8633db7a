"""A user's labelled examples as a task: their bytes are kept in one file, and every split says where its own lie.

What is kept is found by the content of the user's files. A task's digests are of the examples themselves, whatever
files they came from and whatever code read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import BadInput
from harness.keys import Key, digest, file_digest
from harness.models.raw import rows_of, write_blob
from harness.store import Store, read_json, write_json
from harness.tasks.labelled import SPLITS, LabelledTask
from harness.tasks.own_files import OwnReference
from harness.tasks.own_labels import in_order
from harness.tasks.own_notes import Kept, notes_of
from harness.tasks.own_splits import bins_for, bins_of, split_bins, split_off
from harness.types import Split

BATCH = 64
"""Examples that are run at once."""
CLEAN = "clean.bin"
"""The file of the examples uncorrupted."""
WORDS = {"train": "training", "heldout": "held-out", "test": "test"}


class Example(NamedTuple):
    """One labelled example of a user's."""

    content: bytes
    label: str
    id: str
    cluster: str
    split: str
    clean: bytes = b""
    """The same uncorrupted, where that is known."""


class Source(Protocol):
    """A file or folder of examples."""

    @property
    def path(self) -> Path: ...
    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels in order, where it says them."""

    def identity(self) -> Any:
        """Of all that is read from it, as a JSON value."""

    def examples(self) -> Iterator[Example]:
        """All of them, checked as they are read."""


def keep(reference: OwnReference, named: Mapping[str, Sequence[Source]], code: str, store: Store) -> Key:
    """Keep the examples of all sources in the store, unless they are there; ``BadInput`` where they are no task.

    Args:
        reference: what the suite says.
        named: what it names, by key of ``reference.places``, in that order.
        code: the module that reads them.
        store: where they are kept.
    """
    sources = [source for of_key in named.values() for source in of_key]
    said = [reference.columns, reference.label, reference.id, reference.cluster, reference.split, reference.labels]
    said += [reference.clean] if reference.clean else []
    key = Key.of(
        "examples",
        code=(__name__, code),
        examples_of=reference.kind,
        files=[digest(source.identity()) for source in sources],  # of folders of images it is long
        keys=list(named),
        said=said,
        shares=reference.shares,
    )
    if not store.has(key):
        with store.write(key) as folder:
            gathered = _Gathered(reference)
            places = write_blob(gathered.contents(named), folder / "examples.bin")
            facts, tensors = gathered.checked(sources)
            if reference.clean:
                tensors["clean"] = write_blob(gathered.clean, folder / CLEAN)
            save_file({"places": places, **tensors}, folder / "examples.safetensors")
            write_json(folder / "examples.json", facts)
    return key


class _Gathered:
    """What is known of examples but for their bytes, which pass by."""

    def __init__(self, reference: OwnReference) -> None:
        self.reference = reference
        self.ids: dict[str, str] = {}
        self.clusters: list[str] = []
        self.labels: list[str] = []
        self.digests = bytearray()
        self.clean: list[bytes] = []
        self.first: dict[tuple[str, str], Path] = {}
        """The file in which a split first has a label."""

    def contents(self, named: Mapping[str, Sequence[Source]]) -> Iterator[bytes]:
        for key, source in ((key, source) for key, sources in named.items() for source in sources):
            before = len(self.ids)
            for example in source.examples():
                if example.split != key and example.split in named:
                    words = f"'{example.split}' is given, and there are {WORDS[example.split]} examples in '{key}' too"
                    raise BadInput(words, place=str(source.path))
                self._add(example, source)
                yield example.content
            if len(self.ids) == before:
                raise BadInput("there are no examples in it", place=str(source.path))

    def _add(self, example: Example, source: Source) -> None:
        if (split := self.ids.get(example.id)) is not None:
            words = "twice" if split == example.split else f"in the {WORDS[split]} split too"
            raise BadInput(f"the id '{example.id}' is there {words}", place=str(source.path))
        self.ids[example.id] = example.split
        self.clusters.append(example.cluster)
        self.labels.append(example.label)
        self.digests += hashlib.sha256(example.content).digest()
        if self.reference.clean:
            self.clean.append(example.clean)
        self.first.setdefault((example.split, example.label), source.path)

    def checked(self, sources: Sequence[Source]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = self._names(sources)
        position = {name: number for number, name in enumerate(names)}
        labels = np.array([position[label] for label in self.labels])
        splits = np.array([SPLITS.index(split) for split in self.ids.values()])
        self._check_splits(splits, labels, names)
        digests = np.frombuffer(bytes(self.digests), np.uint8).reshape(-1, 32).copy()
        clusters = self.clusters if self.reference.cluster else []
        arrays = {"labels": labels, "splits": splits, "digests": digests}
        if clusters and any(self.reference.shares):
            arrays["bins"] = self._bins(splits, labels, digests)
        facts = {"ids": list(self.ids), "clusters": clusters, "names": names}
        return facts, {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _bins(self, splits: np.ndarray, labels: np.ndarray, digests: np.ndarray) -> np.ndarray:
        """Of the examples that are split, the bin of each; -1 of others."""
        bins = np.full(len(labels), -1)
        rows = np.flatnonzero(splits == 0)
        groups = np.unique(np.array(self.clusters)[rows], return_inverse=True)[1]
        order = canonical(digests[rows], labels[rows])
        bins[rows] = bins_of(groups, labels[rows], order, bins_for(self.reference.shares)[0])
        return bins

    def _names(self, sources: Sequence[Source]) -> list[str]:
        """The names of the labels in order: as the suite says, or the files, or by number or text."""
        said = self.reference.labels or next((tuple(source.classes) for source in sources if source.classes), None)
        names = list(said or in_order(self.labels))
        for (split, label), path in sorted(self.first.items(), key=lambda each: SPLITS.index(each[0][0])):
            if label not in names:
                where = "the labels that the suite names" if self.reference.labels else "the classes of the first file"
                raise BadInput(f"the label '{label}' is none of {where}", place=str(path), given=label, choices=names)
            if self.reference.labels is None and ("train", label) not in self.first:
                known = [name for of, name in self.first if of == "train"]
                hint = "name all labels under 'labels' if that is meant"
                words = f"the label '{label}' of a {WORDS[split]} example is none of train's"
                raise BadInput(words, place=str(path), given=label, choices=known[:20], hint=hint)
        if len(names) < 2:
            path = next(iter(self.first.values()))
            raise BadInput(f"all examples have the label '{names[0]}': there is nothing to tell apart", place=str(path))
        return names

    def _check_splits(self, splits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
        path = str(dict(self.reference.places).get("train") or dict(self.reference.places)["data"])
        shares = dict(zip(SPLITS[1:], self.reference.shares, strict=True))
        for number, split in enumerate(SPLITS):
            given = (splits == number).any()
            if given and shares.get(split):
                words = f"there are {WORDS[split]} examples, and a share of train for '{split}'"
                raise BadInput(words, place=path, hint="drop one of the two")
            if not given and not shares.get(split):
                hint = None if split == "train" else f"give a file, or a share of train: '{split}: 0.2'"
                raise BadInput(f"there are no {WORDS[split]} examples", place=path, hint=hint)
        if any(shares.values()) and not self.reference.cluster:
            counts = np.bincount(labels[splits == 0], minlength=len(names))
            if (counts == 1).any():
                words = f"the label '{names[int((counts == 1).argmax())]}' has one example, which cannot be split"
                raise BadInput(words, place=path)


def canonical(digests: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions in an order that goes by what examples are, not by where they stand in a file."""
    words = np.ascontiguousarray(digests[:, :16]).view(">u8").reshape(-1, 2)
    return np.lexsort((labels, words[:, 1], words[:, 0]))


def kept(reference: OwnReference, words: str, store: Store, limit: int | None) -> LabelledTask:
    """The task of examples that ``keep`` left; of test only the first ``limit``.

    Args:
        reference: what the suite says, with the key of the examples.
        words: for the examples, "texts".
        store: where they are kept.
        limit: of test examples.

    Raises:
        BadInput: where groups are too few, or too unlike, to be split.
    """
    assert reference.read is not None
    folder = store.read(reference.read)
    facts, tensors = read_json(folder / "examples.json"), load_file(folder / "examples.safetensors")
    digests, labels = tensors["digests"].numpy(), tensors["labels"]
    ids, names = np.array(facts["ids"], object), tuple(facts["names"])
    clusters = np.array(facts["clusters"], object) if facts["clusters"] else None
    rows = _rows(tensors, reference)
    examples = Kept(names, labels.numpy(), digests, clusters, dict(zip(SPLITS, rows, strict=True)))
    inputs = rows_of(folder / "examples.bin", hashlib.sha256(digests.tobytes()).hexdigest(), tensors["places"])
    clean, of_clean = _clean(folder, tensors)
    splits = []
    for split, of in zip(SPLITS, rows, strict=True):
        these = of[:limit] if split == "test" else of
        named, labelled = ids[these].tolist(), labels[these]
        contents = hashlib.sha256(digests[these].tobytes()).hexdigest()
        identity = digest([split, names, contents, named, labelled.tolist(), *of_clean])
        true = None if clean is None else clean[these]
        splits.append(
            Split(split, inputs[these], labelled, named, identity, batch=BATCH, kind=reference.kind, clean=true)
        )
    train, heldout, test = splits
    counted = () if clusters is None else tuple(clusters[rows[2][: len(test)]])
    files = ", ".join(dict.fromkeys(Path(path).name for _, path in reference.places))
    return LabelledTask(
        reference.kind,
        reference.name,
        f"{words} of {files}",
        "the user's own files",
        len(names),
        {},
        train,
        heldout,
        test,
        digest([*(each.digest for each in splits), counted]),
        {},
        labels=names,
        clusters=counted,
        notes=tuple(notes_of(examples)),
    )


def _clean(folder: Path, tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, list[str]]:
    """The examples uncorrupted as inputs [N, 3], and what a digest has of them; None where they are not known."""
    if "clean" not in tensors:
        return None, []
    identity = file_digest(folder / CLEAN)
    return rows_of(folder / CLEAN, identity, tensors["clean"]), [identity]


def _rows(tensors: Mapping[str, Tensor], reference: OwnReference) -> list[np.ndarray]:
    """The positions of each split, in the order of the files where it is given."""
    splits, labels = tensors["splits"].numpy(), tensors["labels"].numpy()
    given = [np.flatnonzero(splits == number) for number in range(len(SPLITS))]
    if not any(reference.shares):
        return given
    whole = given[0]
    if "bins" in tensors:
        parts = split_bins(tensors["bins"].numpy()[whole], bins_for(reference.shares), reference.fold)
        _check_groups(parts, labels[whole], reference)
    else:
        order = canonical(tensors["digests"].numpy()[whole], labels[whole])
        parts = split_off(labels[whole], order, reference.shares, reference.fold)
    shares = (True, *reference.shares)
    return [whole[part] if share else of for part, share, of in zip(parts, shares, given, strict=True)]


def _check_groups(parts: Sequence[np.ndarray], labels: np.ndarray, reference: OwnReference) -> None:
    place, column = str(dict(reference.places).get("train", reference.places[0][1])), reference.cluster
    for split, part, share in zip(SPLITS, parts, (1.0, *reference.shares), strict=True):
        if share and not len(part):
            words = f"the column '{column}' has too few values to split off {WORDS[split]} examples without tearing one"
            raise BadInput(words, place=place)
    if len(np.unique(labels[parts[0]])) < len(np.unique(labels)):
        words = f"a label is left out of train where no value of '{column}' may be on two sides"
        raise BadInput(words, place=place, hint="give the splits as files")
