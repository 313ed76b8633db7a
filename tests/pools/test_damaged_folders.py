"""A folder whose files are damaged, or written by hand, is a model or is refused: never a traceback, never minutes."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.models.causal_lm import read_generation_config
from harness.models.settings import DEPTH, LAYERS, check_layers
from harness.pools.folder_plan import plan_folder
from tests.models.families import build

JSON = ("config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json",
        "tokenizer_config.json")  # fmt: skip
WRONG = (None, True, -1, 1.5, "x", [], {}, [1], {"a": 1}, 10**6, -(10**12), "../x", float("nan"))
LOST = object()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    build("llama").save_pretrained(folder, max_shard_size="30KB")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, **{f"w{i}": i for i in range(1, 30)}}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="w1").save_pretrained(folder)
    assert set(JSON) <= {file.name for file in folder.iterdir()}
    return folder


@pytest.fixture(scope="module")
def copy(good, tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "copy"


def afresh(good, copy):
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(good, copy)


def read_whole(folder):
    """A plan, or None where it is refused."""
    try:
        plan = plan_folder("m0", str(folder))
        assert plan.dtype
        read_generation_config(folder)
        return plan
    except BadInput as refused:
        assert len(str(refused).splitlines()) == 1
        return None


def places(value, at=()):
    yield at
    for key in value if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


def changed(value, at, new):
    if not at:
        return new
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new is LOST:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def test_the_folder_itself_is_a_model(good):
    assert read_whole(good)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_wrong_value_is_refused_or_read(good, copy, data):
    afresh(good, copy)
    file = copy / data.draw(st.sampled_from(JSON))
    value = json.loads(file.read_text())
    at = data.draw(st.sampled_from([place for place in places(value) if len(place) < 4]))
    new = data.draw(st.sampled_from((*WRONG, LOST) if at else WRONG))
    file.write_text(json.dumps(changed(value, at, new)))
    read_whole(copy)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_refused_or_read(good, copy, data):
    afresh(good, copy)
    file = data.draw(st.sampled_from(sorted(copy.iterdir())))
    content = file.read_bytes()
    at = data.draw(st.integers(0, min(len(content), 3000) - 1))
    damage = data.draw(st.sampled_from(["cut", "flip", "lost", "folder", "noise"]))
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "lost":
        flipped = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        file.write_bytes({"cut": content[:at], "flip": flipped, "noise": bytes(range(256))}[damage])
    read_whole(copy)


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 900 + "1" + "}" * 900], ids=["list", "map"])
def test_a_file_that_is_nested_deep_is_refused(name, text, good, copy):
    afresh(good, copy)
    (copy / name).write_text(text)
    assert name == "tokenizer_config.json" or read_whole(copy) is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("said", [{"AutoTokenizer": ["own.Tokens", None], "AutoConfig": "own.Config"}, "own.Config", 3])
def test_code_beside_a_model_is_never_run(name, said, good, copy):
    afresh(good, copy)
    (copy / "own.py").write_text("raise SystemExit('it ran')")
    value = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(value | {"auto_map": said}))
    read_whole(copy)


@given(st.integers(LAYERS + 1, 10**30), st.sampled_from(["num_hidden_layers", "n_layer", "depths", "num_experts"]))
@example(1_000_000, "num_hidden_layers")
def test_more_layers_than_any_model_has_are_refused_with_the_figure(count, key):
    for said in ({key: count}, {key: [2, count]}, {"text_config": {"inner": {key: count}}}):
        with pytest.raises(BadInput, match=f"{key}.*{count:,}"):
            check_layers(said, "folder")


def test_no_family_of_transformers_has_so_many_layers_by_itself():
    """What is a size, and not a count, is none."""
    from transformers import CONFIG_MAPPING

    for kind in ("llama", "qwen2_moe", "deepseek_v3", "mixtral", "bert", "swin", "vit", "t5", "gpt2", "big_bird"):
        check_layers(json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False)), kind)
    assert DEPTH > 10
