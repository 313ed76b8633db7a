"""A card says of what, how and by which recipe a merge was made, in Markdown whose metadata the Hub reads."""

import hashlib
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from harness.recipes.card import hashes, hub_name, write_card
from harness.recipes.document import read
from harness.streaming.rules import RULES

RECIPE = """\
name: first  # ```` stays in the block
merge_method: linear
models:
  - {{model: {one}, parameters: {{weight: 0.25}}}}
  - {{model: plain, parameters: {{weight: 0.75}}}}
---
merge_method: ties
base_model: plain
models:
  - {{model: first, parameters: {{weight: 1.0}}}}
  - {{model: org/downloaded, parameters: {{weight: 1.0}}}}
"""
WEIGHTS = "model.safetensors"


@pytest.fixture(name="home")
def _home(tmp_path):
    """A folder of one's own, one of Hugging Face's cache with its links, and one that was downloaded by its name."""
    blobs = tmp_path / "hub" / "models--someone--model-1.0" / "blobs"
    snapshot = blobs.parent / "snapshots" / ("a" * 40)
    plain, downloaded = tmp_path / "plain", tmp_path / "org" / "downloaded"
    for folder in (blobs, snapshot, plain, downloaded / ".cache" / "huggingface"):
        folder.mkdir(parents=True)
    for number, folder in enumerate((plain, downloaded)):
        (folder / WEIGHTS).write_bytes(bytes([number]) * 9)
    blob = blobs / hashlib.sha256(b"cached").hexdigest()
    blob.write_bytes(b"cached")
    (snapshot / WEIGHTS).symlink_to(blob)
    return tmp_path


def written(home, known=(), **more):
    """The card of the two merges, as it was written, and the files that it is about."""
    snapshot = next((home / "hub" / "models--someone--model-1.0" / "snapshots").iterdir())
    text = RECIPE.format(one=snapshot.relative_to(home))
    (home / "merge.yml").write_text(text)
    folders = {str(snapshot.relative_to(home)): snapshot, "plain": home / "plain",
               "org/downloaded": home / "org" / "downloaded"}  # fmt: skip
    out = home / "out"
    out.mkdir()
    (out / WEIGHTS).write_bytes(b"merged")
    inputs = {name: [folder / WEIGHTS] for name, folder in folders.items()}
    files = [*(file for each in inputs.values() for file in each), out / WEIGHTS]
    write_card(out, title="my *merge*", recipes=read(home / "merge.yml"), text=text, inputs=inputs,
               outputs=[out / WEIGHTS], known=hashes(files) if known else {}, version="1.2.3", **more)  # fmt: skip
    return (out / "README.md").read_text(), text, files


def test_the_hub_reads_its_metadata(home):
    card, *_ = written(home)
    data = ModelCard(card).data.to_dict()
    assert data == {
        "base_model": ["someone/model-1.0", "org/downloaded"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "stockpot"],
    }


def test_the_card_of_an_adapter_names_its_base_and_how_it_is_made_again(home):
    snapshot = next((home / "hub" / "models--someone--model-1.0" / "snapshots").iterdir())
    out = home / "adapter-out"
    out.mkdir()
    text = f"merge_method: passthrough\nmodels: [{{model: {snapshot}+org/downloaded}}]\n"
    (home / "merge.yml").write_text(text)
    write_card(out, title="t", recipes=read(home / "merge.yml"), text=text, inputs={}, outputs=[], known={},
               version="1", adapter_rank=8)  # fmt: skip
    card = (out / "README.md").read_text()
    assert ModelCard(card).data.to_dict() == {
        "base_model": ["someone/model-1.0"],
        "base_model_relation": "adapter",
        "library_name": "peft",
        "tags": ["merge", "stockpot"],
    }
    assert "`stockpot merge recipe.yml OUT --adapter-rank 8`" in card


def test_a_merge_of_models_that_no_hub_is_known_to_have_names_none(home):
    out = home / "out"
    out.mkdir()
    text = "merge_method: passthrough\nmodels: [{model: plain}]\n"
    (home / "merge.yml").write_text(text)
    inputs = {"plain": [home / "plain" / WEIGHTS]}
    write_card(out, title="t", recipes=read(home / "merge.yml"), text=text, inputs=inputs, outputs=[], known={},
               version="1")  # fmt: skip
    assert "base_model" not in yaml.safe_load((out / "README.md").read_text().split("---")[1])


def test_the_recipe_can_be_taken_out_of_the_card_unchanged(home):
    card, text, _ = written(home)
    (fence,) = set(re.findall(r"^`{3,}", card, re.MULTILINE))
    assert fence not in text
    assert card.split(f"\n{fence}yaml\n")[1].split(f"\n{fence}\n")[0] + "\n" == text


def test_methods_are_said_in_the_words_of_their_rules_with_their_papers(home):
    card, *_ = written(home)
    first, last = (line for line in card.splitlines() if line.startswith("- The"))
    assert first.startswith("- The stage `first` is the `linear` of `someone/model-1.0`, `plain`: ")
    assert last.startswith("- The merge is the `ties` of `first`, `org/downloaded`, on the base `plain`: ")
    for line, rule in ((first, RULES["linear"]), (last, RULES["ties"])):
        assert rule.summary in line
        assert f"(https://arxiv.org/abs/{rule.paper.removeprefix('arXiv:')})" in line


def test_progress_of_hashes_ends_with_all_bytes(home):
    files = [home / name for name in ("one", "two")]
    for count, file in enumerate(files):
        file.write_bytes(b"x" * (1_500_000 + count))
    told = []
    assert hashes([*files, files[0]], lambda done, size: told.append((done, size))) == {
        file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {size for _, size in told} == {3_000_001}
    assert told[-1][0] == 3_000_001


def test_every_file_is_in_the_table_with_its_hash_where_that_was_asked_for(home):
    card, _, files = written(home, known=True, notes=["a <note>"])
    rows = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("|")][2:]
    assert [row[3].strip(" `") for row in rows] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert [int(row[2]) for row in rows] == [file.stat().st_size for file in files]
    assert [row[0].strip(" `") for row in rows] == ["someone/model-1.0", "plain", "org/downloaded", "the merge"]
    assert "- a &lt;note&gt;" in card
    (home / "out" / "README.md").unlink()
    (home / "out" / WEIGHTS).unlink()
    (home / "out").rmdir()
    plain, *_ = written(home)
    assert not re.search(r"[0-9a-f]{64}", plain)


def test_no_path_of_this_machine_stands_in_the_card(home):
    card, *_ = written(home, known=True)
    assert str(home) not in card
    assert str(Path.home()) not in card


def test_a_blob_of_the_cache_is_known_by_its_name_and_not_read(home):
    snapshot = next((home / "hub" / "models--someone--model-1.0" / "snapshots").iterdir())
    name = hashlib.sha256(b"cached").hexdigest()
    (snapshot / WEIGHTS).resolve().write_bytes(b"read instead")
    assert hashes([snapshot / WEIGHTS]) == {snapshot / WEIGHTS: name}
    own = home / "blobs-of-mine"
    own.mkdir()
    (own / name).write_bytes(b"named so")
    assert hashes([own / name])[own / name] == hashlib.sha256(b"named so").hexdigest()


@pytest.mark.parametrize(
    ("text", "folder", "name"),
    [
        ("x", "hub/models--org--name/snapshots/abc", "org/name"),
        ("x", "hub/models--gpt2/snapshots/abc", "gpt2"),
        ("x", "hub/models--org--name/refs", None),
        ("models/base", "models/base", None),
        ("x", None, None),
    ],
)
def test_names_of_a_hub_are_those_that_its_own_folders_tell(text, folder, name, tmp_path):
    place = None if folder is None else tmp_path / folder
    if place is not None:
        place.mkdir(parents=True)
    assert hub_name(text, place) == name
