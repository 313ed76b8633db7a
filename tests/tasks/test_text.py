"""Windows of text: as many as the vocabulary leaves room for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.tasks import text
from harness.tasks.text import LARGEST, LENGTH, LOGITS, WINDOWS, TextReference, TextTask
from harness.types import Tokenizer

TOKENIZER = Tokenizer("words", "nowhere")


def splits(vocabulary):
    """All splits of three domains whose every window is told apart by its first token."""
    windows = {
        f"{name}.{domain}": torch.arange(count)[:, None].expand(count, LENGTH) + 1000 * place
        for name, count in WINDOWS.items()
        for place, domain in enumerate(text.DOMAINS)
    }
    return {name: text._split(name, windows, "source", vocabulary, TOKENIZER) for name in WINDOWS}


def bytes_of(predictions, vocabulary):
    return 4 * vocabulary * (LENGTH - 1) * predictions


@pytest.mark.parametrize("vocabulary", [2048, 32_000, 49_152, 256_000])
def test_predictions_and_batches_stay_small_and_every_domain_has_its_share(vocabulary):
    found = splits(vocabulary)
    for name, split in found.items():
        each = len(split.inputs) // 3
        assert split.groups == [domain for domain in text.DOMAINS for _ in range(each)]
        assert split.inputs[:, 0].tolist() == [i + 1000 * place for place in range(3) for i in range(each)]
        assert 1 <= split.batch <= text.BATCH
        assert split.batch == 1 or bytes_of(split.batch, vocabulary) <= LOGITS
        assert len(split.ids) == len(set(split.ids)) == len(split.inputs)
        if name != "train":
            assert each == 1 or bytes_of(len(split.inputs), vocabulary) <= LARGEST
    assert len(found["train"].inputs) == 3 * WINDOWS["train"]


def test_a_small_vocabulary_has_all_windows_and_a_large_one_fewer():
    counts = {size: [len(split.inputs) // 3 for split in splits(size).values()] for size in (2048, 49_152)}
    assert counts[2048] == list(WINDOWS.values())
    assert counts[49_152] == [WINDOWS["train"], 3, 3]


def test_a_split_of_fewer_windows_has_another_digest():
    """So that what was predicted on one is not taken for predictions on the other."""
    assert splits(2048)["test"].digest != splits(49_152)["test"].digest
    assert splits(2048)["train"].digest == splits(49_152)["train"].digest


def test_what_texts_begin_with_is_part_of_what_is_asked():
    """Windows show nothing of it, and a member without a tokenizer of its own is read with the task's."""
    digests = set()
    for begins in (0, 5, None):
        words = replace(TOKENIZER, begins=begins)
        found = {name: replace(split, tokenizer=words) for name, split in splits(64).items()}
        reference = TextReference("suite", ("t",), asked="the same")
        digests.add(TextTask(reference, Path("nowhere"), 64, **found, limit=None).digest)
    assert len(digests) == 3
