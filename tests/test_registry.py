"""The registry: what a method declares, what its parameters take, and how a mistake is answered."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from harness import methods as methods_package
from harness.errors import BadInput
from harness.methods.method import describe_type, method
from harness.registry import METHODS, Registry
from harness.types import Family, Need, Pool
from tests.examples import examples

ALL = METHODS.all()
FACTS = {"family": "output", "summary": "s", "paper": "-", "needs": {"members"}}


@pytest.fixture
def declare(monkeypatch):
    """Registers a function for the length of a test."""
    monkeypatch.setattr(METHODS, "_known", METHODS.all())

    def register(name, function, **changes):
        method(name, **{**FACTS, **changes})(function)
        return METHODS.get(name)

    return register


def rich(
    ingredients,
    *,
    rate: Annotated[float, Field(gt=0, le=1)],
    rounds: Annotated[int, Field(ge=1)] = 5,
    rule: Literal["mean", "vote"] = "mean",
    weights: Literal["uniform"] | list[Annotated[float, Field(ge=0)]] = "uniform",
    scale: Literal["heldout"] | float = 1.0,
    flag: bool = False,
    cap: Annotated[int, Field(lt=9)] | None = None,
):
    return ingredients, rate, rounds, rule, weights, scale, flag, cap


def refusal(chosen, parameters, place=None):
    with pytest.raises(BadInput) as caught:
        chosen.validate(parameters, place)
    message = str(caught.value)
    assert "\n" not in message
    return message


# names and discovery


def test_methods_are_found_in_a_fixed_order_each_under_its_own_name():
    assert list(ALL) == sorted(ALL)
    assert len(ALL) > 10
    assert all(name == found.name for name, found in ALL.items())


def test_every_file_of_methods_registers_at_least_one():
    """A file that discovery missed, or without the decorator, would be silently absent."""
    files = {
        info.name for info in pkgutil.walk_packages(methods_package.__path__, "harness.methods.") if not info.ispkg
    }
    assert {found.module for found in ALL.values()} == files - {"harness.methods.method"}


def test_discovery_does_not_depend_on_what_was_imported_before():
    code = (
        "import sys; [__import__(m) for m in sys.argv[1:]]; from harness.registry import METHODS; print(*METHODS.all())"
    )
    last = sorted({found.module for found in ALL.values()})[-1]
    done = subprocess.run([sys.executable, "-c", code, last], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == list(ALL)


@pytest.mark.parametrize("name", ALL)
def test_dropping_a_letter_of_a_name_still_finds_it(name):
    for i in range(len(name)):
        wrong = name[:i] + name[i + 1 :]
        if wrong in ALL:
            continue
        with pytest.raises(BadInput) as caught:
            METHODS.get(wrong, "suite.yaml:3")
        message = str(caught.value)
        assert message.startswith(f"suite.yaml:3: unknown method '{wrong}'; did you mean '{name}'?")
        assert f"(known: {', '.join(ALL)})" in message


def test_a_name_like_none_suggests_none():
    with pytest.raises(BadInput) as caught:
        METHODS.get("xyzzy")
    assert str(caught.value).startswith("unknown method 'xyzzy' (known: ")


# what is declared


@pytest.mark.parametrize("name", ALL)
def test_a_method_declares_what_a_reader_and_a_test_need(name):
    found = ALL[name]
    assert found.family in get_args(Family)
    assert found.needs <= set(get_args(Need))
    assert found.pool in ("any", "bootstrap", "checkpoints")
    assert found.summary.endswith(".")
    assert found.paper
    assert found.small
    for parameters in found.small:
        full = found.validate(parameters)
        assert isinstance(found.order_sensitive(full), bool)
        assert isinstance(found.identical_members_unchanged(full), bool)


@pytest.mark.parametrize("name", ALL)
def test_a_suite_can_name_every_parameter(name):
    """A suite takes 'pool' and 'members' for itself, and a name that holds '/', '=' or ',' could not be read back."""
    assert not {"pool", "members"} & set(ALL[name].parameters.model_fields)
    assert name.replace("_", "").isalnum()


@pytest.mark.parametrize("name", ALL)
def test_defaults_are_those_of_the_signature(name):
    signature = list(inspect.signature(ALL[name].build).parameters.values())[1:]
    defaults = {p.name: p.default for p in signature if p.default is not inspect.Parameter.empty}
    needed = {p.name for p in signature} - set(defaults)
    fields = ALL[name].parameters.model_fields
    assert list(fields) == [p.name for p in signature]
    assert {key for key, field in fields.items() if field.is_required()} == needed
    examples = {key: value for given in ALL[name].small for key, value in given.items() if key in needed}
    full = ALL[name].validate(examples)
    assert {key: value for key, value in full.items() if key not in needed} == defaults
    assert set(examples) == needed  # which may be read: of a recipe's file the document stays
    assert set(ALL[name].variant_parameters(full)) == needed


def test_no_parameter_has_a_second_default_in_its_annotation():
    """``Field(default=...)`` beside ``= ...`` would be two places for one number."""
    for found in ALL.values():
        tree = ast.parse(Path(inspect.getfile(found.build)).read_text())
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Field"]
        for call in calls:
            assert not call.args, found.module
            assert not {"default", "default_factory"} & {keyword.arg for keyword in call.keywords}, found.module


def test_a_law_is_a_truth_value_or_depends_on_the_parameters(declare):
    plain = declare("planted_plain", rich, order_sensitive=True)
    assert plain.order_sensitive({}) is True
    assert plain.identical_members_unchanged({}) is False
    bound = declare("planted_bound", rich, order_sensitive=lambda parameters: parameters["rounds"] > 3)
    assert [bound.order_sensitive({"rounds": n}) for n in (3, 4)] == [False, True]


# registering


def test_a_method_is_built_with_its_parameters_by_name(declare):
    found = declare("planted", rich)
    parameters = found.validate({"rate": 0.5, "flag": True})
    given = SimpleNamespace(pool_=Pool("pool", "independent", ()))
    built = found.apply(given, parameters)
    assert built == (given, 0.5, 5, "mean", "uniform", 1.0, True, None)
    assert found.module == __name__


def test_registering_gives_the_function_back(declare):
    assert method("planted", **FACTS)(rich) is rich


def test_one_name_belongs_to_one_module(declare):
    def other(ingredients):
        return ingredients

    declare("planted", rich)
    other.__module__ = "harness.methods.elsewhere"
    with pytest.raises(ValueError, match=f"'planted' is declared by {__name__} and harness.methods.elsewhere"):
        method("planted", **FACTS)(other)
    assert METHODS.get("planted").build is rich
    with pytest.raises(ValueError, match=r"'linear' is declared by harness.methods.output.linear and "):
        method("linear", **FACTS)(rich)


def positional(ingredients, rounds: int = 3):
    return ingredients, rounds


def variadic(ingredients, *rounds: int):
    return ingredients, rounds


def open_ended(ingredients, **rounds: int):
    return ingredients, rounds


@pytest.mark.parametrize("function", [positional, variadic, open_ended])
def test_a_parameter_that_is_not_keyword_only_is_refused(declare, function):
    with pytest.raises(TypeError, match="method 'planted': parameter 'rounds' must be keyword-only"):
        declare("planted", function)
    assert "planted" not in METHODS.all()


def test_a_parameter_without_a_type_is_refused(declare):
    def bare(ingredients, *, rounds=3):
        return ingredients, rounds

    with pytest.raises(TypeError, match="method 'planted': parameter 'rounds' has no type"):
        declare("planted", bare)


# parameters


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate": 0.5, "ruel": "vote"}, "has no parameter 'ruel'; did you mean 'rule'?"),
        ({"rate": 0.5, "xyzzy": 1}, "has no parameter 'xyzzy' (known: cap, flag, rate, rounds, rule, scale, weights)"),
        ({}, "needs the parameter 'rate'; it takes float > 0, <= 1"),
        ({"rate": 0}, "bad value 0 for 'rate'; it takes float > 0, <= 1"),
        ({"rate": 1.5}, "bad value 1.5 for 'rate'"),
        ({"rate": float("nan")}, "bad value nan for 'rate'"),
        ({"rate": float("inf")}, "bad value inf for 'rate'"),
        ({"rate": "0.5"}, "bad value '0.5' for 'rate'"),
        ({"rate": True}, "bad value True for 'rate'"),
        ({"rate": None}, "bad value None for 'rate'"),
        ({"rate": 0.5, "rounds": 0}, "bad value 0 for 'rounds'; it takes int >= 1"),
        ({"rate": 0.5, "rounds": 2.0}, "bad value 2.0 for 'rounds'"),
        ({"rate": 0.5, "rounds": True}, "bad value True for 'rounds'"),
        ({"rate": 0.5, "rule": "Mean"}, "bad value 'Mean' for 'rule'; it takes mean | vote"),
        ({"rate": 0.5, "weights": "learned"}, "bad value 'learned' for 'weights'; it takes uniform | list[float >= 0]"),
        ({"rate": 0.5, "weights": [0.5, "x"]}, "for 'weights'"),
        ({"rate": 0.5, "weights": [0.5, float("nan")]}, "for 'weights'"),
        ({"rate": 0.5, "scale": "held-out"}, "bad value 'held-out' for 'scale'; it takes heldout | float"),
        ({"rate": 0.5, "flag": "yes"}, "bad value 'yes' for 'flag'; it takes bool"),
        ({"rate": 0.5, "cap": 9}, "bad value 9 for 'cap'; it takes int < 9 | null"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_it_takes(declare, given, words):
    message = refusal(declare("planted", rich), given, "suite.yaml:7")
    assert message.startswith("suite.yaml:7: method 'planted'")
    assert words in message


def test_whole_numbers_are_taken_where_fractions_are(declare):
    found = declare("planted", rich)
    assert found.validate({"rate": 1, "scale": 2, "weights": [1, 0]})["rate"] == 1
    assert found.variant_parameters(found.validate({"rate": 1, "scale": 1})) == {"rate": 1}


def test_a_method_without_parameters_takes_none():
    assert ALL["best_single"].validate({}) == {}
    assert "has no parameter 'index'" in refusal(ALL["best_single"], {"index": 1})


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.lists(st.floats())


@given(st.sampled_from(sorted(ALL)), st.data())
@examples(150)
def test_any_value_is_taken_or_refused_in_one_line(name, data):
    found = ALL[name]
    given = data.draw(st.dictionaries(st.sampled_from([*found.parameters.model_fields, "x"]), VALUES, max_size=3))
    try:
        full = found.validate(given, "suite.yaml:7")
    except BadInput as refused:
        message = str(refused)
        assert message.startswith("suite.yaml:7: ")  # names the method, or what a parameter names in vain
        assert "\n" not in message
    else:
        assert set(full) == set(found.parameters.model_fields)
        assert found.validate(full) == full
        assert {key: full[key] for key in given} == given


def test_types_are_told_in_words(declare):
    fields = declare("planted", rich).parameters.model_fields
    assert {name: describe_type(field) for name, field in fields.items()} == {
        "rate": "float > 0, <= 1",
        "rounds": "int >= 1",
        "rule": "mean | vote",
        "weights": "uniform | list[float >= 0]",
        "scale": "heldout | float",
        "flag": "bool",
        "cap": "int < 9 | null",
    }


@pytest.mark.parametrize("body", ["import nothing_of_this_name", "raise SystemExit(3)", "1 / 0"])
def test_a_plug_in_that_cannot_be_loaded_is_one_line_that_names_it(tmp_path, monkeypatch, body):
    facts = tmp_path / "broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[test.broken]\nbroken = broken_plug_in\n")
    (tmp_path / "broken_plug_in.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=r"broken: broken_plug_in.*uninstall"):
        Registry("thing", "harness.gate", "test.broken").all()
