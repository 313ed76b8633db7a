"""Exported language models carry what belongs to their folders, in their precision and in transformers' format."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, MixtralConfig, MixtralForCausalLM

from harness.errors import BadInput
from harness.models.pretrained import stored_dtype
from harness.publish.export import export
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.run.test_runner_text import TASK_FILES, archives_or_skip, save

pytestmark = pytest.mark.usefixtures("in_this_process", "few_windows")

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
SUITE = f"""
suite: chat
task: {{lm_eval: [cloze_python], include_path: {TASK_FILES}}}
pool: {{hf: {{members: [a, b, broken]}}}}
reference: member/index=0
methods: [member: {{index: [0, 2]}}, uniform_soup: {{members: [[0, 1], [0, 2]]}}]
cost: {{latency: false, memory: false}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Chat models of sparse experts in bfloat16, one of which holds a NaN."""
    archives_or_skip()
    folder = tmp_path_factory.mktemp("chat")
    for seed, name in enumerate(("a", "b", "broken")):
        save(folder, name, 300, seed)
        words = AutoTokenizer.from_pretrained(folder / name)
        words.chat_template = TEMPLATE
        words.save_pretrained(folder / name)
        torch.manual_seed(seed)
        config = MixtralConfig(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                               num_attention_heads=2, num_key_value_heads=1, num_local_experts=2)  # fmt: skip
        module = MixtralForCausalLM(config).to(torch.bfloat16)
        if name == "broken":
            module.model.norm.weight.data[0] = torch.nan
        module.save_pretrained(folder / name)
        GenerationConfig(eos_token_id=[0, 5], max_new_tokens=7).save_pretrained(folder / name)
        (folder / name / "optimizer.pt").write_text("not for others")
    (folder / "suite.yaml").write_text(SUITE)
    suite = read_suite(folder / "suite.yaml")
    return read_run(runner.run(make_plan(suite, Options(folder / "results", workers=1, limit=4)), Tracker()))


def member(run, name="a"):
    return run.folder.parents[2] / name


@pytest.mark.parametrize("variant", ["member/index=0", "uniform_soup/members=0+1"])
def test_what_belongs_to_a_chat_model_goes_along(run, tmp_path, variant):
    folder = export(run, variant, tmp_path / "out")
    words = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "hello"}]
    assert words.apply_chat_template(turns, tokenize=False) == "<user>hello"
    assert words.backend_tokenizer.to_str() == AutoTokenizer.from_pretrained(member(run)).backend_tokenizer.to_str()
    assert GenerationConfig.from_pretrained(folder).to_dict() == GenerationConfig.from_pretrained(member(run)).to_dict()
    assert not list(folder.glob("*.pt"))


def test_a_members_folder_is_given_back_bit_by_bit(run, tmp_path):
    folder = export(run, "member/index=0", tmp_path / "out")
    ours, theirs = (load_file(place / "model.safetensors") for place in (folder, member(run)))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    settings = [json.loads((place / "config.json").read_text()) for place in (folder, member(run))]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16", "float32"])
def test_a_merge_has_its_members_precision_unless_another_is_named(run, tmp_path, dtype):
    folder = export(run, "uniform_soup/members=0+1", tmp_path / "out", dtype=dtype)
    wanted = getattr(torch, dtype or "bfloat16")
    assert stored_dtype(folder) == wanted
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == wanted
    one, other = (AutoModelForCausalLM.from_pretrained(member(run, name), dtype=torch.float32) for name in "ab")
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        scored = ((first + second) / 2).to(torch.bfloat16)  # a merge is rounded to its members' precision, once
        torch.testing.assert_close(state[name], scored.to(wanted), rtol=0, atol=1e-6)
    assert f"weights stored in {dtype or 'bfloat16'}, bit by bit" in (folder / "README.md").read_text()


def test_an_unknown_precision_is_refused(run, tmp_path):
    with pytest.raises(BadInput, match="did you mean 'bfloat16'"):
        export(run, "member/index=0", tmp_path / "out", dtype="bfloat")


@pytest.mark.parametrize("variant", ["member/index=2", "uniform_soup/members=0+2"])
def test_weights_that_are_no_numbers_fail_the_rows_that_use_them(run, variant):
    row = run.variants[(run.variants["seed"] == "all") & (run.variants["variant"] == variant)].iloc[0]
    assert row["status"] in ("failed", "not_applicable")
    assert "NaN weights in 'model.norm.weight'" in row["reason"]
