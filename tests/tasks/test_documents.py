"""Documents made from held-apart text: what is right stands in the text, what is wrong does not stand there."""

import itertools
from pathlib import Path

import pyarrow as pa
import pytest

from harness.tasks import corpora
from harness.tasks.archives import Archive
from harness.tasks.documents import cloze, next_words, passages, standard
from harness.tasks.questions import Questions

FOLDER = str(Path(__file__).parents[2] / "suites" / "tasks")


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


def test_the_word_that_is_asked_for_follows_in_the_test_text():
    text = "".join(corpora.split_of("python", "test"))
    found = next_words("python", count=50)
    assert found == next_words("python", count=50)
    assert len({record["id"] for record in found}) == 50
    for record in found:
        assert f"{record['context']} {record['word']}" in text
        assert record["word"].isalpha()
        assert 100 < len(record["context"]) < 250
        assert record["context"] == record["context"].rstrip()


# Standard sets.


@pytest.fixture
def rows(monkeypatch):
    """Stands in for the archive: 500 rows of SciQ."""
    columns = ("question", "distractor1", "distractor2", "distractor3", "correct_answer", "support")
    written = [{name: f"{name} {number}" for name in columns} for number in range(500)]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(written)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    monkeypatch.setattr(Archive, "read", lambda archive, name: sink.getvalue().to_pybytes())
    return written


@pytest.mark.parametrize("count", [1, 3, 200, 500])
def test_a_number_of_rows_is_spread_evenly(rows, count):
    places = [rows.index(row) for row in standard("sciq", count)]
    assert len(places) == count
    assert places == sorted(set(places))
    assert {after - before for before, after in itertools.pairwise(places)} <= {500 // count, -(-500 // count)}


@pytest.mark.parametrize("count", [None, 501])
def test_all_rows_without_a_number_or_with_too_large_a_one(rows, count):
    assert standard("sciq", count) == rows


def test_a_task_of_200_asks_the_same_of_200_rows(rows):
    """Its file adds a number to the whole task's."""
    whole, part = (Questions([name], FOLDER).tasks[name] for name in ("sciq_archive", "sciq_archive_200"))
    assert [len(list(task.test_docs())) for task in (whole, part)] == [500, 200]
    asked = {(instance.args, instance.idx) for instance in whole.instances}
    assert {(instance.args, instance.idx) for instance in part.instances} < asked
