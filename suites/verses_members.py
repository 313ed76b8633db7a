"""The pool of verses.yaml: one encoder, fine-tuned whole on verses: once as a base, then several times from there.

Run it after suites/verses.py: ``python suites/verses_members.py [FOLDER]``, half an hour of one core. It writes a
Hugging Face folder for each model into suites/data/verses/members: the base, eight fine-tunes of it, and ``others``,
the fine-tune that somebody else made of the same encoder, of which only the head is fitted here. What is there already
stays, so that it goes on where it was stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from harness.tasks.pretrained import folder_of

TOKENS = 64
"""Of a verse: 3 in 100 are longer, and cut."""
BATCH = 32
BASE = {"lr": 2e-4, "epochs": 2, "seed": 0, "share": 0.5}
"""More epochs make it surer and hardly better: its likelihood is best after two."""
MEMBERS = {
    f"{name}{seed}": {"lr": lr, "epochs": 1, "seed": seed, "share": 0.25, "decay": False}
    for seed, (name, lr) in enumerate([("slow", 5e-5), ("fast", 1e-4)] * 4, start=1)
}
"""Fine-tunes of the base at constant rates, each on its own quarter of the verses; the base has seen half of it."""


class Verses:
    """Verses as tokens, with the numbers of their labels."""

    def __init__(self, rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, names: list[str]) -> None:
        self.tokenizer = tokenizer
        self.tokens = tokenizer(list(rows["text"]), truncation=True, max_length=TOKENS, padding=False)["input_ids"]
        self.labels = torch.tensor([names.index(label) for label in rows["label"]])

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Some verses, padded to the longest of them."""
        return dict(self.tokenizer.pad({"input_ids": [self.tokens[row] for row in rows]}, return_tensors="pt"))

    def batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in batches of verses of about the same length."""
        lengths = np.array([len(self.tokens[row]) for row in rows])
        chunks = np.array_split(np.arange(len(rows)), max(1, len(rows) // (16 * BATCH)))
        ordered = np.concatenate([rows[chunk[np.argsort(lengths[chunk], kind="stable")]] for chunk in chunks])
        return [ordered[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def train(
    model: PreTrainedModel,
    verses: Verses,
    lr: float,
    epochs: int,
    seed: int,
    share: float = 1.0,
    decay: bool = True,
) -> None:
    """Fine-tune the whole model on a share of the verses.

    With ``decay`` the rate goes to 0 at last, and the head, which is new, learns five times as fast.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    head = list(model.classifier.parameters())
    body = [weight for name, weight in model.named_parameters() if not name.startswith("classifier.")]
    groups = [{"params": body, "lr": lr}, {"params": head, "lr": 5 * lr if decay else lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    drawn = rng.permutation(len(verses.labels))[: round(share * len(verses.labels))]
    steps = epochs * -(-len(drawn) // BATCH)
    warm = steps // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (warm + 1), (steps - step) / (steps - warm) if decay else 1.0)
    )
    model.train()
    for _ in range(epochs):
        batches = verses.batches(rng.permutation(drawn))
        for number in rng.permutation(len(batches)):
            rows = batches[number]
            loss = cross_entropy(model(**verses.batch(rows)).logits, verses.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


@torch.inference_mode()
def outputs_of(model: PreTrainedModel, verses: Verses) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """Rows, what the head sees of them [B, 384], and the logits [B, C], batch by batch."""
    for rows in verses.batches(np.arange(len(verses.labels))):
        seen = model.bert(**verses.batch(rows)).pooler_output
        yield rows, seen, model.classifier(seen)


def accuracy(model: PreTrainedModel, verses: Verses) -> float:
    """The share of verses whose label has the highest logit."""
    right = [(logits.argmax(1) == verses.labels[rows]).sum() for rows, _, logits in outputs_of(model, verses)]
    return sum(right).item() / len(verses.labels)


def fit_head(model: PreTrainedModel, verses: Verses) -> None:
    """Give a model whose encoder stays as it is the head of a logistic regression."""
    parts = [(rows, seen) for rows, seen, _ in outputs_of(model, verses)]
    rows, seen = np.concatenate([part[0] for part in parts]), torch.cat([part[1] for part in parts]).numpy()
    head = LogisticRegression(C=10.0, max_iter=2_000).fit(seen, verses.labels[rows].numpy())
    model.classifier.weight.data = torch.from_numpy(head.coef_).float().contiguous()
    model.classifier.bias.data = torch.from_numpy(head.intercept_).float()


def main() -> None:
    """Write what is not there yet of the folders."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "verses"
    rows = {split: pd.read_parquet(data / f"{split}.parquet") for split in ("train", "heldout")}
    names = sorted(rows["train"]["label"].unique())
    tokenizer = AutoTokenizer.from_pretrained(folder_of("archive:minilm"))
    verses = {split: Verses(part, tokenizer, names) for split, part in rows.items()}
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # that the head is new is meant so
    logging.disable_progress_bar()

    def load(folder: str | Path) -> PreTrainedModel:
        torch.manual_seed(0)  # a new head
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names), **labels).eval()

    base = data / "members" / "base"
    for name in ("base", *MEMBERS, "others"):
        folder, begin = data / "members" / name, time.perf_counter()
        if folder.is_dir():
            continue
        start = {"base": folder_of("archive:minilm"), "others": folder_of("archive:minilm_sre")}.get(name, base)
        model = load(start)
        if name == "others":
            fit_head(model, verses["train"])
        else:
            train(model, verses["train"], **(BASE if name == "base" else MEMBERS[name]))
        seconds = time.perf_counter() - begin
        right = accuracy(model, verses["heldout"])
        unfinished = data / f"unfinished_{name}"
        tokenizer.save_pretrained(unfinished)
        model.save_pretrained(unfinished)
        folder.parent.mkdir(exist_ok=True)
        unfinished.rename(folder)
        print(f"{folder}: {right:.1%} of held-out verses right, after {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
