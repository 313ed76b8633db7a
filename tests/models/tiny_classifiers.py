"""Tiny classifiers of texts and images in folders, from their configurations alone, and raw examples for them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    ViTImageProcessor,
)

from harness.keys import file_digest
from harness.models.raw import rows_of, write_blob

WORDS = ["[PAD]", "[CLS]", "the", "a", "good", "bad", "film", "song", "was", "not", "very", "long", "short", "old"]
SETTINGS = {
    "bert": {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 48, "max_position_embeddings": 32, "initializer_range": 0.2},
    "distilbert": {"vocab_size": 40, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
                   "max_position_embeddings": 32, "initializer_range": 0.2},
    "vit": {"image_size": 16, "patch_size": 4, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 48, "initializer_range": 0.2},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 24], "depths": [1, 1], "layer_type": "basic"},
}  # fmt: skip
IMAGES = {"vit", "resnet"}


def classifier(kind: str, folder: Path, labels: tuple[str, ...] = ("ham", "spam", "eggs"), seed: int = 0) -> Path:
    """A classifier with random weights, saved with what reads its examples."""
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    config = AutoConfig.for_model(kind, id2label=names, label2id={v: k for k, v in names.items()}, **SETTINGS[kind])
    auto = AutoModelForImageClassification if kind in IMAGES else AutoModelForSequenceClassification
    module = auto.from_config(config)
    _draw_statistics(module)
    module.save_pretrained(folder)
    save_reader(kind, folder)
    return folder


def _draw_statistics(module: nn.Module) -> None:
    """Biases and running statistics that are not those of a fresh network."""
    for name, tensor in module.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)


def save_reader(kind: str, folder: Path) -> None:
    """The tokenizer, or the image processor, of a classifier."""
    if kind in IMAGES:
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
        return
    words = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]").save_pretrained(folder)


def examples(kind: str, folder: Path, count: int = 6) -> Tensor:
    """Raw examples [count, 3] for classifiers of a kind, in a file of the folder."""
    generator = torch.Generator().manual_seed(0)
    contents = []
    for row in range(count):
        if kind in IMAGES:
            pixels = torch.randint(256, (20, 24, 3), dtype=torch.uint8, generator=generator)
            with io.BytesIO() as file:
                Image.fromarray(pixels.numpy()).save(file, format="PNG")
                contents.append(file.getvalue())
        else:
            drawn = torch.randint(2, len(WORDS), (3 + row,), generator=generator).tolist()
            contents.append(json.dumps([" ".join(WORDS[word] for word in drawn)]).encode())
    places = write_blob(contents, folder / "examples")
    return rows_of(folder / "examples", file_digest(folder / "examples"), places)
