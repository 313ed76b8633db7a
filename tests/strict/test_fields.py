"""What the fields of strict models say of themselves."""

from typing import Annotated

from pydantic import Field

from harness.strict.fields import Strict, described


def test_keys_are_described_with_those_of_models_inside():
    class Inner(Strict):
        a: Annotated[str, Field(description="of a")] = "x"
        b: Annotated[int | None, Field(description="of b")] = None
        c: int = 3

    class Outer(Strict):
        inner: Inner
        d: Annotated[str, Field(description="of d")]

    assert list(described(Outer)) == [("a", "of a (default: x)"), ("b", "of b"), ("d", "of d")]
