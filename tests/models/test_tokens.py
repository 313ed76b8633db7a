"""Two tokenizers are the same if they make the same tokens, however their files are written."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.models.tokens import TOKENS, kept_tokenizer, read_tokenizer, tokenizer_of
from harness.store import Store


@pytest.fixture
def folder(tmp_path):
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<e>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    inner.train_from_iterator(["the cook put water and bones into the pot, and the pot stood on the fire"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>", pad_token="<e>").save_pretrained(tmp_path / "a")
    return tmp_path / "a"


def changed(folder, change, name="tokenizer.json"):
    """A copy whose file was changed."""
    copy = shutil.copytree(folder, folder.parent / "copy")
    settings = json.loads((copy / name).read_text())
    change(settings)
    (copy / name).write_text(json.dumps(settings))
    return copy


def pairs(settings):
    merges = settings["model"]["merges"]
    settings["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m.split(" ") for m in merges]


SAME = {
    "merges as pairs or as text": ("tokenizer.json", pairs),
    "padding": ("tokenizer.json", lambda s: s.update(truncation={
        "direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0})),
    "special": ("tokenizer.json", lambda s: s["added_tokens"][0].update(special=False)),
    "chat template": ("tokenizer_config.json", lambda s: s.update(chat_template="{{ messages }}")),
    "length": ("tokenizer_config.json", lambda s: s.update(model_max_length=77)),
}  # fmt: skip
OTHER = {
    "merges": ("tokenizer.json", lambda s: s["model"].update(merges=s["model"]["merges"][1:])),
    "vocabulary": ("tokenizer.json", lambda s: s["model"]["vocab"].update(
        {"a": s["model"]["vocab"]["b"], "b": s["model"]["vocab"]["a"]})),
    "prefix space": ("tokenizer.json", lambda s: s["pre_tokenizer"].update(add_prefix_space=True)),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_what_makes_no_other_tokens_is_not_looked_at(what, folder):
    assert tokenizer_of(changed(folder, SAME[what][1], SAME[what][0])) == tokenizer_of(folder)


@pytest.mark.parametrize("what", OTHER)
def test_other_tokens_are_another_tokenizer(what, folder):
    copy = changed(folder, OTHER[what][1], OTHER[what][0])
    assert tokenizer_of(copy) != tokenizer_of(folder)
    text = "ab the cook and the fire"
    assert read_tokenizer(copy).encode(text) != read_tokenizer(folder).encode(text)


def test_a_folder_without_one_has_none_and_a_broken_one_says_so(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert tokenizer_of(tmp_path / "empty") is None
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="the tokenizer cannot be read"):
        tokenizer_of(folder)


def test_a_tokenizer_that_was_changed_is_read_again(folder):
    before = tokenizer_of(folder)
    settings = json.loads((folder / "tokenizer.json").read_text())
    OTHER["vocabulary"][1](settings)
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    assert tokenizer_of(folder) != before


def test_it_is_known_how_many_tokens_it_has_and_what_texts_begin_with(folder):
    found, words = tokenizer_of(folder), read_tokenizer(folder)
    assert (found.size, found.begins) == (len(words), words.eos_token_id)


def test_a_store_tells_of_a_tokenizer_what_reading_it_says_until_a_file_of_it_changes(folder, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    found, tokens = kept_tokenizer(folder, store)
    read = tokenizer_of(folder)
    assert (found, found.folder, found.size, found.begins) == (read, str(folder), read.size, read.begins)
    assert tokens == len(read_tokenizer(folder))
    copy = changed(folder, OTHER["vocabulary"][1])
    assert kept_tokenizer(copy, store)[0] == tokenizer_of(copy) != found
    monkeypatch.setattr("harness.models.tokens._read", None)
    assert kept_tokenizer(folder, store) == (found, tokens)
    (tmp_path / "empty").mkdir()
    assert kept_tokenizer(tmp_path / "empty", store) is None


@pytest.mark.parametrize("file", ["tokenizer.json", "added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("number", [TOKENS, 2**31, 10**30])
def test_an_id_that_no_vocabulary_is_large_enough_for_is_refused(folder, file, number):
    """tokenizers keeps a list of all ids up to the largest, and ends the process where that does not fit."""
    said = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    if file == "tokenizer.json":
        said["model"]["vocab"]["a"] = number
    else:
        said |= {"added_tokens_decoder": {str(number): {"content": "z"}}} if "config" in file else {"z": number}
    (folder / file).write_text(json.dumps(said))
    with pytest.raises(BadInput, match=f"{file} has a token of the id "):
        tokenizer_of(folder)
