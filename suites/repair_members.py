"""The pool of repair.yaml: a model of letters that restores damaged texts, and classifiers that need it or do without.

Run it after suites/repair.py: ``python suites/repair_members.py [FOLDER]``, some minutes of two cores. It writes a
Hugging Face folder for each model into suites/data/repair/members:

- ``restorer``, a masked language model of letters, has seen all verses of train and clean, undamaged and unlabelled
- ``reader`` classifies undamaged texts: it has seen the labelled verses of train undamaged
- ``direct``, the same network, and ``direct_wide``, with the parameters of restorer and reader together, have seen the
  labelled verses damaged, each time anew
- ``direct_pretrained`` is the restorer's body, tuned on these: letters, and all the data that the pipeline has

What is there already stays, so that it goes on where it was stopped.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from repair import LETTERS, MARK, damage
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
MARKS = list(NAMES.values())
LONGEST = 320
"""Tokens of a text: one verse in a hundred has more letters."""
PIECES = 4_000
BATCH = 16
EPOCHS = {"restorer": 2, "reader": 6, "direct": 6, "direct_wide": 6, "direct_pretrained": 3}
RATES = {"restorer": 3e-3, "reader": 1e-3, "direct": 1e-3, "direct_wide": 1e-3, "direct_pretrained": 1e-3}


def of_letters(texts: pd.Series) -> PreTrainedTokenizerFast:
    """A tokenizer of letters, whose mask is the mark of a lost one."""
    known = {token: row for row, token in enumerate([*MARKS, MARK, *sorted(set("".join(texts)) | set(LETTERS))])}
    backend = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return _with_ends(backend, mask_token=MARK)


def of_pieces(texts: pd.Series) -> PreTrainedTokenizerFast:
    """A tokenizer of pieces of words that these texts have."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(f"[^a-z{MARK}]"), "isolated")]
    )
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=MARKS, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return _with_ends(backend)


def _with_ends(backend: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=LONGEST, **NAMES, **names)


def config_of(tokenizer: PreTrainedTokenizerFast, layers: int, width: int, inner: int, **more: Any) -> ModernBertConfig:
    """A small encoder with rotary positions: with learned ones so few texts do not teach it what stands beside what."""
    ids = tokenizer.convert_tokens_to_ids(MARKS)
    ends = dict(zip(("pad_token_id", "cls_token_id", "sep_token_id"), (ids[0], ids[2], ids[3]), strict=True))
    return ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=inner, max_position_embeddings=LONGEST, local_attention=32, global_attn_every_n_layers=layers,
        initializer_range=0.05, classifier_pooling="mean", bos_token_id=ids[2], eos_token_id=ids[3], **ends, **more,
    )  # fmt: skip


Batch = dict[str, torch.Tensor]


def batches(lengths: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The rows of texts in batches of about one length, in any order."""
    order = np.argsort(lengths + rng.random(len(lengths)), kind="stable")
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    yield from (chunks[number] for number in rng.permutation(len(chunks)))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Callable[[np.random.Generator], list[str]],
    loss: Callable[[Batch, np.ndarray, np.random.Generator], torch.Tensor],
    epochs: int,
    rate: float,
) -> None:
    """Train a model on texts, which may be others in every epoch; the rate rises for a tenth and then goes to 0.

    Args:
        model: changed in place.
        tokenizer: of the model.
        texts: of one epoch, from a generator.
        loss: from padded texts and their rows.
        epochs: how often it sees them.
        rate: the highest.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(texts(np.random.default_rng(0))) // BATCH)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    model.train()
    for _ in range(epochs):
        tokens = tokenizer(texts(rng), truncation=True)["input_ids"]
        for rows in batches(np.array(list(map(len, tokens))), rng):
            given = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
            optimizer.zero_grad()
            loss(dict(given), rows, rng).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


def train_restorer(texts: list[str], tokenizer: PreTrainedTokenizerFast, epochs: int) -> PreTrainedModel:
    """A masked language model as BERT is trained: of a fifth of the letters 8 in 10 are masked, one is another."""
    torch.manual_seed(0)
    model = ModernBertForMaskedLM(config_of(tokenizer, layers=3, width=128, inner=256))
    letters = torch.tensor(tokenizer.convert_tokens_to_ids(list(LETTERS)))

    def loss(given: Batch, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        ids = given["input_ids"]
        drawn, other = torch.from_numpy(rng.random(ids.shape)), torch.from_numpy(rng.integers(0, 26, ids.shape))
        asked = torch.isin(ids, letters) & (drawn < 0.2)
        held = torch.where(asked & (drawn < 0.16), tokenizer.mask_token_id, ids)
        held = torch.where(asked & (drawn >= 0.18), letters[other], held)
        logits = model(input_ids=held, attention_mask=given["attention_mask"]).logits
        return cross_entropy(logits[asked], ids[asked])

    train(model, tokenizer, lambda rng: texts, loss, epochs, RATES["restorer"])
    return model


def train_classifier(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: pd.DataFrame,
    labels: list[str],
    *,
    damaged: bool,
    epochs: int,
) -> PreTrainedModel:
    """A classifier of these rows, undamaged, or damaged anew in every epoch."""
    said, right = list(rows["text"]), torch.tensor([labels.index(label) for label in rows["label"]])

    def texts(rng: np.random.Generator) -> list[str]:
        return [damage(text, rng) for text in said] if damaged else said

    def loss(given: Batch, at: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
        return cross_entropy(logits, right[torch.from_numpy(at)], label_smoothing=0.1)

    train(model, tokenizer, texts, loss, epochs, RATES[name])
    return model


class Verses(NamedTuple):
    """What the models are made of."""

    rows: pd.DataFrame
    """The labelled verses."""
    unlabelled: list[str]
    """The text of all."""

    @staticmethod
    def read(data: Path, share: float) -> Verses:
        """Those of a folder; of a trial a share of them."""
        rows, clean = (pd.read_parquet(data / f"{name}.parquet") for name in ("train", "clean"))
        rows, clean = rows.iloc[: round(share * len(rows))], clean.iloc[: round(share * len(clean))]
        return Verses(rows, [*rows["text"], *clean["text"]])

    @property
    def labels(self) -> list[str]:
        """In the order of the classes."""
        return sorted(self.rows["label"].unique())

    @property
    def damaged(self) -> list[str]:
        """Damaged once, for a tokenizer."""
        rng = np.random.default_rng(1)
        return [damage(text, rng) for text in self.unlabelled]


SHAPES = {"reader": (2, 128, 256), "direct": (2, 128, 256), "direct_wide": (2, 160, 512)}
"""Layers, width and inner width of the classifiers of pieces."""


def make(name: str, verses: Verses, members: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model and its tokenizer, trained."""
    epochs = EPOCHS[name]
    if name == "restorer":
        letters = of_letters(pd.Series(verses.unlabelled))
        return train_restorer(verses.unlabelled, letters, epochs), letters
    labels = verses.labels
    heads = {"id2label": dict(enumerate(labels)), "label2id": {name: row for row, name in enumerate(labels)},
             "embedding_dropout": 0.2, "mlp_dropout": 0.1, "classifier_dropout": 0.2}  # fmt: skip
    if name == "direct_pretrained":
        tokenizer = of_letters(pd.Series(verses.unlabelled))
        torch.manual_seed(0)
        model = ModernBertForSequenceClassification.from_pretrained(members / "restorer", **heads)
    else:
        tokenizer = of_pieces(pd.Series(verses.unlabelled if name == "reader" else verses.damaged))
        torch.manual_seed(0)
        model = ModernBertForSequenceClassification(config_of(tokenizer, *SHAPES[name], **heads))
    trained = train_classifier(name, model, tokenizer, verses.rows, labels, damaged=name != "reader", epochs=epochs)
    return trained, tokenizer


def write(name: str, data: Path, share: float) -> str:
    """Train a model and write its folder, unless that is there; a line about it. One thread runs it."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder, begin = data / "members" / name, time.perf_counter()
    if folder.is_dir():
        return f"{folder} is there"
    model, tokenizer = make(name, Verses.read(data, share), data / "members")
    unfinished = data / f"unfinished_{name}"
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    folder.parent.mkdir(exist_ok=True)
    unfinished.rename(folder)
    size = sum(weight.numel() for weight in model.parameters())
    return f"{folder}: {size:,} parameters, {time.perf_counter() - begin:.0f} s"


def main(share: float = 1.0) -> None:
    """Write what is not there yet of the folders; of a trial with a share of the verses.

    Two at a time: so small ones hardly run faster on two threads than on one.
    """
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "repair"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        begun = [pool.submit(write, name, data, share) for name in ("restorer", *SHAPES)]
        print(begun[0].result(), flush=True)
        for made in (*begun[1:], pool.submit(write, "direct_pretrained", data, share)):  # which begins as the restorer
            print(made.result(), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
