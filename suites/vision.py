"""The data and the pool of vision.yaml: photographs of clothes, and heads tuned on three pretrained networks.

Run it once, with the extra ``vision``: ``python suites/vision.py [FOLDER]``, about five minutes of one core. It writes
into suites/data/vision the images (train.parquet, heldout.parquet and test.parquet with columns id, image and label),
and a folder of timm for each member: EfficientNet-Lite 0 to 2 as trained on ImageNet, each under three heads. Features
are computed once and kept. The weights come as pickles; they are read as tensors only (``weights_only``).
"""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from harness.models.vision_imports import import_timm
from harness.tasks.archives import EFFICIENTNET_LITE, FASHION_MNIST
from harness.tasks.labelled import stratified_rows

timm = import_timm()

CLASSES = ("t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot")
PER_CLASS = {"train": 800, "heldout": 300}
"""Images of the set's training half; test is the set's own 10,000."""
SIDE = 96
"""Pixels that an image is enlarged to, from 28: larger gains little and costs its square."""
HEADS = {"a": 1e-3, "b": 3e-3, "c": 1e-2}
"""Inverse strength of the penalty of each head, which is fitted on its own resample of train."""


def read_half(half: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels [N] of "train" or "t10k", in the format of MNIST."""
    folder = "usr/share/datasets/fashion-mnist"
    images = gzip.decompress(FASHION_MNIST.read(f"{folder}/{half}-images-idx3-ubyte.gz"))
    labels = gzip.decompress(FASHION_MNIST.read(f"{folder}/{half}-labels-idx1-ubyte.gz"))
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def encode(image: np.ndarray) -> bytes:
    """An image as the bytes of a PNG file."""
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "png")
    return sink.getvalue()


def make_splits() -> dict[str, pd.DataFrame]:
    """The images of train, held-out and test."""
    (images, labels), (test_images, test_labels) = read_half("train"), read_half("t10k")
    train, heldout, _ = (rows.numpy() for rows in stratified_rows(labels, (*PER_CLASS.values(), 0)))
    parts = {
        "train": ("train", train, images, labels),
        "heldout": ("train", heldout, images, labels),
        "test": ("test", np.arange(len(test_labels)), test_images, test_labels),
    }
    return {
        split: pd.DataFrame(
            {
                "id": [f"{half}-{row}" for row in rows],
                "image": [encode(pixels[row]) for row in rows],
                "label": [CLASSES[answers[row]] for row in rows],
            }
        )
        for split, (half, rows, pixels, answers) in parts.items()
    }


def load_backbone(size: int) -> torch.nn.Module:
    """EfficientNet-Lite of a size as timm builds it; the weights' names differ from timm's, their order does not."""
    archive = EFFICIENTNET_LITE[size]
    (file,) = (name for name in archive.names() if name.endswith(".pth"))
    weights = torch.load(io.BytesIO(archive.read(file)), weights_only=True)
    network = timm.create_model(f"tf_efficientnet_lite{size}").eval()
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network


def data_config() -> dict[str, object]:
    """How images are shown to the networks, in timm's words."""
    return {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0, "interpolation": "bicubic"}


@torch.inference_mode()
def features_of(network: torch.nn.Module, images: pd.Series) -> np.ndarray:
    """What the network's head sees of each image, float32 [N, 1280]."""
    config = timm.data.resolve_data_config(data_config(), pretrained_cfg=network.pretrained_cfg)
    prepare = timm.data.create_transform(**config)
    found = []
    for start in range(0, len(images), 50):
        batch = [prepare(Image.open(io.BytesIO(content)).convert("RGB")) for content in images[start : start + 50]]
        found.append(network.forward_head(network.forward_features(torch.stack(batch)), pre_logits=True))
    return torch.cat(found).numpy()


def fit_head(features: np.ndarray, labels: np.ndarray, penalty: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C, 1280] and biases [C] of a logistic regression on a resample of standardised features.

    The standardisation is folded into them, so that they are a plain linear layer on the features.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    rows = np.random.default_rng(seed).integers(len(labels), size=len(labels))
    head = LogisticRegression(C=penalty, max_iter=300).fit(((features - mean) / spread)[rows], labels[rows])
    weights = head.coef_ / spread
    return weights, head.intercept_ - weights @ mean


def write_member(network: torch.nn.Module, weights: np.ndarray, biases: np.ndarray, folder: Path) -> None:
    """A folder that ``timm.create_model("local-dir:…", pretrained=True)`` loads."""
    network.reset_classifier(len(CLASSES))
    network.classifier.weight.data = torch.from_numpy(weights).float().contiguous()
    network.classifier.bias.data = torch.from_numpy(biases).float()
    config = {"num_classes": len(CLASSES), "label_names": list(CLASSES)}
    timm.models.save_for_hf(network, folder, model_config=config, data_config=data_config(), safe_serialization=True)


def write_members(size: int, splits: dict[str, pd.DataFrame], folder: Path) -> None:
    """All members on one network."""
    network, kept = load_backbone(size), folder / "features" / f"lite{size}.npz"
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        np.savez(kept, **{split: features_of(network, rows["image"]) for split, rows in splits.items()})
    features = np.load(kept)
    labels = {split: np.array([CLASSES.index(label) for label in rows["label"]]) for split, rows in splits.items()}
    for seed, (name, penalty) in enumerate(HEADS.items()):
        weights, biases = fit_head(features["train"], labels["train"], penalty, seed)
        member = folder / "members" / f"lite{size}_{name}"
        write_member(network, weights, biases, member)
        right = np.mean((features["test"] @ weights.T + biases).argmax(axis=1) == labels["test"])
        print(f"{member}: {right:.1%} of test images right", flush=True)


def main() -> None:
    """Write the images and the members."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "vision"
    folder.mkdir(parents=True, exist_ok=True)
    splits = make_splits()
    for split, rows in splits.items():
        rows.to_parquet(folder / f"{split}.parquet", index=False)
        print(f"{folder / split}.parquet: {len(rows):,} images", flush=True)
    for size in range(len(EFFICIENTNET_LITE)):
        write_members(size, splits, folder)


if __name__ == "__main__":
    main()
