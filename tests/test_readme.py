"""The README says what the registry declares and what the reference run measured, and nothing else."""

import re
from pathlib import Path

import pytest

from harness.registry import METHODS
from tests.readme import updated

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_method_is_in_the_table_with_its_summary():
    for name, method in METHODS.all().items():
        summary = method.summary.replace("|", "\\|")
        assert f"| `{name}` | {method.family} | {summary} |" in README


def test_every_number_is_that_of_the_committed_results():
    assert updated(README) == README, "run python -m tests.readme"


@pytest.mark.parametrize(
    ("word", "other"),
    [("95.41 %", "95.42 %"), ("| not held |", "| held |"), ("8.00×", "7.00×"), ("on two cores", "on three cores")],
)
def test_a_number_that_is_not_is_noticed(word, other):
    assert word in README
    changed = README.replace(word, other, 1)
    try:
        assert updated(changed) != changed
    except ValueError as missing:
        assert "has no words" in str(missing)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
