"""Documents made from held-apart text: what is right stands in the text, what is wrong does not stand there."""

import pytest

from harness.tasks import corpora
from harness.tasks.documents import cloze, passages


@pytest.fixture(scope="module")
def documents():
    return cloze("python", count=300)


def test_the_right_choice_is_what_follows(documents):
    text = "".join(corpora.split_of("python", "test"))
    for record in documents:
        assert record["context"] + record["choices"][record["gold"]] in text
        assert record["context"] == record["context"].rstrip()  # lm-eval would move spaces to the continuation
        assert all(choice[:1].isspace() and choice.strip() for choice in record["choices"])


def test_four_different_choices_and_no_place_is_favoured(documents):
    assert all(len(set(record["choices"])) == 4 for record in documents)
    assert all(len({len(choice) for choice in record["choices"]}) == 1 for record in documents)  # none is shorter
    places = [sum(record["gold"] == place for record in documents) for place in range(4)]
    assert min(places) > 300 / 4 - 4 * (300 * 0.25 * 0.75) ** 0.5


def test_every_call_gives_the_same(documents):
    assert cloze("python", count=300) == documents


def test_ids_are_unique(documents):
    assert len({record["id"] for record in documents}) == 300


def test_the_splits_share_no_text():
    blocks = [set(corpora.split_of("python", split)) for split in ("train", "heldout", "test")]
    assert sum(map(len, blocks)) == len(set.union(*blocks))
    assert "".join(sorted("".join(b) for b in blocks)) != ""


def test_passages_lie_in_the_test_text():
    text = "".join(corpora.split_of("python", "test"))
    found = passages("python", count=10, length=200)
    assert len(found) == 10
    assert all(record["text"] in text and len(record["text"]) > 100 for record in found)
