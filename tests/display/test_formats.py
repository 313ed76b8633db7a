"""Text and numbers as they are shown, and amounts as they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.display import formats


@pytest.mark.parametrize(
    ("text", "count"),
    [("24GB", 24e9), ("24 GiB", 24 * 2**30), ("1.5g", 1.5e9), ("24e9", 24e9), ("80_000_000", 8e7), ("512MiB", 2**29)],
)
def test_amounts_of_memory_as_people_write_them(text, count):
    assert formats.read_bytes(text) == count


@given(st.integers(1, 10**15))
def test_a_plain_number_is_itself(count):
    assert formats.read_bytes(str(count)) == pytest.approx(count, rel=1e-12)


@pytest.mark.parametrize("text", ["1e400GB", "1e400", "", "GB", "-3GB", "0", "24XB", "nan", "1e", "24 parsecs"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="an amount of memory"):
        formats.read_bytes(text)
