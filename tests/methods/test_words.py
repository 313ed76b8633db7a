"""What prose calls what a method makes: declared, complete, and true to the parameters."""

import re
from string import Formatter

import pytest

from harness.methods.method import method
from harness.registry import METHODS

ALL = METHODS.all()


@pytest.mark.parametrize("name", ALL)
def test_declared_words_name_parameters_that_there_are_and_say_every_small_set(name):
    declared = ALL[name]
    placed = {field for _, field, _, _ in Formatter().parse(declared.words) if field} - {"members"}
    assert placed <= set(declared.parameters.model_fields)
    assert set(declared.told) <= placed
    for given in declared.small:
        words = declared.phrase(declared.validate(given), "three fine-tunes")
        assert re.fullmatch(r"[A-Za-z][^{}_(]*(\(.*\))?", words), words
        assert "  " not in words


def test_what_no_word_says_follows_in_brackets_unless_it_is_the_default():
    linear, distill = ALL["linear"], ALL["distill"]
    assert linear.phrase({"weights": "uniform"}, "two models") == "linear ensemble of two models"
    assert linear.phrase({"weights": [0.75, 0.25]}, "two models") == "linear ensemble of two models (weights 0.75:0.25)"
    given = distill.validate({"size": "half", "epochs": 15})
    assert distill.phrase(given, "two models") == "student of half the size taught by two models (epochs 15)"


def test_parameters_of_another_version_are_said_as_they_are():
    assert ALL["uniform_soup"].phrase({"gone": 3}, "two models") == "uniform soup of two models (gone 3)"
    assert ALL["distill"].phrase({"size": "third"}, "two models") == "student taught by two models (size third)"


def test_a_method_without_words_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(METHODS, "_known", dict(METHODS.declared()))

    @method("nameless_thing", family="output", summary="-", paper="-", needs={"members"})
    def nameless_thing(ingredients, *, depth: int = 2):
        raise NotImplementedError

    declared = METHODS.declared()["nameless_thing"]
    assert declared.phrase({"depth": 2}, "two models") == "nameless thing"
    assert declared.phrase({"depth": 3}, "two models") == "nameless thing (depth 3)"
