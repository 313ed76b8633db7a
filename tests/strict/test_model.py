"""Strict models of YAML documents; tests/test_suite.py and tests/gate/test_policy.py have the faults of real ones."""

import pydantic
import pytest

from harness.errors import BadInput
from harness.strict import yaml
from harness.strict.model import STRICT, read_model


class Inner(pydantic.BaseModel):
    model_config = STRICT
    count: int = 0


class Outer(pydantic.BaseModel):
    model_config = STRICT
    name: str
    one: Inner | str = "none"
    many: dict[str, list[Inner]] = {}
    size: float = 1.0


def read(text):
    return read_model(Outer, yaml.load(text, "f"), "an outer", empty={"count": "there are none"})


def test_what_is_given_is_taken_as_it_is():
    assert read("name: x\none: {count: 2}\nmany: {a: [{count: 1}]}\nsize: 3") == Outer(
        name="x", one=Inner(count=2), many={"a": [Inner(count=1)]}, size=3.0
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "f:1: an outer holds keys and values"),
        ("one: x", "f:1: the key 'name' is missing"),
        ("name: x\nnmae: y", "f:2: unknown key 'nmae'; did you mean 'name'? (known: many, name, one, size)"),
        ("name: x\none: {cuont: 1}", "f:2: unknown key 'cuont'; did you mean 'count'? (known: count)"),
        ("name: x\nmany:\n a:\n - {cuont: 1}", "f:4: unknown key 'cuont'; did you mean 'count'? (known: count)"),
        ("name: x\nmany:\n a:\n - {count: x}", "f:4: bad value 'x' for 'count'; it should be a valid integer"),
        ("name: 1\nsize: x", "f:1: bad value 1 for 'name'; it should be a valid string"),
        ("size: true\nname: x", "f:1: bad value True for 'size'; it should be a valid number"),
    ],
)
def test_the_first_fault_is_told_with_its_place(text, message):
    with pytest.raises(BadInput) as raised:
        read(text)
    assert str(raised.value) == message
