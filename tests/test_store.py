"""The store: an artefact is there whole or not at all, and damage is found."""

import ast
import contextlib
import errno
import json
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import store
from harness.errors import BadInput
from harness.folders import here
from harness.keys import Key, code_version, digest, file_digest
from harness.store import MANIFEST, Store, check_again, read_json, write_json
from harness.tasks import images
from tests.examples import examples

SOURCES = sorted(Path(harness.__file__).parent.rglob("*.py"))

# writing

KEY = Key.of("kind", code="harness.errors", seed=0)


def everything_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.name.startswith("."))


def fill(folder, content=b"content"):
    (folder / "deep").mkdir()
    (folder / "deep" / "data.bin").write_bytes(content)
    write_json(folder / "value.json", {"a": 1})


def damage(kept):
    return [line for lines in kept.damaged().values() for line in lines]


def written(root, key=KEY, content=b"content"):
    kept = Store(root)
    with kept.write(key) as folder:
        fill(folder, content)
    return kept


def test_an_artefact_is_there_when_the_block_has_ended_and_not_before(tmp_path):
    kept = Store(tmp_path)
    with kept.write(KEY) as folder:
        fill(folder)
        assert not kept.has(KEY)
        assert not kept.path(KEY).exists()
        assert list(kept.artefacts()) == []
        assert kept.damaged() == {}
    assert kept.has(KEY)
    assert everything_below(kept.path(KEY)) == ["deep/data.bin", MANIFEST, "value.json"]
    assert len(everything_below(tmp_path)) == 3


def test_the_manifest_says_what_the_artefact_was_made_of(tmp_path):
    kept = written(tmp_path)
    ((folder, manifest),) = kept.artefacts()
    assert folder == kept.path(KEY)
    assert manifest["kind"] == "kind"
    assert manifest["inputs"] == {"code": code_version("harness.errors"), "seed": 0}
    assert manifest["files"] == {name: file_digest(folder / name) for name in ("deep/data.bin", "value.json")}
    assert digest([manifest["kind"], json.dumps(manifest["inputs"], sort_keys=True)]) == KEY.digest


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_leaves_nothing(tmp_path, error):
    kept = Store(tmp_path)

    def fail():
        with kept.write(KEY) as folder:
            fill(folder)
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fail()
    assert not kept.has(KEY)
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("step", ["write_json", "sync", "file_digest"])
def test_an_error_while_it_is_finished_leaves_nothing(tmp_path, monkeypatch, step):
    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(store, step, full)
    kept = Store(tmp_path)
    with pytest.raises(OSError, match="no space left"), kept.write(KEY) as folder:
        (folder / "data.bin").write_bytes(b"content")
    assert not kept.has(KEY)
    assert everything_below(tmp_path) == []


def test_of_two_writers_the_first_to_end_wins_and_neither_fails(tmp_path):
    kept = Store(tmp_path)
    with kept.write(KEY) as slow:
        fill(slow, b"slow")
        with kept.write(KEY) as quick:
            assert quick != slow
            fill(quick, b"quick")
        assert kept.has(KEY)
    assert (kept.path(KEY) / "deep/data.bin").read_bytes() == b"quick"
    assert kept.damaged() == {}
    assert len(everything_below(tmp_path)) == 3


def test_many_writers_at_once_leave_one_whole_artefact(tmp_path):
    start = threading.Barrier(6)
    errors = []

    def write(content):
        try:
            start.wait()
            written(tmp_path, content=content)
        except BaseException as error:  # a thread's error would be lost
            errors.append(error)

    threads = [threading.Thread(target=write, args=(bytes([k]) * 1000,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    kept = Store(tmp_path)
    assert kept.has(KEY)
    assert kept.damaged() == {}
    assert len(everything_below(tmp_path)) == 3


def test_a_folder_without_a_manifest_is_no_artefact_and_is_replaced(tmp_path):
    kept = Store(tmp_path)
    fill_in = kept.path(KEY)
    fill_in.mkdir(parents=True)
    (fill_in / "half.bin").write_bytes(b"half")
    assert not kept.has(KEY)
    assert list(kept.artefacts()) == []
    written(tmp_path)
    assert kept.has(KEY)
    assert everything_below(fill_in) == ["deep/data.bin", MANIFEST, "value.json"]


def test_what_a_killed_writer_left_is_no_artefact_and_is_removed_unless_it_is_written_still(tmp_path):
    kept = written(tmp_path)
    left = tmp_path / f".writing-{here()}-1-killed"
    shutil.copytree(kept.path(KEY), left)
    (left / MANIFEST).write_text('{"kind": "ki')
    assert [folder for folder, _ in kept.artefacts()] == [kept.path(KEY)]
    assert kept.damaged() == {}
    with kept.write(Key.of("kind", code="harness.errors", seed=1)) as folder:
        fill(folder)
        kept.remove_abandoned()
        assert not left.exists()
        assert folder.is_dir()
    assert len(kept.folders()) == 2


def test_artefacts_have_the_rights_of_other_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        kept = written(tmp_path)
    finally:
        os.umask(before)
    for path in (kept.path(KEY), *kept.path(KEY).rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path


def test_artefacts_are_listed_in_a_fixed_order(tmp_path):
    keys = [Key.of(kind, code="harness.errors", seed=seed) for seed in range(6) for kind in ("b", "a")]
    for key in keys:
        written(tmp_path, key)
    folders = [folder for folder, _ in Store(tmp_path).artefacts()]
    assert folders == sorted(Store(tmp_path).path(key) for key in keys)


def test_a_store_that_is_not_there_holds_nothing(tmp_path):
    kept = Store(tmp_path / "none")
    assert not kept.has(KEY)
    assert list(kept.artefacts()) == []
    assert kept.damaged() == {}


# damage


def flip(path):
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": lambda path: flip(path),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "deleted": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
"""Ways in which a file is not what was written."""


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["deep/data.bin", "value.json", MANIFEST])
def test_what_is_damaged_is_moved_aside_named_and_made_again(tmp_path, logged, how, name):
    kept = written(tmp_path)
    path = kept.path(KEY) / name
    DAMAGE[how](path)
    check_again()
    assert not kept.has(KEY)
    gone = name == MANIFEST and how in ("deleted", "a folder")  # then nothing says that it is an artefact
    named = path.parent if (name, how) == (MANIFEST, "flipped") else path  # a flipped sha256 tells of another file
    assert [str(named) in message for message in logged] == ([] if gone else [True])
    assert len(list(tmp_path.glob(".quarantine/*"))) == (0 if gone else 1)
    with pytest.raises(BadInput, match="run the suite again"):
        kept.read(KEY)
    written(tmp_path)
    assert (kept.read(KEY) / "deep/data.bin").read_bytes() == b"content"
    check_again()
    assert kept.has(KEY)
    assert kept.damaged() == {}


@pytest.mark.parametrize("name", ["deep/data.bin", MANIFEST])
def test_who_reads_what_nobody_makes_again_is_told_the_file(tmp_path, name):
    kept = written(tmp_path)
    DAMAGE["truncated"](kept.path(KEY) / name)
    check_again()
    with pytest.raises(BadInput, match=f"{re.escape(str(kept.path(KEY) / name))}: .* moved to .*quarantine"):
        kept.read(KEY)


def test_an_artefact_is_read_whole_once_in_a_process(tmp_path, monkeypatch):
    kept = written(tmp_path)
    check_again()
    read = []
    monkeypatch.setattr(store, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    assert kept.has(KEY)
    assert kept.has(KEY)
    assert kept.read(KEY) == kept.path(KEY)
    assert sorted(read) == ["data.bin", "value.json"]
    assert kept.used() == [str(kept.path(KEY).relative_to(tmp_path))]


def test_what_another_process_has_made_again_is_not_moved_aside(tmp_path, monkeypatch, logged):
    kept = written(tmp_path)
    DAMAGE["flipped"](kept.path(KEY) / "value.json")
    check_again()

    @contextlib.contextmanager
    def meanwhile(folder, **how):
        shutil.rmtree(kept.path(KEY))
        written(tmp_path)
        yield

    monkeypatch.setattr(store, "locked", meanwhile)
    assert kept.has(KEY)
    assert logged == []


@given(st.data())
@examples(40)
def test_a_flipped_bit_is_found_in_any_file(tmp_path_factory, data):
    kept = written(tmp_path_factory.mktemp("store"), content=b"some longer content")
    path = kept.path(KEY) / data.draw(st.sampled_from(["deep/data.bin", "value.json", MANIFEST]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    before = read_json(path) if path.name == MANIFEST else None
    path.write_bytes(content)
    lines = damage(kept)
    try:
        unchanged = before is not None and read_json(path) == before  # white space, say
    except ValueError:
        unchanged = False
    assert (lines == []) == unchanged
    assert all(str(kept.path(KEY)) in line for line in lines)


def test_damage_is_one_line_for_each_file_that_names_it(tmp_path):
    kept = written(tmp_path)
    other = Key.of("kind", code="harness.errors", seed=1)
    written(tmp_path, other)
    folder = kept.path(KEY)
    (folder / "deep/data.bin").write_bytes(b"contents")
    (folder / "value.json").unlink()
    assert sorted(damage(kept)) == sorted(
        [f"{folder}/deep/data.bin: its sha256 is not the recorded one", f"{folder}/value.json: missing"]
    )
    (kept.path(other) / MANIFEST).write_text("{")
    assert len(damage(kept)) == 3
    assert f"{kept.path(other)}/{MANIFEST}: not a manifest" in damage(kept)


def test_an_artefact_under_another_name_is_damage(tmp_path):
    kept = written(tmp_path)
    other = kept.path(Key.of("kind", code="harness.errors", seed=1))
    other.parent.mkdir(exist_ok=True, parents=True)
    shutil.move(kept.path(KEY), other)
    assert damage(kept) == [f"{other}/{MANIFEST}: its inputs are not those of its folder"]


def test_damage_that_cannot_be_moved_aside_is_named_and_no_artefact(tmp_path, monkeypatch, logged):
    kept = written(tmp_path)
    DAMAGE["flipped"](kept.path(KEY) / "value.json")
    check_again()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "rename", full)
        assert not kept.has(KEY)
    assert "value.json" in " ".join(logged)
    assert "cannot be moved aside (No space left on device)" in " ".join(logged)
    written(tmp_path)
    assert kept.has(KEY)


# no pickles

UNSAFE = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "torch.save", "torch.load", "np.save", "np.load", "numpy.save", "numpy.load", "pd.read_pickle",
}  # fmt: skip


def unsafe_names(path):
    """What a file imports or calls by name that reads or writes pickles; numpy's reader may be told not to."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    safe = [call.func for call in calls if "allow_pickle=False" in map(ast.unparse, call.keywords)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names if alias.name.split(".")[0] in UNSAFE)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {node.module.split(".")[0], *(f"{node.module}.{alias.name}" for alias in node.names)}
            yield from full & UNSAFE
        elif isinstance(node, ast.Attribute) and (
            node.attr == "to_pickle" or (ast.unparse(node) in UNSAFE and node not in safe)
        ):
            yield ast.unparse(node)


def test_no_code_reads_or_writes_a_pickle(tmp_path):
    assert len(SOURCES) > 40
    messages = {f"ray_{name}.py" for name in ("hosts", "nodes", "workers")}  # between the processes of one run
    assert {path.name: names for path in SOURCES if (names := list(unsafe_names(path)))} == {
        name: ["pickle"] for name in messages
    }
    planted = tmp_path / "planted.py"
    planted.write_text("import pickle\nfrom torch import load\ntorch.save(1)\nframe.to_pickle('x')\n")
    assert len(list(unsafe_names(planted))) == 4
    planted.write_text("np.load(file)\nnp.load(file, allow_pickle=True)\nnp.load(file, allow_pickle=False)\n")
    assert len(list(unsafe_names(planted))) == 2


def test_what_is_stored_is_json_and_safetensors(tmp_path):
    images.load("digits", Store(tmp_path))
    ((folder, manifest),) = Store(tmp_path).artefacts()
    assert list(manifest["files"]) == ["data.safetensors"]
    header = (folder / "data.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])) - {"__metadata__"} == {"pixels", "labels"}
