"""Counts of labels in words."""

from harness.display.classes import class_counts


def test_few_labels_are_counted_one_by_one_and_many_by_their_range():
    assert class_counts([0, 1, 1], ("neg", "pos", "so")) == "neg 1, pos 2, so 0"
    assert class_counts([0, 1, 1], [str(k) for k in range(9)]) == "9 labels of 0 to 2 examples each"
    assert class_counts([0, 1], ()) == ""
