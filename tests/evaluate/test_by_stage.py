"""Errors by stage: oracle substitution against plain runs, words against difflib, and tables whose rows add up."""

import difflib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.by_stage import Recorded, _common, by_stage
from harness.evaluate.predictions import predict
from harness.systems.fitting import uniform
from harness.systems.parts import MaskedPart, MemberPart
from harness.systems.pipeline import Name, Pipeline, Restore
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination
from tests.models.classifier_folders import LABELS, batch_of, text
from tests.systems.restorers import SAID, place, pool, split

CLEAN = [said.replace("_", word) for said, word in zip(SAID, ("great", "rain", "the", "i") * 2, strict=True)]


def reader(position=1):
    return OutputCombination([MemberPart(pool().members[position])], Linear(uniform(1)))


def restorer(rounds=1):
    return Restore(MaskedPart(pool().members[0]), rounds)


def corrupted():
    """Masked texts with their true ones."""
    plain = split("test")
    true = [f"{CLEAN[(3 + row) % len(SAID)]}{' a day' * (row % 3)}" for row in range(len(plain))]
    return replace(plain, clean=batch_of([text(each) for each in true], place())), true


def examined(pipeline, data):
    recorded = Recorded(pipeline)
    said = predict(recorded.log_probs, data)
    assert torch.equal(said, predict(pipeline.log_probs, data))
    return by_stage(pipeline, recorded.traces, data, LABELS), said


def test_with_the_true_text_in_its_place_what_is_wrong_is_the_readers_own_error():
    data, true = corrupted()
    found, said = examined(Pipeline([restorer()], reader(), 3), data)
    clean = replace(data, inputs=batch_of([text(each) for each in true], place()))
    own = predict(reader().log_probs, clean).argmax(-1) != data.labels
    wrong = said.argmax(-1) != data.labels
    assert np.array_equal(found.measures["error/2 m1"], own.double().numpy())
    assert np.array_equal(found.measures["error/1 m0"], (wrong.double() - own.double()).numpy())


def test_a_perfect_first_stage_has_no_error_of_its_own():
    data, true = corrupted()
    clean = replace(data, inputs=batch_of([text(each) for each in true], place()))
    found, _ = examined(Pipeline([restorer()], reader(), 3), clean)
    assert not found.measures["error/1 m0"].any()
    assert (found.measures["words_right/0 given"] == 1).all()
    assert (found.measures["words_right/1 m0"] == 1).all()


@pytest.mark.parametrize("stages", [1, 2])
def test_the_errors_of_all_stages_add_up_to_the_error_of_the_whole(stages):
    data, _ = corrupted()
    before = [restorer(), Name(MemberPart(pool().members[2]), LABELS)][2 - stages :]
    found, said = examined(Pipeline(before, reader(), 3), data)
    errors = [values for name, values in found.measures.items() if name.startswith("error/")]
    assert len(errors) == stages + 1
    assert np.array_equal(sum(errors), (said.argmax(-1) != data.labels).double().numpy())


def test_what_every_stage_said_is_in_the_table():
    data, true = corrupted()
    pipeline = Pipeline([restorer(2)], reader(), 3)
    found, said = examined(pipeline, data)
    table = found.intermediate
    by_number = dict(list(table.groupby("stage")))
    assert list(by_number) == [0, 1, 2]
    assert all(list(rows["example_id"]) == list(data.ids) for rows in by_number.values())
    with torch.inference_mode():
        plain = [each for batch in data.inputs.split(data.batch) for each in pipeline.trace(batch).results[0]]
    assert list(by_number[1]["value"]) == plain
    assert list(by_number[2]["value"]) == [LABELS[row] for row in said.argmax(-1).tolist()]
    assert list(by_number[1]["truth"]) == list(by_number[0]["truth"]) == true
    assert list(by_number[2]["truth"]) == [LABELS[row] for row in data.labels.tolist()]
    assert not (table["failed"] != "").any()


def test_failures_are_counted_and_told_by_stage():
    data, _ = corrupted()
    inputs = batch_of([b'[""]', text("day " * 50), text("a [MASK] film")], place())
    few = replace(data, inputs=inputs, labels=data.labels[:3], ids=["a", "b", "c"], clean=None)
    found, _ = examined(Pipeline([restorer()], reader(), 3), few)
    assert found.failures == {"1 m0": 2}
    rows = found.intermediate.set_index(["example_id", "stage"])["failed"]
    assert rows["a", 1] == "the text has no token"
    assert rows["b", 1] == "the text has 52 tokens, and the model takes 24"
    assert (rows[rows != ""].index.get_level_values("stage") == 1).all()


def test_without_true_texts_no_error_is_put_down_to_a_stage():
    found, _ = examined(Pipeline([restorer()], reader(), 3), split("test"))
    assert not found.measures
    assert found.intermediate["truth"].isna().sum() == 2 * len(split("test"))


def test_of_pairs_both_texts_are_in_the_table():
    data, _ = corrupted()
    pair = text("a [MASK] film", "i sleep")
    few = replace(data, inputs=batch_of([pair], place()), labels=data.labels[:1], ids=["a"],
                  clean=batch_of([text("a great film", "i sleep")], place()))  # fmt: skip
    found, _ = examined(Pipeline([restorer()], reader(), 3), few)
    said = found.intermediate.set_index("stage")["value"]
    assert json.loads(said[0]) == ["a [MASK] film", "i sleep"]
    assert json.loads(said[1])[1] == "i sleep"


WORDS = st.lists(st.sampled_from("abc"), max_size=7)


@given(WORDS.filter(bool), WORDS)
def test_words_that_are_right_are_a_longest_common_subsequence(truth, words):
    found = _common(truth, words) * len(truth)
    brute = max(
        (bin(kept).count("1") for kept in range(2 ** len(words))
         if _is_within([w for k, w in enumerate(words) if kept >> k & 1], truth)), default=0,
    )  # fmt: skip
    assert found == pytest.approx(brute)
    matched = sum(block.size for block in difflib.SequenceMatcher(None, truth, words, False).get_matching_blocks())
    assert found >= matched - 1e-9


def _is_within(some, whole):
    rest = iter(whole)
    return all(each in rest for each in some)


def test_of_an_empty_truth_nothing_is_known():
    assert np.isnan(_common([], ["a"]))
