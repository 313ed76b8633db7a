"""The store: what names an artefact, that it is there whole or not at all, and that damage is found."""

import ast
import contextlib
import errno
import importlib.machinery
import importlib.metadata
import json
import math
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import store
from harness.errors import BadInput
from harness.folders import here
from harness.registry import METHODS
from harness.store import (
    MANIFEST,
    Key,
    Store,
    check_again,
    code_version,
    digest,
    file_digest,
    read_json,
    write_json,
)
from harness.tasks import images
from tests.examples import examples

SOURCES = sorted(Path(harness.__file__).parent.rglob("*.py"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

# digests


def test_a_digest_is_the_sha256_of_canonical_json(tmp_path):
    (tmp_path / "canonical").write_text('{"a":[1,2.5,null,true],"b":"\\u00e9"}')
    assert digest({"b": "é", "a": [1, 2.5, None, True]}) == file_digest(tmp_path / "canonical")


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms(use_true_random=False))
@examples(50)
def test_the_order_of_keys_does_not_change_a_digest(value, random):
    shuffled = dict(random.sample(list(value.items()), len(value)))
    assert digest(shuffled) == digest(value)
    assert digest(json.loads(json.dumps(value))) == digest(value)


@given(JSON, JSON)
@examples(50)
def test_different_values_have_different_digests(a, b):
    assert (digest(a) == digest(b)) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"a": math.nan}])
def test_a_number_that_is_not_finite_is_refused(value, tmp_path):
    for attempt in (lambda: digest(value), lambda: Key.of("kind", code="harness.store", value=value)):
        with pytest.raises(ValueError, match="JSON compliant"):
            attempt()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "value.json", value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("path"), object()])
def test_what_is_no_json_value_is_refused(value):
    with pytest.raises(TypeError, match="not JSON serializable"):
        digest(value)


# keys


def test_a_key_changes_with_its_kind_its_code_and_each_input_and_with_nothing_else():
    first = Key.of("training", code="harness.store", lr=0.1, seeds=[0, 1], name=None)
    assert Key.of("training", seeds=[0, 1], name=None, code="harness.store", lr=0.1) == first
    others = [
        Key.of("evaluation", code="harness.store", lr=0.1, seeds=[0, 1], name=None),
        Key.of("training", code="harness.errors", lr=0.1, seeds=[0, 1], name=None),
        Key.of("training", code="harness.store", lr=0.2, seeds=[0, 1], name=None),
        Key.of("training", code="harness.store", lr=0.1, seeds=[1, 0], name=None),
        Key.of("training", code="harness.store", lr=0.1, seeds=[0, 1], name=""),
        Key.of("training", code="harness.store", lr=0.1, seeds=[0, 1]),
        Key.of("training", code="harness.store", lr=0.1, seeds=[0, 1], name=None, more=None),
    ]
    digests = {key.digest for key in (first, *others)}
    assert len(digests) == 1 + len(others)
    assert len({Store(Path("root")).path(key) for key in (first, *others)}) == 1 + len(others)


@pytest.fixture
def fresh_code(monkeypatch, tmp_path):
    """Modules of a folder as ``harness.<name>``, and code versions that are not cached; gives a writer of modules."""
    monkeypatch.setattr(store, "_module_facts", store._module_facts.__wrapped__)
    monkeypatch.setattr(store, "code_version", store.code_version.__wrapped__)
    monkeypatch.setattr(harness, "__path__", [*harness.__path__, str(tmp_path)])
    before = set(sys.modules)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if name.startswith(("harness.planted", "planted")):
            del sys.modules[name]


def test_code_is_named_by_its_source_and_by_all_it_imports(fresh_code):
    fresh_code("planted_top", "from harness.planted_middle import f\n")
    fresh_code("planted_middle", "def f():\n    import harness.planted_deep\n")
    fresh_code("planted_deep", "VALUE = 1\n")
    fresh_code("planted_other", "VALUE = 1\n")

    def version(name):
        return store.code_version(f"harness.{name}")

    names = ("planted_top", "planted_middle", "planted_deep", "planted_other")
    first = {name: version(name) for name in names}
    assert len(set(first.values())) == 4
    key = Key.of("kind", code="harness.planted_top", seed=0).digest
    fresh_code("planted_deep", "VALUE = 2\n")
    changed = {name: version(name) for name in names}
    assert [changed[name] != first[name] for name in names] == [True, True, True, False]
    assert Key.of("kind", code="harness.planted_top", seed=0).digest != key
    fresh_code("planted_deep", "VALUE = 1\n")
    assert {name: version(name) for name in names} == first
    assert Key.of("kind", code="harness.planted_top", seed=0).digest == key


@pytest.mark.parametrize(
    "line",
    [
        "import harness.planted_part",
        "import json, harness.planted_part as other",
        "from harness.planted_part import VALUE",
        "from harness import planted_part",
        "if False:\n    from harness import planted_part",
    ],
)
def test_every_way_to_import_counts_and_a_circle_ends(fresh_code, line):
    fresh_code("planted_whole", f"{line}\n")
    fresh_code("planted_part", "VALUE = 1\nif False:\n    import harness.planted_whole\n")
    before = store.code_version("harness.planted_whole")
    fresh_code("planted_part", "VALUE = 2\nif False:\n    import harness.planted_whole\n")
    assert store.code_version("harness.planted_whole") != before


def test_what_only_type_checkers_import_does_not_count(fresh_code):
    fresh_code("planted_whole", "if TYPE_CHECKING:\n    import harness.planted_part\nelse:\n    import csv\n")
    fresh_code("planted_part", "VALUE = 1\n")
    before = store.code_version("harness.planted_whole")
    fresh_code("planted_part", "VALUE = 2\n")
    assert store.code_version("harness.planted_whole") == before


@pytest.mark.parametrize(
    "line", ["import planted_plugin.part", "from .part import A", "from . import part", "import harness.planted_part"]
)
def test_a_module_from_outside_counts_with_its_own_package_and_ours(fresh_code, monkeypatch, tmp_path, line):
    package = tmp_path / "outside" / "planted_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "source.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(package.parent)

    def version(value):
        (package / "part.py").write_text(f"VALUE = {value}\n")
        fresh_code("planted_part", f"VALUE = {value}\n")
        return store.code_version("planted_plugin.source")

    assert len({version(1), version(2)}) == 2


def test_code_is_what_it_does_so_a_word_about_it_changes_nothing(fresh_code):
    fresh_code("planted_plain", "def f(x: int) -> int:\n    return x + 1\nVALUE = 1\n")
    plain = store.code_version("harness.planted_plain")
    told = '"""A module."""\n# why\ndef f(x: int) -> int:\n    """Adds."""\n\n    return (x + 1)\nVALUE = 1\n"""1."""\n'
    fresh_code("planted_plain", told)
    assert store.code_version("harness.planted_plain") == plain
    for does in ("x + 2", "'x' + 1", "x - 1"):
        fresh_code("planted_plain", told.replace("x + 1", does))
        assert store.code_version("harness.planted_plain") != plain


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_what_only_type_checkers_import_is_no_code(fresh_code, test):
    start = "import typing\nfrom typing import TYPE_CHECKING\n"
    fresh_code("planted_plain", f"{start}VALUE = 1\n")
    plain = store.code_version("harness.planted_plain")
    fresh_code("planted_plain", f"{start}if {test}:\n    from harness.store import Key\nVALUE = 1\n")
    assert store.code_version("harness.planted_plain") == plain
    fresh_code("planted_plain", f"{start}if {test}:\n    pass\nelse:\n    from harness.store import Key\nVALUE = 1\n")
    assert store.code_version("harness.planted_plain") != plain


@pytest.mark.parametrize(
    "line",
    [
        "from outside_plugin.part import VALUE",
        "from outside_plugin import part",
        "import outside_plugin.part",
        "from .part import VALUE",
        "from . import part",
        "from outside_plugin.deep import f",
    ],
)
def test_of_a_plug_in_its_own_files_are_code_and_other_packages_are_libraries(monkeypatch, tmp_path, line):
    monkeypatch.setattr(store, "_module_facts", store._module_facts.__wrapped__)
    monkeypatch.setattr(store, "code_version", store.code_version.__wrapped__)
    monkeypatch.syspath_prepend(tmp_path)
    for package in ("outside_plugin", "outside_plugin/deep", "outside_library"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "outside_plugin/deep/__init__.py").write_text("def f():\n    from ..part import VALUE\n")
    (tmp_path / "outside_plugin/part.py").write_text("VALUE = 1\n")
    (tmp_path / "outside_plugin/other.py").write_text("VALUE = 1\n")
    (tmp_path / "outside_plugin/metric.py").write_text(f"{line}\nimport outside_library\nimport harness.errors\n")
    before = store.code_version("outside_plugin.metric")
    assert "harness.errors" in store._module_facts("outside_plugin.metric")[1]
    (tmp_path / "outside_plugin/other.py").write_text("VALUE = 2\n")
    (tmp_path / "outside_library/__init__.py").write_text("VALUE = 2\n")
    assert store.code_version("outside_plugin.metric") == before
    (tmp_path / "outside_plugin/part.py").write_text("VALUE = 2\n")
    assert store.code_version("outside_plugin.metric") != before
    for name in [name for name in sys.modules if name.startswith("outside_plugin")]:
        del sys.modules[name]


def test_a_compiled_module_counts_by_its_bytes(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "_module_facts", store._module_facts.__wrapped__)
    monkeypatch.syspath_prepend(tmp_path)
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f"outside_compiled{suffix}").write_bytes(b"\x7fELF\xff")
    before = store._module_facts("outside_compiled")
    (tmp_path / f"outside_compiled{suffix}").write_bytes(b"\x7fELF\xfe")
    assert store._module_facts("outside_compiled") != before


@pytest.mark.parametrize("line", ["import numpy", "from numpy.linalg import norm", "def f():\n    import numpy as np"])
def test_another_version_of_a_library_is_other_code(fresh_code, monkeypatch, line):
    fresh_code("planted_user", f"{line}\n")
    fresh_code("planted_top", "import json, os\nimport harness.planted_user\n")
    fresh_code("planted_other", "import json\nVALUE = 1\n")
    names = ("planted_user", "planted_top", "planted_other")
    first = [store.code_version(f"harness.{name}") for name in names]
    installed = store.library_version("numpy")
    assert installed == f"numpy {importlib.metadata.version('numpy')}"
    monkeypatch.setattr(store, "library_version", lambda package: f"{package} of tomorrow")
    changed = [store.code_version(f"harness.{name}") != version for name, version in zip(names, first, strict=True)]
    assert changed == [True, True, False]


def test_a_change_to_one_method_leaves_the_others_alone():
    modules = sorted({method.module for method in METHODS.all().values()})
    reached = {}
    for module in modules:
        waiting, seen = [module], set()
        while waiting:
            name = waiting.pop()
            if name not in seen and (facts := store._module_facts(name)):
                seen.add(name)
                waiting.extend(imported for imported in facts[1] if imported.startswith("harness"))
        reached[module] = seen
    for module in modules:
        assert module in reached[module]
        assert "harness.methods" not in reached[module]
        assert not {"harness.report", "harness.cli", "harness.suite.suite"} & reached[module]
    assert sum("harness.methods.output.linear" in seen for seen in reached.values()) < len(modules)


def test_a_key_names_code_that_there_is():
    with pytest.raises(ValueError, match=r"no module 'harness\.nowhere'"):
        Key.of("kind", code="harness.nowhere", seed=0)


def test_imports_are_absolute_so_that_a_code_version_sees_them():
    for path in SOURCES:
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert [node.lineno for node in imports if node.level] == [], path


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
def test_what_is_damaged_is_moved_aside_named_and_made_again(tmp_path, caplog, how, name):
    kept = written(tmp_path)
    path = kept.path(KEY) / name
    DAMAGE[how](path)
    check_again()
    assert not kept.has(KEY)
    gone = name == MANIFEST and how in ("deleted", "a folder")  # then nothing says that it is an artefact
    named = path.parent if (name, how) == (MANIFEST, "flipped") else path  # a flipped sha256 tells of another file
    assert [str(named) in message for message in caplog.messages] == ([] if gone else [True])
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


def test_what_another_process_has_made_again_is_not_moved_aside(tmp_path, monkeypatch, caplog):
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
    assert caplog.messages == []


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


def test_damage_that_cannot_be_moved_aside_is_named_and_no_artefact(tmp_path, monkeypatch, caplog):
    kept = written(tmp_path)
    DAMAGE["flipped"](kept.path(KEY) / "value.json")
    check_again()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "rename", full)
        assert not kept.has(KEY)
    assert "value.json" in caplog.text
    assert "cannot be moved aside (No space left on device)" in caplog.text
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
