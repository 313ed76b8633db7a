"""A user's labelled examples as a task: their bytes are kept in one file, and every split says where its own lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.models.raw import rows_of, write_blob
from harness.store import Key, Store, digest, file_digest, read_json, write_json
from harness.tasks.labelled import SPLITS, LabelledTask
from harness.types import Split

BATCH = 64
"""Examples that are run at once."""


@dataclass(frozen=True)
class Examples:
    """The examples of one split, in the file's order."""

    ids: Sequence[str]
    contents: Sequence[bytes]
    labels: Sequence[str]
    clusters: Sequence[str] = ()


def keep(splits: Mapping[str, Examples], identity: Mapping[str, object], store: Store) -> Key:
    """Keep the examples of all splits in the store, unless they are there; ``identity`` is all that they are read from.
    """
    key = Key.of("examples", code=__name__, **identity)
    if not store.has(key):
        names = sorted({label for of_split in splits.values() for label in of_split.labels})
        with store.write(key) as folder:
            contents = [content for name in SPLITS for content in splits[name].contents]
            places = write_blob(contents, folder / "examples.bin")
            labels = [names.index(label) for name in SPLITS for label in splits[name].labels]
            tensors = {"places": places, "labels": torch.tensor(labels, dtype=torch.int64)}
            save_file(tensors, folder / "examples.safetensors")
            facts: dict[str, object] = {
                name: {"ids": list(splits[name].ids), "clusters": list(splits[name].clusters)} for name in SPLITS
            }
            facts |= {"names": names, "digest": file_digest(folder / "examples.bin")}
            write_json(folder / "examples.json", facts)
    return key


def kept(key: Key, kind: str, name: str, title: str, source: str, store: Store, limit: int | None) -> LabelledTask:
    """The task of examples that ``keep`` left; of test only the first ``limit``."""
    facts, tensors = read_json(store.path(key) / "examples.json"), load_file(store.path(key) / "examples.safetensors")
    inputs = rows_of(store.path(key) / "examples.bin", facts["digest"], tensors["places"])
    splits: dict[str, Split] = {}
    begin = 0
    for split in SPLITS:
        ids = facts[split]["ids"]
        rows = slice(begin, begin + (len(ids) if split != "test" or limit is None else min(limit, len(ids))))
        labels = tensors["labels"][rows]
        begin += len(ids)
        identity = digest([facts["digest"], split, facts[split]["ids"][: len(labels)], labels.tolist()])
        splits[split] = Split(split, inputs[rows], labels, ids[: len(labels)], identity, batch=BATCH, kind=kind)
    names = tuple(facts["names"])
    if len(names) < 2:
        raise BadInput(f"all examples have the label '{names[0]}': there is nothing to tell apart", place=source)
    identity = digest([of_split.digest for of_split in splits.values()])
    clusters = tuple(facts["test"]["clusters"][: len(splits["test"])])
    train, heldout, test = splits.values()
    return LabelledTask(
        kind, name, title, source, len(names), {}, train, heldout, test, identity, {}, labels=names, clusters=clusters
    )
