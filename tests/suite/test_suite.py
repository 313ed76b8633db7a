"""Suite files: the variants they ask for and their names, and each fault in one line with its place."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.pools.folders import HfPool
from harness.pools.pool import member_digests
from harness.pools.trained import TrainPool, plan_pool
from harness.registry import KINDS, METHODS, SOURCES
from harness.strict import yaml as strict_yaml
from harness.suite.schema import json_schema
from harness.suite.suite import read_suite, suite_files, variant_name
from tests.examples import examples

SUITES = suite_files(Path(__file__).parents[2] / "suites")
SMOKE = Path(__file__).parents[2] / "suites/smoke.yaml"

BASE = """suite: t
task: digits
pool:
  train: {architecture: mlp, start: independent, members: 4}
pools:
  other:
    train: {architecture: mlp, start: independent, members: 2}
  run:
    train: {start: independent, checkpoints: 3}
"""


@pytest.fixture
def suite_at(tmp_path):
    """Reads a suite from its text."""

    def read(text):
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return read_suite(path)

    return read


@pytest.fixture
def refusal(suite_at):
    """The line of the file, and the message, with which a text is refused."""

    def read(text):
        with pytest.raises(BadInput) as caught:
            suite_at(text)
        message = str(caught.value)
        assert "\n" not in message
        found = re.fullmatch(r".*/suite\.yaml:(\d+): (.*)", message)
        assert found, message
        return int(found[1]), found[2]

    return read


def names(suite):
    return [variant.name for variant in suite.variants]


def methods(*items):
    return BASE + "methods:\n" + "".join(f"  - {item}\n" for item in ("best_single", *items))


# variants


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("linear", ["linear"]),
        ("linear: {}", ["linear"]),
        ("linear:", ["linear"]),
        ("linear: {weights: uniform}", ["linear"]),
        ("linear: {weights: learned}", ["linear/weights=learned"]),
        ("linear: {weights: [uniform, learned]}", ["linear", "linear/weights=learned"]),
        ("linear: {weights: [[0.5, 0.5, 0, 0]]}", ["linear/weights=0.5:0.5:0:0"]),
        ("linear: {weights: [[1.0, 0, 0, 0], uniform]}", ["linear/weights=1:0:0:0", "linear"]),
        ("ties: {density: 0.2, scale: 1.0}", ["ties"]),
        ("ties: {scale: 1, density: 0.25}", ["ties/density=0.25"]),
        ("ties: {scale: heldout, density: 0.5}", ["ties/density=0.5,scale=heldout"]),
        ("member: {index: [0, 3]}", ["member/index=0", "member/index=3"]),
        ("expert_anti_expert: {anti: worst, a: 0.5}", ["expert_anti_expert/a=0.5,anti=worst"]),
        ("linear: {pool: other}", ["other:linear"]),
        ("linear: {pool: main}", ["linear"]),
        ("linear: {pool: [main, other]}", ["linear", "other:linear"]),
        ("linear: {members: all}", ["linear"]),
        ("linear: {members: [3, 0]}", ["linear/members=3+0"]),
        ("linear: {members: [[0, 1], [1, 0]]}", ["linear/members=0+1", "linear/members=1+0"]),
        ("linear: {members: [0, 1], weights: learned}", ["linear/members=0+1,weights=learned"]),
        (
            "ties: {scale: [1.0, heldout], density: [0.1, 0.2]}",
            ["ties/density=0.1", "ties", "ties/density=0.1,scale=heldout", "ties/scale=heldout"],
        ),
        (
            "linear: {pool: [main, other], members: [[0], [1]], weights: [uniform, learned]}",
            [
                f"{pool}linear/members={member}{weights}"
                for pool in ("", "other:")
                for member in (0, 1)
                for weights in ("", ",weights=learned")
            ],
        ),
        ("checkpoint_average: {pool: run, n: 2}", ["run:checkpoint_average/n=2"]),
    ],
)
def test_an_item_asks_for_a_variant_for_each_combination_of_its_lists(suite_at, item, expected):
    pools = dict.fromkeys(name.partition(":")[0] for name in expected if ":" in name.partition("/")[0])
    assert names(suite_at(methods(item))) == ["best_single", *expected, *(f"{pool}:best_single" for pool in pools)]


def test_every_pool_that_is_used_has_a_reference_of_its_own(suite_at):
    suite = suite_at(methods("linear: {pool: [main, other]}"))
    assert names(suite) == ["best_single", "linear", "other:linear", "other:best_single"]
    assert [suite.reference_of(pool) for pool in suite.pools] == ["best_single", "other:best_single", "run:best_single"]
    added = suite.variants[-1]
    listed = suite_at(methods("linear: {pool: [main, other]}", "best_single: {pool: other}"))
    assert listed.variants[-1] == added
    assert (added.pool, added.members, added.parameters) == ("other", None, METHODS.get("best_single").validate({}))


def test_the_suites_reference_is_that_of_its_own_pool_whichever_that_is(suite_at):
    suite = suite_at(methods("linear: {pool: [main, other]}", "uniform_soup") + "reference: other:linear\n")
    assert (suite.reference_of("other"), suite.reference_of("main")) == ("other:linear", "best_single")
    assert names(suite) == ["best_single", "linear", "other:linear", "uniform_soup"]
    suite = suite_at(BASE + "methods: [linear, member: {pool: other, index: 0}]\nreference: other:member/index=0\n")
    assert names(suite) == ["linear", "other:member/index=0", "best_single"]
    assert suite.reference_of("other") == "other:member/index=0"


def test_a_variant_holds_what_its_name_says(suite_at):
    found = suite_at(methods("ties: {pool: other, members: [1, 0], density: 0.5}")).variants[1]
    assert (found.method, found.pool, found.members) == ("ties", "other", (1, 0))
    assert found.parameters == METHODS.get("ties").validate({"density": 0.5})
    plain = suite_at(methods("ties")).variants[1]
    assert (plain.pool, plain.members, plain.parameters) == ("main", None, METHODS.get("ties").validate({}))


@given(st.data())
@examples(60)
def test_a_name_is_sorted_and_shows_only_what_is_not_the_default(data):
    method = data.draw(st.sampled_from([m for m in METHODS.all().values() if m.small]))
    parameters = method.validate(data.draw(st.sampled_from(list(method.small))))
    members = data.draw(st.none() | st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
    pool = data.draw(st.sampled_from(["main", "other"]))
    name = variant_name(method, parameters, pool, members)
    prefix, _, shown = name.partition("/")
    assert prefix == ("other:" if pool == "other" else "") + method.name
    keys = [part.split("=")[0] for part in shown.split(",") if part]
    assert keys == sorted(keys)
    defaults = {key: field.default for key, field in method.parameters.model_fields.items()}
    changed = {key for key, value in parameters.items() if defaults[key] != value}
    assert set(keys) == changed | ({"members"} if members else set())
    assert re.fullmatch(r"[a-z0-9_:/=,.+-]+", name)


# faults in the methods


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("linaer", ["unknown method 'linaer'; did you mean 'linear'?", "known: align_average, bagging"]),
        ("linear: {weigths: learned}", ["'linear' has no parameter 'weigths'; did you mean 'weights'?"]),
        ("linear: {weights: learnt}", ["bad value 'learnt' for 'weights'", "uniform | learned | contextual"]),
        ("linear: {pool: othr}", ["unknown pool 'othr'; did you mean 'other'?", "known: main, other, run"]),
        ("linear: {pool: 3}", ["unknown pool '3'"]),
        ("linear: {pool: {a: b}}", ["unknown pool"]),
        ("linear: {pool: [[main]]}", ["unknown pool"]),
        ("linear: {pool: null}", ["unknown pool"]),
        ("linear: {pool: []}", ["'pool' is an empty list"]),
        ("linear: {weights: []}", ["'weights' is an empty list"]),
        ("linear: {members: []}", ["'members' is an empty list"]),
        ("linear: {members: [[]]}", ["bad members []", "positions from 0"]),
        ("linear: {members: [0, 0]}", ["bad members [0, 0]", "different positions"]),
        ("linear: {members: [-1]}", ["bad members [-1]"]),
        ("linear: {members: [true]}", ["bad members [True]"]),
        ("linear: {members: [0.0]}", ["bad members [0.0]"]),
        ("linear: {members: 2}", ["bad members 2"]),
        ("linear: {members: some}", ["bad members 'some'"]),
        ("linear: {members: [[0, 1], 2]}", ["bad members"]),
        ("linear: {members: [0, 4]}", ["pool 'main' has 4 members, counted from 0"]),
        ("linear: {members: [[0], [3]], pool: [main, other]}", ["pool 'other' has 2 members, counted from 0"]),
        ("checkpoint_average: {pool: run, members: [3]}", ["pool 'run' has 3 members, counted from 0"]),
        ("linear: {weights: [0.5, 0.5]}", ["a list means one variant each", "[[0.5, 0.5]]"]),
        ("linear: {weights: no}", ["'no' is not a truth value in YAML 1.2"]),
        ("ties: {density: .nan}", ["number '.nan' is not finite"]),
        ("ties: {scale: [1.0, -.inf]}", ["number '-.inf' is not finite"]),
        ("ties: {density: 0}", ["bad value 0 for 'density'", "float > 0, <= 1"]),
        ("ties: {density: true}", ["bad value True for 'density'"]),
        ("ties: {density: '0.2'}", ["bad value '0.2' for 'density'"]),
        ("member", ["method 'member' needs the parameter 'index'"]),
        ("member: {index: 1.0}", ["bad value 1.0 for 'index'"]),
        ("{linear: {}, ties: {}}", ["one method"]),
        ("{}", ["one method"]),
        ("3", ["bad value 3 for 'methods'"]),
        ("linear: 3", ["bad value 3 for 'linear'"]),
        ("linear: [learned]", ["bad value ['learned'] for 'linear'"]),
        ("best_single", ["variant 'best_single' is asked for twice (first: "]),
        ("linear: {weights: [uniform, learned, uniform]}", ["variant 'linear' is asked for twice"]),
        ("linear: {pool: [other, other]}", ["variant 'other:linear' is asked for twice"]),
        ("ties: {scale: [1, 1.0]}", ["variant 'ties' is asked for twice"]),
    ],
)
def test_a_faulty_item_is_refused_in_its_line(refusal, item, words):
    line, message = refusal(methods("majority_vote", item, "greedy_soup"))
    assert line == BASE.count("\n") + 4
    for word in words:
        assert word in message


def test_a_variant_asked_for_twice_names_both_places(refusal):
    block = "linear:\n      members: all\n      weights: [uniform, learned]"
    text = methods("linear: {weights: learned}", "ties", block)
    first = BASE.count("\n") + 3
    line, message = refusal(text)
    assert f"'linear/weights=learned' is asked for twice (first: {message.split('first: ')[1]}" in message
    assert message.endswith(f"suite.yaml:{first})")
    assert line == first + 4


def test_a_fault_in_a_block_is_placed_at_its_own_key(refusal):
    text = methods("linear:\n      weights: uniform\n      pool: othr")
    assert refusal(text)[0] == BASE.count("\n") + 5
    text = methods("linear:\n      weights: uniform\n      members: [9, 9]")
    assert refusal(text)[0] == BASE.count("\n") + 5


# faults in the rest


def pool(text):
    """A suite whose third pool is this."""
    return BASE + f"  third:\n    train: {text}\nmethods: [best_single]\n"


POOL_LINE = BASE.count("\n") + 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{start: shared_base, architecture: [mlp, small_cnn], members: 2}", ["one shared base"]),
        ("{start: independent, checkpoints: 2, bootstrap: true}", ["drop 'bootstrap'"]),
        ("{start: independent, checkpoints: 2, members: 3}", ["drop 'members'"]),
        ("{start: independent, checkpoints: 2, architecture: [mlp, small_cnn]}", ["one architecture"]),
        ("{start: independent, architecture: [mlp, small_cnn]}", ["a pool of 1 has no member for some"]),
        ("{start: independent, checkpoints: 7}", ["the last 7 checkpoints of a run of 6 epochs"]),
        ("{start: independent, checkpoints: 4, epochs: 3}", ["the last 4 checkpoints of a run of 3 epochs"]),
        ("{start: independent, checkpoints: 4, vary: {epochs: [3, 9]}}", ["the last 4 checkpoints of a run of 3"]),
        ("{start: independent, checkpoints: 1}", ["bad value 1 for 'checkpoints'"]),
        ("{start: independent, members: 0}", ["the pool is empty"]),
        ("{start: independent, members: -1}", ["bad value -1 for 'members'"]),
        ("{start: independent, members: 2.0}", ["bad value 2.0 for 'members'"]),
        ("{start: independent, members: true}", ["bad value True for 'members'"]),
        ("{start: independent, bootstrap: 1}", ["bad value 1 for 'bootstrap'"]),
        ("{start: independent, bootstrap: no}", ["'no' is not a truth value"]),
        ("{start: independent, vary: {lr: []}}", ["'lr' is empty"]),
        ("{start: independent, vary: {lr: [0]}}", ["bad value 0 for 'lr'"]),
        ("{start: independent, vary: {lr: [.inf]}}", ["not finite"]),
        ("{start: independent, vary: {augment: [-0.1]}}", ["bad value -0.1 for 'augment'"]),
        ("{start: independent, vary: {rl: [0.1]}}", ["unknown key 'rl'; did you mean 'lr'?"]),
        ("{start: independent, architecture: small_cn}", ["architecture 'small_cn'; did you mean 'small_cnn'?"]),
        ("{start: independent, architecture: [mlp, mpl], members: 2}", ["architecture 'mpl'; did you mean 'mlp'?"]),
        ("{start: shared}", ["bad value 'shared' for 'start'"]),
        ("{strat: independent}", ["unknown key 'strat'; did you mean 'start'?"]),
        ("{members: 2}", ["the key 'start' is missing"]),
        ("3", ["bad value 3 for 'train'"]),
    ],
)
def test_a_faulty_pool_is_refused_in_its_line(refusal, text, words):
    line, message = refusal(pool(text))
    assert line == POOL_LINE
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("task: digits", "task: digitz", 2, ["unknown task 'digitz'; did you mean 'digits'?", "mnist5k"]),
        ("task: digits", "", 1, ["the key 'task' is missing"]),
        ("task: digits", "taks: digits", 2, ["unknown key 'taks'; did you mean 'task'?"]),
        ("suite: t", "suite: T", 1, ["bad value 'T' for 'suite'"]),
        ("suite: t", "suite: t\nquestoin: why", 2, ["unknown key 'questoin'; did you mean 'question'?"]),
        ("suite: t", "suite: t\nseeds: []", 2, ["'seeds' is empty"]),
        ("suite: t", "suite: t\nseeds: [1, 0, 1]", 2, ["a seed is named twice"]),
        ("suite: t", "suite: t\nseeds: [-1]", 2, ["bad value -1 for 'seeds'"]),
        ("suite: t", "suite: t\nseeds: [true]", 2, ["bad value True for 'seeds'"]),
        ("suite: t", "suite: t\nreference: best_singel", 2, ["reference 'best_singel'; did you mean 'best_single'?"]),
        ("suite: t", "suite: t\nreference: linear", 2, ["unknown reference 'linear'", "known: best_single"]),
        ("suite: t", "suite: t\ncorrelate: {subsets: {sizes: [1]}}", 2, ["bad value 1 for 'sizes'"]),
        ("suite: t", "suite: t\ncorrelate: {pools: [othr], subsets: {sizes: [2]}}", 2, ["did you mean 'other'?"]),
        ("suite: t", "suite: t\nscore: acuracy", 2, ["unknown score 'acuracy'; did you mean 'accuracy'?"]),
        ("suite: t", "suite: t\nscore: [nll, nl]", 2, ["unknown score 'nl'; did you mean 'nll'?"]),
        ("suite: t", "suite: t\nscore: ece", 2, ["unknown score 'ece'", "known: accuracy, bits_per_byte, brier, nll"]),
        ("suite: t", "suite: t\nscore: [nll, accuracy, nll]", 2, ["a score is named twice"]),
        ("suite: t", "suite: t\nscore: []", 2, ["bad value [] for 'score'", "a list of metrics"]),
        ("suite: t", "suite: t\nscore: {nll: 1}", 2, ["bad value {'nll': 1} for 'score'", "a list of metrics"]),
        ("suite: t", "suite: t\nequivalence: {nl: 0.1}", 2, ["unknown score 'nl'; did you mean 'nll'?"]),
        ("suite: t", "suite: t\nequivalence: {nll: near}", 2, ["bad value 'near' for 'nll'", "1 %"]),
        ("suite: t", "suite: t\nequivalence: {nll: -0.1}", 2, ["bad value -0.1 for 'nll'"]),
        ("suite: t", "suite: t\nequivalence: {nll: -1 %}", 2, ["bad value '-1 %' for 'nll'"]),
        ("suite: t", "suite: t\nequivalence: {nll: true}", 2, ["bad value True for 'nll'"]),
        ("suite: t", "suite: t\nequivalence: {nll: .inf}", 2, ["not finite"]),
        ("suite: t", "suite: t\nequivalence: 0.01", 2, ["bad value 0.01 for 'equivalence'"]),
        ("suite: t", "suite: t\ncost: {latncy: true}", 2, ["unknown key 'latncy'; did you mean 'latency'?"]),
        ("suite: t", "suite: t\ncost: {latency: off}", 2, ["'off' is not a truth value"]),
        ("  other:", "  main:", 6, ["the name 'main' is taken"]),
        ("  other:", "  Other:", 6, ["'Other'"]),
        ("[best_single]", "[]", 10, ["'methods' is empty"]),
        ("methods: [best_single]", "", 1, ["the key 'methods' is missing"]),
    ],
)
def test_a_faulty_suite_is_refused_in_its_line(refusal, old, new, line, words):
    text = BASE + "methods: [best_single]\n"
    assert old in text
    found, message = refusal(text.replace(old, new, 1))
    assert found == line
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["just text", "[1, 2]", "3", "null"])
def test_a_file_that_is_no_mapping_is_refused(refusal, text):
    assert refusal(text)[0] == 1


VALUES = [None, True, False, 0, -1, 3, 0.5, "", "x", "main", "all", "linear", [], {}, [[]], [{}], {"a": 1}]


@given(st.data())
@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_put_in_a_suite_is_read_or_refused_in_one_line(suite_at, data):
    """Anything but ``BadInput`` would be a traceback."""
    document = strict_yaml.read(SMOKE).value
    holder, key = document, data.draw(st.sampled_from(list(document)))
    while isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
    if isinstance(holder, dict) and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["members", "pool", "weights", "x", "", key]))
    holder[key] = data.draw(st.sampled_from(VALUES))
    try:
        suite = suite_at(json.dumps(document, indent=1))
    except BadInput as refused:
        message = str(refused)
        place = re.match(r".*/suite\.yaml:\d+: ", message)
        assert place, message
        assert "\n" not in message
    else:
        assert len(set(names(suite))) == len(names(suite)) >= 1
        assert suite.file.reference in names(suite)


# pools


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"start": "shared_base"}, "fine_tunes"),
        ({"start": "independent"}, "independent"),
        ({"start": "independent", "architecture": ["mlp", "small_cnn"], "members": 2}, "architectures"),
        ({"start": "independent", "bootstrap": True}, "bootstrap"),
        ({"start": "independent", "checkpoints": 3}, "checkpoints"),
    ],
)
def test_the_kind_of_a_pool_says_how_its_members_differ(fields, kind):
    found = TrainPool(**fields)
    assert found.kind == kind
    assert found.contradiction() is None


@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=2), st.integers(2, 4))
@examples(40)
def test_a_pool_of_checkpoints_without_a_contradiction_has_them_all(epochs, varied, checkpoints):
    recipe = TrainPool(start="independent", epochs=epochs, checkpoints=checkpoints, vary={"epochs": varied})
    plan = plan_pool("run", recipe, data="data", shape={"side": 8, "classes": 10}, seed=0)
    trained = plan.members[0].schedule.epochs
    assert (recipe.contradiction() is None) == (trained >= checkpoints)
    assert len(set(member_digests(plan))) == checkpoints


# the suites that come with it


def test_there_are_suites():
    assert {"mnist", "smoke"} <= {path.stem for path in SUITES}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_that_comes_with_it_is_read_and_named_after_its_file(path):
    suite = read_suite(path)
    assert suite.file.suite == path.stem
    assert suite.file.question
    asked = {next(iter(item)) if isinstance(item, dict) else item for item in suite.file.methods}
    assert {variant.method for variant in suite.variants} == asked | {"best_single"}
    if path.stem in ("mnist", "smoke"):  # the two that are to show everything
        assert {variant.pool for variant in suite.variants} == set(suite.pools)
        assert {METHODS.get(name).family for name in asked} >= {"single", "output", "weights", "trained"}


def test_a_task_with_one_split_refuses_one_for_each_seed(refusal, suite_at):
    assert suite_at(BASE + "split: per_seed\nmethods: [best_single]\n").file.split == "per_seed"
    text = BASE.replace("task: digits", "task: {lm_eval: [sciq]}").replace("mlp", "tiny_llama")
    text = text.replace("{start", "{architecture: tiny_llama, start")
    line, message = refusal(text + "split: per_seed\nmethods: [best_single]\n")
    assert (line, message) == (
        len(text.splitlines()) + 1,
        "the task 't' has one split, which all seeds share; drop 'split', or say 'shared'",
    )


@pytest.mark.parametrize("name", ["mnist", "domains", "h100"])
def test_a_suite_keeps_its_digest_as_keys_are_added(name, suite_at):
    recorded = json.loads((Path(__file__).parents[2] / f"results/reference/{name}/run.json").read_text())["suite"]
    assert suite_at(recorded["yaml"]).digest == recorded["digest"]


def test_a_digest_follows_the_meaning_and_not_the_writing(suite_at):
    text = methods("linear: {weights: [uniform, learned]}")
    first = suite_at(text).digest
    assert suite_at("# why\n" + text.replace("suite: t", "suite:   't'  # short")).digest == first
    assert suite_at(text + "split: shared\n").digest == first  # runs are older than the key
    assert not {"split", "score", "equivalence"} & suite_at(text).file.model_dump(mode="json").keys()
    for usual in ("score: accuracy", "score: [accuracy]", "equivalence: {}"):
        assert suite_at(f"{text}{usual}\n").digest == first
    others = ["split: per_seed", "score: nll", "score: [accuracy, nll]", "equivalence: {nll: 1 %}"]
    assert len({first, *(suite_at(f"{text}{line}\n").digest for line in others)}) == 1 + len(others)
    assert suite_at(text + "score: [nll]\n").digest == suite_at(text + "score: nll\n").digest
    assert suite_at(text.replace("learned", "contextual")).digest != first
    assert suite_at(text.replace("members: 4", "members: 3")).digest != first


# the JSON schema

TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
}
NOTES = {"title", "description", "default", "examples", "$defs"}


def conforms(value, schema, root):
    """Whether a value conforms to a JSON schema, of which every keyword that it uses must be known here."""
    rest = {key: rule for key, rule in schema.items() if key not in NOTES}
    sized, number = isinstance(value, list), TYPES["number"](value)
    fields = value if isinstance(value, dict) else {}
    properties, patterns = rest.pop("properties", {}), rest.pop("patternProperties", {})
    extra = rest.pop("additionalProperties", True)
    for key, inner in fields.items():
        rules = [properties[key]] if key in properties else [r for p, r in patterns.items() if re.search(p, key)]
        rules = rules or [extra if isinstance(extra, dict) else {} if extra else {"anyOf": []}]
        if not all(conforms(inner, rule, root) for rule in rules):
            return False
    checks = {
        "$ref": lambda rule: conforms(value, root["$defs"][rule.removeprefix("#/$defs/")], root),
        "type": lambda rule: any(TYPES[t](value) for t in ([rule] if isinstance(rule, str) else rule)),
        "anyOf": lambda rule: any(conforms(value, option, root) for option in rule),
        "enum": lambda rule: value in rule,
        "const": lambda rule: value == rule,
        "required": lambda rule: not isinstance(value, dict) or set(rule) <= set(value),
        "items": lambda rule: not sized or all(conforms(item, rule, root) for item in value),
        "minItems": lambda rule: not sized or len(value) >= rule,
        "minProperties": lambda rule: not isinstance(value, dict) or len(value) >= rule,
        "propertyNames": lambda rule: all(conforms(key, rule, root) for key in fields),
        "minLength": lambda rule: not isinstance(value, str) or len(value) >= rule,
        "minimum": lambda rule: not number or value >= rule,
        "maximum": lambda rule: not number or value <= rule,
        "exclusiveMinimum": lambda rule: not number or value > rule,
        "exclusiveMaximum": lambda rule: not number or value < rule,
        "pattern": lambda rule: not isinstance(value, str) or re.search(rule, value) is not None,
    }
    return all(checks[key](rule) for key, rule in rest.items())


@pytest.fixture(scope="module")
def schema():
    found = json_schema()
    assert json.loads(json.dumps(found)) == found
    return found


@pytest.fixture(scope="module")
def allowed(schema):
    """Whether the schema allows a document; by jsonschema too, where it is installed."""
    try:
        import jsonschema
    except ImportError:
        return lambda document: conforms(document, schema, schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def both(document):
        assert validator.is_valid(document) == conforms(document, schema, schema)
        return validator.is_valid(document)

    return both


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_schema_allows_the_suites_that_come_with_it(allowed, path):
    assert allowed(strict_yaml.read(path).value)


@pytest.mark.parametrize(
    "item", ["linear", "linear:", "linear: {weights: [[0.5, 0.5]]}", "ties: {density: [0.1, 0.2], pool: [main, other]}"]
)
def test_the_schema_allows_what_the_reader_reads(allowed, suite_at, item):
    suite_at(methods(item))
    assert allowed(yaml.safe_load(methods(item)))


@pytest.mark.parametrize(
    "item", ["linaer", "linear: {weigths: learned}", "linear: {weights: learnt}", "ties: {density: 2}", "linear: 3"]
)
def test_the_schema_forbids_what_the_reader_refuses(allowed, refusal, item):
    refusal(methods(item))
    assert not allowed(yaml.safe_load(methods(item)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("task: digits", "task: digitz"),
        ("task: digits", ""),
        ("suite: t", "suite: t\nquestoin: why"),
        ("suite: t", "suite: t\nseeds: []"),
        ("members: 4", "members: 0"),
        ("members: 4", "members: 4, vary: {lr: [0]}"),
        ("start: independent, members: 4", "members: 4"),
    ],
)
def test_the_schema_forbids_faulty_keys(allowed, refusal, old, new):
    text = methods()
    assert allowed(yaml.safe_load(text))
    refusal(text.replace(old, new, 1))
    assert not allowed(yaml.safe_load(text.replace(old, new, 1)))


def test_the_schema_knows_every_method_with_its_parameters_and_every_task(schema):
    bare, *described = schema["properties"]["methods"]["items"]["anyOf"]
    assert bare["enum"] == sorted(METHODS.all())
    assert [item["required"] for item in described] == [[name] for name in METHODS.all()]
    for item, method in zip(described, METHODS.all().values(), strict=True):
        assert set(item["properties"][method.name]["properties"]) == {
            *method.parameters.model_fields,
            "pool",
            "members",
        }
    task = schema["properties"]["task"]
    named = next(option for option in task.get("anyOf", [task]) if option["type"] == "string")
    assert named["enum"] == sorted(name for kind in KINDS for name in kind.tasks)


# Pretrained models in archives

ARCHIVED = """suite: t
task: {lm_eval: [sciq]}
pool:
  train: {base: archive:smollm2, start: shared_base, members: 2, examples: 160}
pools:
  folders:
    hf:
      base: models/base
      members: [models/one, archive:smollm2]
methods: [best_single]
"""


def test_an_archives_name_is_read_as_it_is_and_nothing_is_fetched(suite_at, monkeypatch, tmp_path):
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(tmp_path / "archives"))
    suite = suite_at(ARCHIVED)
    assert suite.pools["main"].spec.base == suite.task.tokenizer == "archive:smollm2"
    assert suite.pools["main"].spec.examples == 160
    assert suite.pools["folders"].spec.members == [str(tmp_path / "models/one"), "archive:smollm2"]
    assert not (tmp_path / "archives").exists()


@pytest.mark.parametrize(
    ("old", "line"), [("base: archive:smollm2", 4), ("models/one, archive:smollm2", 9), ("base: models/base", 8)]
)
def test_an_unknown_archive_is_refused_where_it_is_named(refusal, old, line):
    new = old.replace("archive:smollm2", "archive:smolm2").replace("models/base", "archive:smolm2")
    assert refusal(ARCHIVED.replace(old, new)) == (
        line,
        "unknown archive 'smolm2'; did you mean 'smollm2'? (known: minilm, minilm_sre, smollm2)",
    )


def test_fetching_puts_folders_in_the_place_of_archives_and_leaves_the_rest(monkeypatch):
    monkeypatch.setattr("harness.tasks.pretrained.folder_of", {"archive:smollm2": "/made", "one": "one"}.__getitem__)
    pool = HfPool(base="archive:smollm2", members=["one", "archive:smollm2"])
    assert SOURCES.get("hf").fetched(pool) == HfPool(base="/made", members=["one", "/made"])
    assert SOURCES.get("train").fetched(TrainPool(start="independent")) == TrainPool(start="independent")
