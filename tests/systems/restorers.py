"""Tiny masked language models and classifiers of texts in folders, and a plain loop of mask-predict to compare with."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

import harness.kinds  # noqa: F401 (which says how their networks are run)
from harness.models.heads import SEQUENCE
from harness.models.pretrained import ReadAs
from harness.pools.folder_plan import plan_folder
from harness.pools.pool import load_pool
from harness.pools.source import PoolPlan
from harness.types import Pool, Split
from tests.models.classifier_folders import LABELS, batch_of, save, text, tokenizer

POSITIONS = 24
SAID = (
    "a _ film", "the day was _ _", "_ rain !", "i sleep", "a great film _ the day _", "awful _ day _ was _ rain _",
    "the film was a day the rain was a film", "great _ great _ great _ great _ great",
)  # fmt: skip
"""``_`` stands for a masked word."""


@cache
def place() -> Path:
    """A folder that is gone when the tests are."""
    kept = tempfile.TemporaryDirectory(prefix="stockpot-tests-")
    place.kept = kept  # type: ignore[attr-defined]
    return Path(kept.name)


def config(**settings) -> BertConfig:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertConfig(**{**small, "vocab_size": 40, "max_position_embeddings": POSITIONS, **settings})


def masked_model(seed: int = 0, **settings) -> BertForMaskedLM:
    """A masked language model with random weights, large enough that what it says depends on what is there."""
    torch.manual_seed(seed)
    module = BertForMaskedLM(config(**settings)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer of letters whose mask is one letter."""
    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "_")
    known = {token: row for row, token in enumerate((*marks, *"abcdefghijklmnoprstuwy !"))}
    backend = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "_"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=60, **names)


@cache
def restorer(kind: str = "words", seed: int = 0) -> Path:
    """The folder of a masked language model of words or of letters."""
    folder = place() / f"restorer-{kind}-{seed}"
    words = letters() if kind == "letters" else tokenizer("bert")
    masked_model(seed, **({"max_position_embeddings": 80} if kind == "letters" else {})).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@cache
def classifier(seed: int = 0) -> Path:
    """The folder of a classifier of texts."""
    return save(place() / f"classifier-{seed}", "distilbert", seed=seed)


@cache
def pool(kind: str = "words") -> Pool:
    """A masked language model and two classifiers."""
    read_as = ReadAs(SEQUENCE, LABELS)
    folders = (restorer(kind), classifier(1), classifier(2))
    plans = [plan_folder(f"m{k}", str(folder), read_as=read_as) for k, folder in enumerate(folders)]
    return load_pool(PoolPlan("main", "independent", tuple(plans), None), None)  # type: ignore[arg-type]


def marked(said: str, kind: str = "words") -> str:
    return said if kind == "letters" else said.replace("_", "[MASK]")


@cache
def split(name: str, kind: str = "words", count: int = 24) -> Split:
    """Texts with masks, of three classes."""
    begin = {"train": 0, "heldout": 1, "test": 3}[name]
    said = [marked(SAID[(begin + row) % len(SAID)], kind) + " a day" * (row % 3) for row in range(count)]
    labels = torch.tensor([(begin + row) % len(LABELS) for row in range(count)])
    batch = batch_of([text(each) for each in said], place())
    return Split(name, batch, labels, [f"{name}-{row}" for row in range(count)], f"{name}-{kind}", 7, kind="texts")


def plain_mask_predict(module, words, said: str, rounds: int) -> tuple[str, int]:
    """One text at a time, as the paper has it: the restored text, and how often the model ran."""
    tokens = words(said, return_tensors="pt")["input_ids"][0]
    masked = (tokens == words.mask_token_id).nonzero().flatten().tolist()
    special = torch.tensor([t in words.all_special_ids or t >= len(words) for t in range(module.config.vocab_size)])
    total, sure, again, calls = rounds + 1, {}, masked, 0
    for number in range(total):
        if number:
            count = int(len(masked) * (1 - number / total) + 1e-9)
            again = sorted(masked, key=lambda place: (sure[place], place))[:count]
        if not again:
            break
        given, before = tokens.clone(), tokens.clone()
        given[again] = words.mask_token_id
        with torch.inference_mode():
            logits = module(given[None]).logits[0].masked_fill(special, -torch.inf)
        calls += 1
        for place, said_here in zip(again, torch.log_softmax(logits[again], -1), strict=True):
            tokens[place] = said_here.argmax()
            sure[place] = float(said_here.max())
        if torch.equal(tokens, before):
            break
    return (words.decode(tokens, skip_special_tokens=True) if masked else said), calls
