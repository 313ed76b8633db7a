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

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def main(share: float = 1.0) -> None:
    """Write what is not there yet of the folders; of a trial with a share of the verses."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "repair"
    rows, clean = (pd.read_parquet(data / f"{name}.parquet") for name in ("train", "clean"))
    rows, clean = rows.iloc[: round(share * len(rows))], clean.iloc[: round(share * len(clean))]
    labels = sorted(rows["label"].unique())
    unlabelled = pd.concat([rows["text"], clean["text"]])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    letters, pieces = of_letters(unlabelled), of_pieces(unlabelled)
    rng = np.random.default_rng(1)
    of_damaged = of_pieces(pd.Series([damage(text, rng) for text in unlabelled]))
    heads = {"id2label": dict(enumerate(labels)), "label2id": {name: row for row, name in enumerate(labels)},
             "embedding_dropout": 0.2, "mlp_dropout": 0.1, "classifier_dropout": 0.2}  # fmt: skip
    members = data / "members"

    def classifier(name: str, tokenizer: PreTrainedTokenizerFast, layers: int, width: int, inner: int) -> Any:
        torch.manual_seed(0)
        model = ModernBertForSequenceClassification(config_of(tokenizer, layers, width, inner, **heads))
        return train_classifier(name, model, tokenizer, rows, labels, damaged=name != "reader", epochs=EPOCHS[name])

    def pretrained(name: str) -> Any:
        torch.manual_seed(0)
        model = ModernBertForSequenceClassification.from_pretrained(members / "restorer", **heads)
        return train_classifier(name, model, letters, rows, labels, damaged=True, epochs=EPOCHS[name])

    made: dict[str, tuple[PreTrainedTokenizerFast, Callable[[], Any]]] = {
        "restorer": (letters, lambda: train_restorer(list(unlabelled), letters, EPOCHS["restorer"])),
        "reader": (pieces, lambda: classifier("reader", pieces, 2, 128, 256)),
        "direct": (of_damaged, lambda: classifier("direct", of_damaged, 2, 128, 256)),
        "direct_wide": (of_damaged, lambda: classifier("direct_wide", of_damaged, 2, 160, 512)),
        "direct_pretrained": (letters, lambda: pretrained("direct_pretrained")),
    }
    for name, (tokenizer, make) in made.items():
        folder, begin = members / name, time.perf_counter()
        if folder.is_dir():
            continue
        model = make()
        unfinished = data / f"unfinished_{name}"
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        folder.parent.mkdir(exist_ok=True)
        unfinished.rename(folder)
        size = sum(weight.numel() for weight in model.parameters())
        print(f"{folder}: {size:,} parameters, {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
