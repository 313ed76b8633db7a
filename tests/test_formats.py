"""Text from a run as it is shown."""

import pytest

from harness import formats


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ä–", "plain ä–"), ("a\x1b[31m", "a\ufffd[31m"), ("\x00\n", "\ufffd\ufffd")],
)
def test_control_characters_are_replaced(text, shown):
    assert formats.printable(text) == shown
