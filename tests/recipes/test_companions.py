"""Beside a merge lies what transformers reads of its donor, but for what the merge changed; never code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from harness.errors import BadInput
from harness.recipes.chat_templates import TEMPLATES, template_of
from harness.recipes.companions import OTHERS, TOKENIZER, read_companions, write_companions
from tests.models.families import configuration
from tests.recipes.tiny_folders import mergekit_merge, word_tokenizer, write_model

MESSAGES = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
OTHER = "{{ messages[0]['content'] }} and no more"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three Llamas; two have one template, the third another and its licence."""
    root = tmp_path_factory.mktemp("models")
    for number, template in enumerate((OTHER, PLAIN, PLAIN)):
        folder = root / f"m{number}"
        write_model(folder, seed=number)
        tokenizer = word_tokenizer([f"w{k}" for k in range(62)])
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    (root / "m0" / "LICENSE").write_text("free\n")
    (root / "m0" / "modeling_own.py").write_text("raise SystemExit\n")
    return [root / f"m{number}" for number in range(3)]


def put(target, donor, **changes):
    """The companions of a donor in a new folder."""
    target.mkdir(exist_ok=True)
    config = json.loads((donor / "config.json").read_text())
    write_companions(target, read_companions(donor, config, **{"dtype": "F32", **changes}))
    return target


def settings(folder):
    """A folder's configuration as transformers reads it."""
    read = AutoConfig.from_pretrained(folder).to_dict()
    return {key: value for key, value in read.items() if key not in ("_name_or_path", "transformers_version")}


def changed(folder, tmp_path, **said):
    """A copy of a folder with other settings in its config.json."""
    copy = Path(shutil.copytree(folder, tmp_path / "changed", dirs_exist_ok=True))
    config = json.loads((folder / "config.json").read_text()) | said
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_transformers_reads_the_configuration_of_mergekits_output(folders, tmp_path):
    names = [str(folder) for folder in folders]
    recipe = {"merge_method": "linear", "dtype": "float32", "out_dtype": "bfloat16", "base_model": names[0],
              "models": [{"model": name, "parameters": {"weight": 1.0}} for name in names[:2]]}  # fmt: skip
    theirs = mergekit_merge(recipe, tmp_path / "theirs")
    ours = put(tmp_path / "ours", folders[0], dtype="BF16")
    assert settings(ours) == settings(theirs)
    assert AutoConfig.from_pretrained(ours).dtype == torch.bfloat16


def test_transformers_reads_the_number_of_layers_of_mergekits_slices(folders, tmp_path):
    name = str(folders[0])
    recipe = {"merge_method": "passthrough", "dtype": "float32",
              "slices": [{"sources": [{"model": name, "layer_range": span}]} for span in ([0, 2], [1, 2])]}  # fmt: skip
    theirs = mergekit_merge(recipe, tmp_path / "theirs")
    assert settings(put(tmp_path / "ours", folders[0], layers=[0, 1, 1])) == settings(theirs)
    assert settings(put(tmp_path / "ours", folders[0], layers=3)) == settings(theirs)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "phi", "mistral", "gemma", "xlm", "mpt", "distilbert"])
def test_what_a_kind_calls_its_settings_is_changed_under_that_name(kind, tmp_path):
    config = AutoConfig.for_model(kind) if kind == "distilbert" else configuration(kind)
    config.save_pretrained(tmp_path / "donor")
    fewer = {"layers": 5, "vocabulary": 77, "tied": False}
    read = AutoConfig.from_pretrained(put(tmp_path / "ours", tmp_path / "donor", dtype="float16", **fewer))
    assert (read.num_hidden_layers, read.vocab_size, read.tie_word_embeddings) == (5, 77, False)
    config.num_hidden_layers, config.vocab_size, config.tie_word_embeddings, config.dtype = 5, 77, False, torch.float16
    config.save_pretrained(tmp_path / "theirs")
    assert settings(tmp_path / "ours") == settings(tmp_path / "theirs")


@pytest.mark.parametrize("older", [True, False])
def test_layers_keep_their_kind_wherever_they_come_to_lie(older, tmp_path):
    """An older file says from which layer on a window slides, a newer one the kind of every layer."""
    config = transformers.Qwen2Config(num_hidden_layers=4, max_window_layers=2, use_sliding_window=True)
    config.save_pretrained(tmp_path / "donor")
    file = tmp_path / "donor" / "config.json"
    said = json.loads(file.read_text())
    if older:
        del said["layer_types"]
    file.write_text(json.dumps(said))
    chosen = [0, 1, 1, 3, 2, 0]
    read = AutoConfig.from_pretrained(put(tmp_path / "ours", tmp_path / "donor", layers=chosen))
    assert read.layer_types == [config.layer_types[layer] for layer in chosen]
    assert len(set(read.layer_types)) == 2
    with pytest.raises(BadInput, match="layer"):
        put(tmp_path / "unknown", tmp_path / "donor", layers=6)


def test_settings_that_name_layers_by_number_are_refused_where_layers_change(tmp_path):
    transformers.Qwen3MoeConfig(num_hidden_layers=4, mlp_only_layers=[0, 2]).save_pretrained(tmp_path / "donor")
    put(tmp_path / "same", tmp_path / "donor", layers=4)
    with pytest.raises(BadInput, match="'mlp_only_layers' of"):
        put(tmp_path / "other", tmp_path / "donor", layers=[0, 1, 3])


def test_files_are_copied_byte_for_byte_links_followed_and_code_is_not(folders, tmp_path):
    cached = tmp_path / "snapshot"
    cached.mkdir()
    for file in folders[0].iterdir():
        (cached / file.name).symlink_to(file)
    ours = put(tmp_path / "ours", cached)
    carried = {file.name for file in ours.iterdir()} - {"config.json"}
    assert carried == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json",
                       "LICENSE"}  # fmt: skip
    for name in carried:
        assert (ours / name).read_bytes() == (folders[0] / name).read_bytes()
        assert not (ours / name).is_symlink()


def test_entries_that_name_code_are_left_out(folders, tmp_path):
    donor = changed(folders[0], tmp_path, auto_map={"AutoConfig": "own.Config"}, _name_or_path="/home/someone/model")
    file = donor / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["own.T", None]}}))
    ours = put(tmp_path / "ours", donor)
    assert not any(word in each.read_text() for each in ours.iterdir() for word in ("auto_map", "/home/someone"))
    assert settings(ours) == settings(folders[0])
    with pytest.raises(BadInput, match="a kernel of the hub"):
        put(tmp_path / "kernel", changed(folders[0], tmp_path, _attn_implementation="someone/kernel"))
    with pytest.raises(BadInput, match="quantised"):
        put(tmp_path / "quantised", changed(folders[0], tmp_path, quantization_config={"bits": 4}))


def test_every_file_that_a_tokenizer_of_transformers_names_is_carried():
    source = Path(transformers.__file__).parent
    text = "".join(file.read_text() for file in source.glob("models/*/tokenization_*.py"))
    names = set(re.findall(r'"\w+_file": *"([^"]+)"', text))
    assert len(names) > 20
    assert {name for name in names if not TOKENIZER.fullmatch(name)} == set()
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "LICENSE.md"):
        assert OTHERS.fullmatch(name)
    for name in ("pytorch_model.bin", "training_args.bin", "trainer_state.json", "own_tokenizer.py", "README.md",
                 "model.safetensors.index.json", "adapter_config.json"):  # fmt: skip
        assert not TOKENIZER.fullmatch(name)
        assert not OTHERS.fullmatch(name)


@pytest.mark.parametrize("asked", [None, "auto", "chatml", OTHER + " {{ eos_token }}"])
def test_a_tokenizer_has_the_template_that_mergekit_gives_it(asked, folders, tmp_path):
    names = [str(folder) for folder in folders]
    recipe = {"merge_method": "linear", "dtype": "float32", "base_model": names[0], "chat_template": asked,
              "models": [{"model": name, "parameters": {"weight": 1.0}} for name in names]}  # fmt: skip
    theirs = AutoTokenizer.from_pretrained(mergekit_merge(recipe, tmp_path / "theirs"))
    ours = AutoTokenizer.from_pretrained(put(tmp_path / "ours", folders[0], chat_template=asked, models=folders))
    for prompt in (True, False):
        options = {"tokenize": False, "add_generation_prompt": prompt}
        mine, other = (each.apply_chat_template(MESSAGES, **options) for each in (ours, theirs))
        assert mine.rstrip("\n") == other.rstrip("\n")
    assert asked == "chatml" or ours.chat_template == theirs.chat_template


def older_template(folder, tmp_path):
    """A copy of a folder whose template is a key of tokenizer_config.json, beside others and a processor's."""
    donor = Path(shutil.copytree(folder, tmp_path / "older"))
    (donor / "chat_template.jinja").unlink()
    file = donor / "tokenizer_config.json"
    several = [{"name": "default", "template": PLAIN}, {"name": "tool_use", "template": OTHER}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": several}))
    (donor / "chat_template.json").write_text(json.dumps({"chat_template": PLAIN}))
    return donor


def test_no_older_template_survives_a_new_one(folders, tmp_path):
    donor = older_template(folders[0], tmp_path)
    kept = put(tmp_path / "kept", donor)
    assert AutoTokenizer.from_pretrained(kept).chat_template["default"] == template_of(donor) == PLAIN
    ours = put(tmp_path / "ours", donor, chat_template="chatml")
    assert AutoTokenizer.from_pretrained(ours).chat_template == TEMPLATES["chatml"] == template_of(ours)
    assert not (ours / "chat_template.json").exists()


def test_the_most_frequent_template_is_taken_and_of_several_the_first(folders, tmp_path):
    ours = put(tmp_path / "most", folders[0], chat_template="auto", models=folders)
    assert template_of(ours) == PLAIN
    for order in (folders[:2], folders[1::-1]):
        ours = put(tmp_path / "first", folders[0], chat_template="auto", models=order)
        assert template_of(ours) == template_of(order[0])


@pytest.mark.parametrize(
    ("asked", "words"),
    [("alpaka", "unknown chat template 'alpaka' \\(known: auto, chatml\\)"), ("{% for x", "is not Jinja")],
)
def test_templates_that_are_none_are_refused(asked, words, folders, tmp_path):
    with pytest.raises(BadInput, match=words):
        put(tmp_path / "ours", folders[0], chat_template=asked, models=folders)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_damaged_file_is_one_line(name, folders, tmp_path):
    donor = changed(folders[0], tmp_path)
    for content in (b'{"cut": ', b"[1]", b'{"a": "\xff\xfe"}'):
        (donor / name).write_bytes(content)
        with pytest.raises(BadInput, match=re.escape(name)) as refused:
            put(tmp_path / "ours", donor)
        assert "\n" not in str(refused.value)


def test_a_folder_without_a_tokenizer_stays_one_and_can_have_no_template(tmp_path):
    write_model(tmp_path / "donor")
    assert {file.name for file in put(tmp_path / "ours", tmp_path / "donor").iterdir()} == {
        "config.json", "generation_config.json"}  # fmt: skip
    with pytest.raises(BadInput, match="the folder has none"):
        put(tmp_path / "other", tmp_path / "donor", chat_template="chatml")


def test_ids_of_tokens_are_those_of_the_new_vocabulary(folders, tmp_path):
    donor = changed(folders[0], tmp_path, eos_token_id=[2, 3], pad_token_id=0, bos_token_id=1)
    (donor / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "max_length": 9}))
    ours = put(tmp_path / "ours", donor, token_ids={0: None, 1: 6, 2: 5, 3: 2}, vocabulary=70)
    config = json.loads((ours / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"], config["bos_token_id"]) == ([5, 2], None, 6)
    assert json.loads((ours / "generation_config.json").read_text()) == {"eos_token_id": 5, "max_length": 9}


def test_nothing_heavy_is_imported_to_copy_files():
    code = (
        "import sys, harness.recipes.companions, harness.recipes.chat_templates, harness.recipes.configuration\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
