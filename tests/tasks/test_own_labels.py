"""Cells of users' tables: what is a label, an id or a text, and what is refused."""

import pytest

from harness.tasks.own_labels import Fault, in_order, label_name, name_of, text_of

CLASSES = ("bad", "good")


@pytest.mark.parametrize(
    ("value", "classes", "name"),
    [("pos", None, "pos"), (3, None, "3"), (True, None, "True"), (-1, None, "-1"), (1, CLASSES, "good"),
     ("good", CLASSES, "good"), ("NA", None, "NA"), (" x", None, " x")],
)  # fmt: skip
def test_labels_have_names(value, classes, name):
    assert label_name(value, classes) == name


@pytest.mark.parametrize(
    ("value", "classes", "words"),
    [(None, None, "no label"), (float("nan"), None, "no label"), ("", None, "no label"), ("NaN", None, "no label"),
     (" ", None, "no label"), (-1, CLASSES, r"no label \(-1\)"), (2, CLASSES, "the label is 2, and there are 2"),
     (1.0, None, "the label is 1.0"), ([1], None, "the label is a list"), ({"a": 1}, None, "an object"),
     (b"x", None, "bytes"), ("\ud800", None, "half of a character")],
)  # fmt: skip
def test_what_is_no_label_is_refused(value, classes, words):
    with pytest.raises(Fault, match=words):
        label_name(value, classes)


def test_ids_are_text_or_whole_numbers():
    assert (name_of("a", "id"), name_of(7, "id")) == ("a", "7")
    for value, words in ((None, "it has no id"), ("", "it has no id"), (0.5, "its id is a number"), ([], "a list")):
        with pytest.raises(Fault, match=words):
            name_of(value, "id")


def test_texts_are_text():
    assert text_of("NaN") == "NaN"
    for value, words in ((None, "no text"), (float("nan"), "no text"), (3, "a number"), ({"a": 1}, "an object"),
                         (["a"], "a list"), (b"x", "bytes"), ("\udfff", "half of a character")):  # fmt: skip
        with pytest.raises(Fault, match=words):
            text_of(value)


def test_labels_are_counted_by_number_where_all_are_whole_numbers():
    assert in_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert in_order(["10", "9", "b"]) == ["10", "9", "b"]
    assert in_order(["٣", "2"]) == ["2", "٣"]
