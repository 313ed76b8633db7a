"""The suite of damaged verses: what damage leaves alone, what splits share, and what tokenizers make of it."""

import numpy as np
import pandas as pd
import pytest

from harness.tasks.archives import SCRIPTURE
from tests.suites.script import FOLDER, load_script

TEXT = "and the lord said unto moses, (it is so) arise; go 'forth’: selah!" * 40


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))  # scripts import their neighbours
        yield patch


@pytest.fixture(scope="module")
def script(patch):
    return load_script("repair", SCRIPTURE)


@pytest.fixture(scope="module")
def members(patch):
    return load_script("repair_members", SCRIPTURE)


@pytest.fixture(scope="module")
def tables(script):
    return script.tables()


def test_damage_changes_letters_alone_and_as_many_as_it_says(script):
    found = script.damage(TEXT, np.random.default_rng(0))
    pairs = list(zip(TEXT, found, strict=True))
    assert all(one == other for one, other in pairs if not "a" <= one <= "z")
    letters = [(one, other) for one, other in pairs if "a" <= one <= "z"]
    lost = sum(other == script.MARK for _, other in letters) / len(letters)
    misread = sum(other not in (one, script.MARK) for one, other in letters) / len(letters)
    assert (lost, misread) == (pytest.approx(script.LOST, abs=0.02), pytest.approx(script.MISREAD, abs=0.01))
    assert set(found) <= set(TEXT) | set(script.LETTERS) | {script.MARK}


def test_every_other_letter_may_stand_for_a_misread_one(script):
    found = script.damage("e" * 20_000, np.random.default_rng(0))
    assert set(found) == set(script.LETTERS) | {script.MARK}


def test_splits_have_their_rows_and_share_no_chapter(script, tables):
    assert {name: len(tables[name]) for name in script.ROWS} == script.ROWS
    for one, other in (("train", "test"), ("heldout", "test"), ("train", "heldout")):
        assert not set(tables[one]["cluster"]) & set(tables[other]["cluster"])
    assert not set(tables["clean"]["text"]) & set(tables["test"]["text"])
    assert set(tables["clean"].columns) == {"id", "text"}
    lengths = [tables[name]["damaged"].str.len().equals(tables[name]["text"].str.len()) for name in script.ROWS]
    assert all(lengths)
    assert not any(script.MARK in text for text in tables["train"]["text"])


def test_the_same_damage_is_drawn_again(script, tables):
    again = script.tables()
    assert all(tables[name].equals(again[name]) for name in tables)


def test_the_restorers_mask_is_a_lost_letter_and_its_tokens_are_the_text_again(script, members):
    letters = members.of_letters(pd.Series([TEXT]))
    found = script.damage(TEXT[:60], np.random.default_rng(0))
    tokens = letters(found)["input_ids"]
    assert len(tokens) == len(found) + 2
    assert tokens.count(letters.mask_token_id) == found.count(script.MARK)
    kept = letters("it is so!")["input_ids"]
    assert letters.decode(kept, skip_special_tokens=True) == "it is so!"


def test_pieces_of_damaged_words_are_known_where_they_were_seen(script, members):
    rng = np.random.default_rng(0)
    pieces = members.of_pieces(pd.Series([script.damage(TEXT, rng) for _ in range(3)]))
    tokens = pieces(script.damage(TEXT, np.random.default_rng(9)))["input_ids"]
    assert tokens.count(pieces.unk_token_id) < 0.01 * len(tokens)
    assert pieces.mask_token_id is None
