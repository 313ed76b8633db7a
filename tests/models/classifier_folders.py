"""Tiny classifiers in folders as transformers saves them: each architecture from its configuration, with its reader."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    ConvNextConfig,
    ConvNextImageProcessor,
    DistilBertConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    RobertaConfig,
    RobertaTokenizer,
    ViTConfig,
    ViTImageProcessor,
)

from harness.keys import file_digest
from harness.models.heads import IMAGE, SEQUENCE
from harness.models.pretrained import ReadAs
from harness.models.raw import rows_of, write_blob
from harness.pools.folder_plan import FolderPlan, plan_folder

LABELS = ("bad", "good", "none")
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "film", "great", "awful", "day", "rain", "the", "was", "i", "sleep", "##ly", "ü", "!", "日")
POSITIONS = 40

_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_NO_PADDING = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": 3}
_WORDS = {"vocab_size": 40, "max_position_embeddings": POSITIONS}
TEXTS = {
    "bert": BertConfig(**_SMALL, **_WORDS),
    "distilbert": DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, **_WORDS),
    "roberta": RobertaConfig(**_SMALL, vocab_size=300, max_position_embeddings=POSITIONS, pad_token_id=1),
    "modernbert": ModernBertConfig(
        **_SMALL, **_WORDS, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
        local_attention=8, global_attn_every_n_layers=2,
    ),
    "llama": LlamaConfig(**_SMALL, **_WORDS, **_NO_PADDING),
}  # fmt: skip
IMAGES = {
    "vit": ViTConfig(**_SMALL, image_size=16, patch_size=4),
    "convnext": ConvNextConfig(num_channels=3, hidden_sizes=[8, 12], depths=[1, 2], num_stages=2, patch_size=2),
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
}
FAMILIES = (*TEXTS, *IMAGES)


def head_of(family: str):
    return SEQUENCE if family in TEXTS else IMAGE


def read_as(family: str, labels=LABELS, **settings) -> ReadAs:
    return ReadAs(head_of(family), labels, **settings)


def module_of(family: str, labels=LABELS, seed=0, **settings) -> torch.nn.Module:
    """A classifier with random weights, large enough that its scores differ between inputs."""
    config = type(known := {**TEXTS, **IMAGES}[family])(**{**known.to_dict(), **settings})
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: row for row, label in enumerate(labels)}
    auto = AutoModelForSequenceClassification if family in TEXTS else AutoModelForImageClassification
    torch.manual_seed(seed)
    module = auto.from_config(config).eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_((0.2 if family in TEXTS else 0.1) * torch.randn(tensor.shape))
            if name.endswith("running_var"):
                tensor.clamp_(min=0.5)
    return module


def save(folder: Path, family: str, labels=LABELS, seed=0, **settings) -> Path:
    """A folder with such a classifier and its tokenizer or image processor."""
    module_of(family, labels, seed, **settings).save_pretrained(folder)
    save_reader(folder, family)
    return folder


def plan(folder: Path, family: str, labels=LABELS, base: FolderPlan | None = None, **settings) -> FolderPlan:
    return plan_folder("m", str(folder), base, read_as(family, labels, **settings))


def save_reader(folder: Path, family: str, **settings) -> None:
    if family in IMAGES:
        image_processor(family).save_pretrained(folder)
    else:
        tokenizer(family, **settings).save_pretrained(folder)


def image_processor(family: str):
    if family == "vit":
        return ViTImageProcessor(size={"height": 16, "width": 16})
    return ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=0.875)


def tokenizer(family: str, **settings):
    """As such models have it: of pieces of words with marks around a text, or of bytes; Llama's without padding."""
    vocabulary = {word: row for row, word in enumerate((*MARKS, *WORDS))}
    if family in ("bert", "distilbert"):
        return BertTokenizer(vocabulary, **settings)
    if family == "roberta":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        of_bytes = {word: row for row, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"))}
        return RobertaTokenizer(of_bytes, [], **settings)
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    marks = {"unk_token": "[UNK]"}
    if family == "modernbert":
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
        marks |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        marks |= {"eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **marks, **settings)


def batch_of(contents: list[bytes], folder: Path) -> torch.Tensor:
    """A batch of raw examples [B, 3] that lie in a new file."""
    file = folder / f"{abs(hash(tuple(contents)))}.bin"
    places = write_blob(contents, file)
    return rows_of(file, file_digest(file), places)


def text(*parts: str) -> bytes:
    return json.dumps(list(parts), ensure_ascii=False).encode()


def picture(seed: int, size=(24, 18), mode="RGB", kind="PNG", **settings) -> bytes:
    """The bytes of an image file of noise."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (size[1], size[0], bands), dtype=torch.uint8, generator=generator)
    opened = Image.frombytes("RGB" if mode == "P" else mode, size, _bytes(noise, mode))
    written = io.BytesIO()
    (opened.quantize(32) if mode == "P" else opened).save(written, kind, **settings)
    return written.getvalue()


def _bytes(noise: torch.Tensor, mode: str) -> bytes:
    return (noise.repeat(1, 1, 3) if mode == "P" else noise).numpy().tobytes()
