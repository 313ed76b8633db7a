"""Keys: what names an artefact changes with all that goes into it, and with nothing else."""

import ast
import importlib.machinery
import importlib.metadata
import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import keys
from harness.keys import Key, digest, file_digest
from harness.registry import METHODS
from harness.store import Store, write_json
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
    for attempt in (lambda: digest(value), lambda: Key.of("kind", code="harness.keys", value=value)):
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
    first = Key.of("training", code="harness.keys", lr=0.1, seeds=[0, 1], name=None)
    assert Key.of("training", seeds=[0, 1], name=None, code="harness.keys", lr=0.1) == first
    others = [
        Key.of("evaluation", code="harness.keys", lr=0.1, seeds=[0, 1], name=None),
        Key.of("training", code="harness.errors", lr=0.1, seeds=[0, 1], name=None),
        Key.of("training", code="harness.keys", lr=0.2, seeds=[0, 1], name=None),
        Key.of("training", code="harness.keys", lr=0.1, seeds=[1, 0], name=None),
        Key.of("training", code="harness.keys", lr=0.1, seeds=[0, 1], name=""),
        Key.of("training", code="harness.keys", lr=0.1, seeds=[0, 1]),
        Key.of("training", code="harness.keys", lr=0.1, seeds=[0, 1], name=None, more=None),
    ]
    digests = {key.digest for key in (first, *others)}
    assert len(digests) == 1 + len(others)
    assert len({Store(Path("root")).path(key) for key in (first, *others)}) == 1 + len(others)


@pytest.fixture
def fresh_code(monkeypatch, tmp_path):
    """Modules of a folder as ``harness.<name>``, and code versions that are not cached; gives a writer of modules."""
    monkeypatch.setattr(keys, "_module_facts", keys._module_facts.__wrapped__)
    monkeypatch.setattr(keys, "code_version", keys.code_version.__wrapped__)
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
        return keys.code_version(f"harness.{name}")

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
    before = keys.code_version("harness.planted_whole")
    fresh_code("planted_part", "VALUE = 2\nif False:\n    import harness.planted_whole\n")
    assert keys.code_version("harness.planted_whole") != before


def test_nothing_is_imported_to_be_read(fresh_code):
    fresh_code("planted_whole", "from harness.planted_part import VALUE\n")
    fresh_code("planted_part", "raise RuntimeError('imported')\n")
    before = keys.code_version("harness.planted_whole")
    fresh_code("planted_part", "raise RuntimeError('again')\n")
    assert keys.code_version("harness.planted_whole") != before
    assert "harness.planted_part" not in sys.modules


def test_what_only_type_checkers_import_does_not_count(fresh_code):
    fresh_code("planted_whole", "if TYPE_CHECKING:\n    import harness.planted_part\nelse:\n    import csv\n")
    fresh_code("planted_part", "VALUE = 1\n")
    before = keys.code_version("harness.planted_whole")
    fresh_code("planted_part", "VALUE = 2\n")
    assert keys.code_version("harness.planted_whole") == before


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
        return keys.code_version("planted_plugin.source")

    assert len({version(1), version(2)}) == 2


def test_code_is_what_it_does_so_a_word_about_it_changes_nothing(fresh_code):
    fresh_code("planted_plain", "def f(x: int) -> int:\n    return x + 1\nVALUE = 1\n")
    plain = keys.code_version("harness.planted_plain")
    told = '"""A module."""\n# why\ndef f(x: int) -> int:\n    """Adds."""\n\n    return (x + 1)\nVALUE = 1\n"""1."""\n'
    fresh_code("planted_plain", told)
    assert keys.code_version("harness.planted_plain") == plain
    for does in ("x + 2", "'x' + 1", "x - 1"):
        fresh_code("planted_plain", told.replace("x + 1", does))
        assert keys.code_version("harness.planted_plain") != plain


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_what_only_type_checkers_import_is_no_code(fresh_code, test):
    start = "import typing\nfrom typing import TYPE_CHECKING\n"
    fresh_code("planted_plain", f"{start}VALUE = 1\n")
    plain = keys.code_version("harness.planted_plain")
    fresh_code("planted_plain", f"{start}if {test}:\n    from harness.keys import Key\nVALUE = 1\n")
    assert keys.code_version("harness.planted_plain") == plain
    fresh_code("planted_plain", f"{start}if {test}:\n    pass\nelse:\n    from harness.keys import Key\nVALUE = 1\n")
    assert keys.code_version("harness.planted_plain") != plain


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
    monkeypatch.setattr(keys, "_module_facts", keys._module_facts.__wrapped__)
    monkeypatch.setattr(keys, "code_version", keys.code_version.__wrapped__)
    monkeypatch.syspath_prepend(tmp_path)
    for package in ("outside_plugin", "outside_plugin/deep", "outside_library"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "outside_plugin/deep/__init__.py").write_text("def f():\n    from ..part import VALUE\n")
    (tmp_path / "outside_plugin/part.py").write_text("VALUE = 1\n")
    (tmp_path / "outside_plugin/other.py").write_text("VALUE = 1\n")
    (tmp_path / "outside_plugin/metric.py").write_text(f"{line}\nimport outside_library\nimport harness.errors\n")
    before = keys.code_version("outside_plugin.metric")
    assert "harness.errors" in keys._module_facts("outside_plugin.metric")[1]
    (tmp_path / "outside_plugin/other.py").write_text("VALUE = 2\n")
    (tmp_path / "outside_library/__init__.py").write_text("VALUE = 2\n")
    assert keys.code_version("outside_plugin.metric") == before
    (tmp_path / "outside_plugin/part.py").write_text("VALUE = 2\n")
    assert keys.code_version("outside_plugin.metric") != before
    for name in [name for name in sys.modules if name.startswith("outside_plugin")]:
        del sys.modules[name]


def test_a_compiled_module_counts_by_its_bytes(monkeypatch, tmp_path):
    monkeypatch.setattr(keys, "_module_facts", keys._module_facts.__wrapped__)
    monkeypatch.syspath_prepend(tmp_path)
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f"outside_compiled{suffix}").write_bytes(b"\x7fELF\xff")
    before = keys._module_facts("outside_compiled")
    (tmp_path / f"outside_compiled{suffix}").write_bytes(b"\x7fELF\xfe")
    assert keys._module_facts("outside_compiled") != before


@pytest.mark.parametrize("line", ["import numpy", "from numpy.linalg import norm", "def f():\n    import numpy as np"])
def test_another_version_of_a_library_is_other_code(fresh_code, monkeypatch, line):
    fresh_code("planted_user", f"{line}\n")
    fresh_code("planted_top", "import json, os\nimport harness.planted_user\n")
    fresh_code("planted_other", "import json\nVALUE = 1\n")
    names = ("planted_user", "planted_top", "planted_other")
    first = [keys.code_version(f"harness.{name}") for name in names]
    installed = keys.library_version("numpy")
    assert installed == f"numpy {importlib.metadata.version('numpy')}"
    monkeypatch.setattr(keys, "library_version", lambda package: f"{package} of tomorrow")
    changed = [keys.code_version(f"harness.{name}") != version for name, version in zip(names, first, strict=True)]
    assert changed == [True, True, False]


def test_a_change_to_one_method_leaves_the_others_alone():
    modules = sorted({method.module for method in METHODS.all().values()})
    reached = {}
    for module in modules:
        waiting, seen = [module], set()
        while waiting:
            name = waiting.pop()
            if name not in seen and (facts := keys._module_facts(name)):
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
