"""What others wrote fits one line that a terminal, a file and CI take for text."""

import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from harness.display.lines import MOST, escaped, one_line, plain_line, text_cell
from harness.engines.engine import TRACE, Job, Outcome, attempt, passed_on

ANY = st.text(st.characters(), max_size=40)  # control characters and halves of surrogate pairs too


@given(st.builds(lambda text, times: text * times, ANY, st.integers(1, 200)))
@example("::error::forged\n::error::again")
@example("a ##[error]b")
@example("\x1b[2J\ud800\0\u2028\x85")
@example("::" * 4000)
def test_a_line_is_short_printable_and_stays_as_it_is(text):
    line = one_line(text)
    assert len(line) <= MOST
    assert line.isprintable()
    assert not line.startswith(" ")
    assert not line.startswith("::")
    assert "##[" not in line
    line.encode("utf-8")
    assert one_line(line) == line


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=60))
def test_plain_words_are_kept(text):
    assume("##[" not in text and not text.startswith("::"))
    assert one_line(text) == " ".join(text.split())


def test_of_a_long_text_the_beginning_stays_and_its_length_is_said():
    line = one_line("x" * 10_000_000)
    assert line.startswith("x" * 400)
    assert line.endswith("… (10,000,000 characters)")


@given(ANY)
@example("  ::error::forged")
@example("\u3000::error::forged")
@example("a ##[error]b  c")
@example("plain ä–  two spaces")
def test_a_line_of_a_table_keeps_its_spaces_and_is_acted_on_nowhere(text):
    line = plain_line(text)
    assert all(each.isprintable() or unicodedata.category(each) == "Zs" for each in line)
    assert len(line.splitlines()) <= 1
    assert not line.lstrip().startswith("::")
    assert "##[" not in line
    assert plain_line(line) == line
    if text.isprintable() and "::" not in text and "##[" not in text:
        assert line == text


@given(ANY)
@example("=HYPERLINK(1)")
@example(" \t@SUM(1)")
@example("-1+1")
def test_no_cell_is_a_formula(text):
    cell = text_cell(text)
    assert cell in (one_line(text), f"'{one_line(text)}")
    assert len(text_cell(f"={text * 20}")) <= MOST
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert text_cell(cell) == cell


def test_what_is_to_be_kept_is_kept():
    assert escaped("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def raise_it(error):
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad\n\x1b[31m::error::\ud800"), "ValueError: bad \\x1b[31m::error::\\ud800"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt:"),
        (Mute(), "Mute: (its text cannot be had: RuntimeError)"),
    ],
)
def test_whatever_a_job_raises_is_a_line(error, said):
    outcome = attempt(Job("job", raise_it, {"error": error}))
    assert outcome.error == said
    assert "in raise_it" in outcome.trace


def test_an_outcome_of_any_error_is_small_and_names_both_ends_of_its_traceback():
    outcome = attempt(Job("job", raise_it, {"error": ValueError("y" * 10_000_000)}))
    assert len(outcome.error) <= MOST
    assert len(outcome.trace) < 2 * TRACE + 100
    assert "in raise_it" in outcome.trace
    assert Outcome(error=passed_on("need", outcome.error)).error == passed_on("need", outcome.error)
