"""Text as language models see it: a tokenizer, and windows of tokens to train on, to fit on and to study."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.keys import Key, digest, file_digest
from harness.models.confined import check_confined
from harness.models.tokens import kept_tokenizer, read_tokenizer, tokenizer_of
from harness.store import Store
from harness.tasks.asked import digest_of, rehearse
from harness.tasks.corpora import DOMAINS, corpus_digest, split_of
from harness.tasks.questions import Questions
from harness.tasks.task import Documents, TaskReference
from harness.tasks.trust import check_files
from harness.types import Split, Tokenizer

LENGTH = 128
"""Tokens of a window."""
WINDOWS = {"train": 1200, "heldout": 6, "test": 10}
"""Windows of each domain."""
LARGEST = 256 * 2**20
"""Bytes of one model's predictions on a split at most: with a large vocabulary there are fewer windows."""
LOGITS = 8 * 2**20
"""Bytes of a batch's logits at most, unless it is one window: they stay in the cache."""
BATCH = 8
"""Windows that are run at once, with a small vocabulary."""
VOCABULARY = 2048
END = "<|endoftext|>"
TOKENIZER_CHARACTERS = 300_000
"""How much of each domain's training text the tokenizer is made from."""


KIND = "text"


@dataclass(frozen=True)
class TextReference(TaskReference):
    """Tasks of lm-eval, and the tokenizer of the suite's models."""

    kind: ClassVar[str] = KIND
    lm_eval: tuple[str, ...] = ()
    include_path: str | None = None
    tokenizer: str | None = None
    """The folder whose tokenizer the suite's models share; None for the one that is trained on the text."""
    allow_code: bool = False
    """Whether what the task files name may be run: the command line says so, never a suite."""
    asked: str | None = None
    """The digest of all that the tasks of lm-eval ask (``tasks.asked``): whoever renders them again has to get it."""
    heldout: tuple[str, ...] = ()
    """Tasks of lm-eval with choices that are not scored: methods that decide by choices are fitted on them."""
    asked_on_heldout: str | None = None
    """As ``asked``, of these."""


@dataclass(frozen=True, eq=False)
class TextSplit(Split):
    """Windows of tokens, and documents with choices that methods may ask about."""

    documents: TextTask | None = None
    """A task whose documents these are: what says what systems make of them is ``lm.heldout``."""


@dataclass(frozen=True, eq=False)
class TextTask:
    """Windows of three domains in one tokenizer, and tasks of lm-eval, which score."""

    reference: TextReference
    tokenizer: Path
    vocabulary: int
    train: Split
    heldout: Split
    test: Split
    limit: int | None
    kind: ClassVar[str] = "text"

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def title(self) -> str:
        fitted = f"; held-out: {', '.join(self.reference.heldout)}" if self.reference.heldout else ""
        return f"lm-eval: {', '.join(self.reference.lm_eval)}{fitted}"

    @property
    def source(self) -> str:
        return "; ".join(f"{domain.title}: {domain.source}" for domain in DOMAINS.values())

    @property
    def shape(self) -> Mapping[str, int]:
        return {"vocab": self.vocabulary}

    @property
    def settings(self) -> str:
        """The digest of the file that says how merges of the models write: those of the tokenizer's folder."""
        return settings_digest(self.tokenizer)

    @property
    def digest(self) -> str:
        words = self.heldout.tokenizer
        begins = words.begins if words else None  # of texts without context, which windows do not show
        return digest([self.test.digest, self.reference.asked or digest_of(self.questions), begins])

    @cached_property
    def questions(self) -> Questions:
        """What lm-eval's tasks ask; ``BadInput`` where it is not what the run was planned for."""
        asked = self.reference
        found = Questions(asked.lm_eval, asked.include_path, self.limit, allow_code=asked.allow_code)
        if asked.asked is None:
            rehearse(found)
        elif digest_of(found) != asked.asked:
            hint = "were their files changed meanwhile, or does a function of theirs give something else each time?"
            raise BadInput("the tasks ask something else than when the run was planned", hint=hint)
        return found

    @property
    def documents(self) -> Documents:
        return self.questions.documents

    @property
    def groups(self) -> Collection[str]:
        """The domains."""
        return set(self.train.groups)

    def of_groups(self, groups: tuple[str, ...]) -> TextTask:
        """The same for every pool: all splits are in equal shares of all domains."""
        return self


def settings_digest(folder: Path) -> str:
    """The digest of how the model in a folder writes by its own account; empty where no file says it."""
    file = folder / "generation_config.json"  # as transformers calls it
    return file_digest(file) if file.is_file() else ""


def load(reference: TextReference, store: Store, limit: int | None = None) -> TextTask:
    """The domains in the tokenizer of the reference's folder, or in one that is trained on them (byte-level BPE).

    Args:
        reference: the tasks of lm-eval, and the tokenizer.
        store: where the trained tokenizer and the windows are kept.
        limit: keeps only the first so many documents of every task (a trial run, never a verdict).

    Raises:
        BadInput: a folder without a tokenizer; task files that would run code.
    """
    if reference.include_path and not reference.allow_code and reference.asked is None:  # else it was done in planning
        check_files(reference.lm_eval, reference.include_path)
    folder = Path(reference.tokenizer) if reference.tokenizer else _trained_tokenizer(store)
    if not folder.is_dir():
        hint = "models are read from folders: download it first, and name its folder"
        raise BadInput("there is no such folder", place=str(folder), hint=hint)
    check_confined(folder)
    if (kept := kept_tokenizer(folder, store)) is None:
        raise BadInput("tokenizer.json is missing", place=str(folder), hint="save the tokenizer beside the model")
    tokenizer, vocabulary = kept
    made_of = {"tokenizer": tokenizer.digest, "corpus": corpus_digest(), "windows": WINDOWS, "length": LENGTH}
    key = Key.of("windows", code=__name__, **made_of)
    if not store.has(key):
        words = read_tokenizer(folder)
        tensors = {f"{split}.{name}": _windows(words, name, split) for split in WINDOWS for name in DOMAINS}
        with store.write(key) as target:
            save_file(tensors, target / "windows.safetensors")
    windows = load_file(store.read(key) / "windows.safetensors")
    splits = {split: _split(split, windows, key.digest, vocabulary, tokenizer) for split in WINDOWS}
    task = TextTask(reference, folder, vocabulary, **splits, limit=limit)
    return _with_documents(task) if reference.heldout else task


def _with_documents(task: TextTask) -> TextTask:
    """The task with a held-out split that has documents with choices: those of other tasks than the ones it scores."""
    reference, heldout = task.reference, task.heldout
    fitted = replace(reference, lm_eval=reference.heldout, asked=reference.asked_on_heldout, heldout=())
    documents = replace(task, reference=fitted, limit=None)  # a trial run fits what a whole one does
    known = {each.name: getattr(heldout, each.name) for each in fields(heldout)}
    digests = [heldout.digest, reference.asked_on_heldout or digest_of(documents.questions)]
    return replace(task, heldout=TextSplit(**{**known, "digest": digest(digests)}, documents=documents))


def _trained_tokenizer(store: Store) -> Path:
    key = Key.of("tokenizer", code=__name__, corpus=corpus_digest(), vocabulary=VOCABULARY)
    if not store.has(key):
        from tokenizers import ByteLevelBPETokenizer
        from transformers import PreTrainedTokenizerFast

        trained = ByteLevelBPETokenizer()
        samples = ["".join(split_of(name, "train"))[:TOKENIZER_CHARACTERS] for name in DOMAINS]
        trained.train_from_iterator(samples, vocab_size=VOCABULARY, special_tokens=[END], show_progress=False)
        words = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=END, pad_token=END)
        with store.write(key) as folder:
            words.save_pretrained(str(folder))
    return store.read(key)


def windows_of(text: str, folder: Path) -> Split:
    """A user's held-out text as windows in a folder's tokens, as many as predictions of them may take memory."""
    words = read_tokenizer(folder)
    tokens = words(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = torch.tensor(tokens[: len(tokens) // LENGTH * LENGTH]).view(-1, LENGTH)
    if not len(whole):
        raise BadInput(f"the held-out text has {len(tokens)} tokens: at least {LENGTH} are needed")
    count = _fitting(LARGEST, len(words), len(whole))
    inputs = whole[torch.linspace(0, len(whole) - 1, count).long()].contiguous()
    ids = [f"window {i}" for i in range(len(inputs))]
    return Split(
        "heldout",
        inputs,
        inputs[:, 1:].flatten(),
        ids,
        digest(inputs.tolist()),
        batch=_fitting(LOGITS, len(words), BATCH),
        criterion="nll",
        tokenizer=tokenizer_of(folder),
        kind=KIND,
    )


def _fitting(size: int, vocabulary: int, most: int) -> int:
    """How many windows have predictions of at most ``size`` bytes: from 1 to ``most``."""
    return max(1, min(most, size // (4 * vocabulary * (LENGTH - 1))))


def _windows(words: Any, domain: str, split: str) -> torch.Tensor:
    """Windows [W, LENGTH] of a domain, spread evenly over its text."""
    wanted = WINDOWS[split]
    blocks = split_of(domain, split)
    needed = 8 * wanted * LENGTH  # characters: more than any tokenizer puts into that many tokens
    step = max(1, int(len(blocks) / (needed / len(blocks[0]))))
    tokens = words("".join(blocks[::step]), add_special_tokens=False, verbose=False)["input_ids"]
    found = torch.tensor(tokens[: len(tokens) // LENGTH * LENGTH]).view(-1, LENGTH)
    if len(found) < wanted:
        raise ValueError(f"the {split} text of {domain} gives {len(found)} windows, fewer than {wanted}")
    return found[torch.linspace(0, len(found) - 1, wanted).long()].contiguous()


def _split(
    name: str, windows: dict[str, torch.Tensor], source: str, vocabulary: int, tokenizer: Tokenizer
) -> Split:
    count = WINDOWS[name]
    if name != "train":  # what is predicted on is kept
        count = _fitting(LARGEST // len(DOMAINS), vocabulary, count)
    parts = {domain: windows[f"{name}.{domain}"][:count] for domain in DOMAINS}
    inputs = torch.cat(list(parts.values()))
    return Split(
        name,
        inputs,
        inputs[:, 1:].flatten(),
        [f"{domain}-{name}-{i}" for domain in DOMAINS for i in range(count)],
        digest([source, name, count]),
        groups=[domain for domain in DOMAINS for _ in range(count)],
        batch=_fitting(LOGITS, vocabulary, BATCH),
        criterion="nll",
        tokenizer=tokenizer,
        kind=KIND,
    )
