"""Settings of recipes mean what mergekit takes them to mean, for every name, place and level."""

import pydantic
import pytest
import yaml as pyyaml
from hypothesis import example, given
from hypothesis import strategies as st
from mergekit.config import ParameterSetting, evaluate_setting
from mergekit.merge_methods.base import MISSING, ParameterScope, ParameterSpec
from mergekit.parameter_resolver import resolve_parameter

from harness.errors import BadInput
from harness.recipes.parameters import Unset, convert, evaluate, read_settings, resolve
from harness.streaming.rules import REQUIRED, RULES, Parameter, Rule
from harness.strict.yaml import load
from tests.examples import examples

KINDS = {"fraction": float, "count": int, "switch": bool}
RULE = Rule("made_up", "", "", tuple(Parameter(name, kind, "source") for name, kind in KINDS.items()))
PARAMETERS = {parameter.name: parameter for parameter in RULE.parameters}
NAMES = ("model.layers.0.self_attn.q_proj.weight", "model.layers.11.mlp.up_proj.weight", "lm_head.weight")

NUMBERS = st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["1e-5", "0.25", " 3 ", "-1E2", True, False])
SCALARS = {
    "fraction": NUMBERS,
    "count": st.integers(-5, 5) | st.sampled_from(["7", 2.0, True]),
    "switch": st.booleans() | st.sampled_from(["true", "on", "NO", "0", 1, 0, 1.0]),
}
FILTERS = st.none() | st.sampled_from(["*", "self_attn", "mlp", "layers.1", "lm_head", "nowhere"])


def settings_of(name):
    values = SCALARS[name] | st.lists(SCALARS[name], min_size=1, max_size=5)
    case = st.fixed_dictionaries({"value": values}, optional={"filter": FILTERS})
    return values | case | st.lists(case, min_size=1, max_size=4)


NAMED = st.sampled_from(list(KINDS)).flatmap(lambda name: st.tuples(st.just(name), settings_of(name)))
PLACES = st.sampled_from([0, 1, 0.5]) | st.floats(0, 1)


def ours(name, setting):
    return read_settings(document({name: setting}), ("parameters",), RULE)[name]


def document(settings):
    return load(pyyaml.safe_dump({"parameters": settings}, width=1000), "merge.yml")


def theirs(setting):
    return pydantic.TypeAdapter(ParameterSetting).validate_python(setting)


def same(found, expected):
    return found == expected and type(found) is type(expected)


def refused_or(compute):
    """A result, or the fact that there is none: a whole number was asked for between two others."""
    try:
        return compute()
    except (BadInput, pydantic.ValidationError):
        return "refused"


@given(NAMED, st.sampled_from(NAMES), PLACES)
@example(("fraction", [0, 0.5, 0.3, 0.7, 1]), NAMES[0], 0.3)
@example(("fraction", [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}]), NAMES[1], 0.25)
@example(("switch", ["on", "off"]), NAMES[2], 0.99)
@example(("count", [1, 2]), NAMES[2], 0.5)
@examples(100)
def test_a_setting_is_worth_what_it_is_to_mergekit(named, tensor, t):
    name, setting = named
    parameter = PARAMETERS[name]
    spec = ParameterSpec(name, parameter.kind, ParameterScope.INPUT)
    read = ours(name, setting)
    expected = refused_or(lambda: evaluate_setting(tensor, theirs(setting), t, validate=spec.validate))
    assert same(refused_or(lambda: evaluate(read, parameter, tensor, t)), expected)


@given(
    st.sampled_from(list(KINDS)).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(st.none() | st.just({}) | settings_of(name), max_size=4))
    ),
    st.sampled_from([REQUIRED, 0, 1]),
    st.sampled_from(NAMES),
    PLACES,
)
@examples(80)
def test_the_first_level_that_has_a_value_for_a_tensor_counts_as_in_mergekit(named, default, tensor, t):
    name, levels = named
    kind = KINDS[name]
    default = default if default is REQUIRED else kind(default)
    parameter = Parameter(name, kind, "source", default)
    spec = ParameterSpec(name, kind, ParameterScope.INPUT, MISSING if default is REQUIRED else default)

    def expected():
        said = [{name: theirs(level)} if level not in (None, {}) else level for level in levels]
        return resolve_parameter(spec, said, tensor_name=tensor, t=t)

    def found():
        said = [{name: ours(name, level)} if level not in (None, {}) else level for level in levels]
        return resolve(parameter, said, tensor, t)

    try:
        value = refused_or(expected)
    except RuntimeError as lacking:
        assert "Missing required parameter" in str(lacking)
        with pytest.raises(Unset):
            found()
    else:
        assert same(refused_or(found), value)


@given(st.sampled_from(list(KINDS)), st.none() | st.booleans() | NUMBERS | st.text(max_size=6))
@example("fraction", "nan")
@example("fraction", "-Infinity")
@example("count", "1.5")
@examples(60)
def test_a_scalar_is_read_as_mergekit_reads_it_and_what_is_not_finite_is_refused(name, value):
    spec = ParameterSpec(name, KINDS[name], ParameterScope.INPUT)
    expected = refused_or(lambda: spec.validate(value))
    if isinstance(expected, float) and not abs(expected) < float("inf"):
        expected = "refused"
    assert same(refused_or(lambda: convert(PARAMETERS[name], value)), expected)


FAULTS = {
    "unknown": (
        "{densty: 1}",
        1,
        "the method 'ties' has no parameter 'densty'; did you mean 'density'? (known: density",
    ),
    "text": ("{weight: much}", 1, "bad value 'much' for 'weight'; it should be a number"),
    "not finite": ('{weight: "nan"}', 1, "bad value 'nan' for 'weight'; it should be a number"),
    "nothing": ("{weight: }", 1, "bad value None for 'weight'; it should be a number, a list of such"),
    "no truth value": ("{normalize: 3}", 1, "bad value 3 for 'normalize'; it should be true or false"),
    "an empty list": ("\n  weight: []", 2, "'weight' is empty"),
    "an empty list of a case": ("\n  weight:\n    - value: []", 3, "'weight' is empty"),
    "one of a list": ("\n  weight:\n    - 1\n    - x", 4, "bad value 'x' for 'weight'"),
    "a list in a list": ("\n  weight:\n    - 1\n    - [2]", 4, "bad value [2] for 'weight'"),
    "a case among numbers": (
        "\n  weight:\n    - filter: mlp\n      value: 1\n    - 2",
        5,
        "values with and without 'filter'",
    ),
    "a case without value": ("\n  weight:\n    - filter: mlp\n    - value: 1", 3, "the key 'value' is missing"),
    "a key of a case": (
        "\n  weight:\n    - fliter: mlp\n      value: 1",
        3,
        "unknown key 'fliter'; did you mean 'filter'?",
    ),
    "the value of a case": ("\n  weight:\n    filter: mlp\n    value: x", 4, "bad value 'x' for 'weight'"),
    "a case in a case": ("\n  weight:\n    value: {value: 1}", 3, "bad value {'value': 1} for 'weight'"),
}


@pytest.mark.parametrize(("text", "line", "words"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_has_its_line(text, line, words):
    with pytest.raises(BadInput) as caught:
        read_settings(load(f"parameters: {text}", "merge.yml"), ("parameters",), RULES["ties"])
    assert str(caught.value).startswith(f"merge.yml:{line}: ")
    assert words in str(caught.value)
