"""A user's function: found without being run, known by what it does, and loaded apart from all others."""

import shutil
import sys

import pytest
import torch

from harness import keys
from harness.errors import BadInput
from harness.models import own_code
from harness.models.own_code import call, code_named, load

NET = "from layers import VALUE\n\n\ndef build(width=1):\n    return VALUE * width\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with a file, one that it imports, and one that it does not."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "layers.py").write_text("VALUE = 3\n")
    (tmp_path / "other.py").write_text("VALUE = 3\n")
    return tmp_path


def edited(folder, name, text):
    (folder / name).write_text(text)
    return code_named("net.py:build", folder)


def test_naming_a_function_runs_nothing(folder):
    for file in folder.glob("*.py"):
        file.write_text(f"open({str(folder / 'ran')!r}, 'w')\n{file.read_text()}")
    code = code_named("net.py:build", folder)
    code_named("net:build", folder)
    assert not (folder / "ran").exists()
    assert call(code, {"width": 2}) == 6
    assert (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "text", "is_other"),
    [
        ("net.py", f'"""What it is."""\n{NET}    # a reason\n', False),
        ("net.py", NET.replace("width=1", "width=2"), True),
        ("layers.py", "VALUE = 4\n", True),
        ("layers.py", "VALUE = 3\nimport torch\n", True),
        ("other.py", "VALUE = 4\n", False),
    ],
)
def test_code_counts_by_what_it_does_with_all_that_it_imports(folder, name, text, is_other):
    before = code_named("net.py:build", folder)
    after = edited(folder, name, text)
    assert (after != before) == (str(after) != str(before)) == is_other


def test_another_version_of_a_library_is_other_code(folder, monkeypatch):
    code = edited(folder, "layers.py", "import numpy\nVALUE = 3\n")
    known = keys.library_version
    monkeypatch.setattr(own_code, "library_version", lambda name: f"{known(name)} of tomorrow" if known(name) else None)
    assert code_named("net.py:build", folder) != code


def test_where_it_lies_does_not_count(folder, tmp_path_factory):
    code = code_named("net.py:build", folder)
    moved = shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "models")
    again = code_named("models/net.py:build", moved.parent)
    assert (again, str(again), again.root) == (code, str(code), str(moved))


@pytest.mark.parametrize("line", ["from pkg.layers import VALUE", "from .layers import VALUE", "from . import VALUE"])
def test_a_file_of_a_package_is_the_module_of_that_package(tmp_path, line):
    (tmp_path / "pkg" / "deep").mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("VALUE = 5\n")
    (tmp_path / "pkg" / "layers.py").write_text("VALUE = 5\n")
    (tmp_path / "pkg" / "net.py").write_text(f"{line}\n\n\nclass Maker:\n    build = staticmethod(lambda: VALUE)\n")
    one, other = (code_named(f"{name}:Maker.build", tmp_path) for name in ("pkg/net.py", "pkg.net"))
    assert (one, one.root) == (other, other.root)
    assert call(one, {}) == call(other, {}) == 5
    (tmp_path / "pkg" / "__init__.py").write_text("VALUE = 6\n")  # is imported with every module of it
    assert code_named("pkg.net:Maker.build", tmp_path) != one


def test_a_folder_that_is_no_package_can_be_named_with_dots(folder):
    (folder / "nets").mkdir()
    (folder / "nets" / "net.py").write_text("from nets.layers import VALUE\nbuild = lambda: VALUE\n")
    (folder / "nets" / "layers.py").write_text("VALUE = 7\n")
    code = code_named("nets.net:build", folder)
    assert call(code, {}) == 7
    (folder / "nets" / "layers.py").write_text("VALUE = 8\n")
    assert code_named("nets.net:build", folder) != code


def test_modules_of_one_name_in_two_folders_are_two(folder, tmp_path_factory):
    other = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "models")
    late = "def build(width=1):\n    from layers import VALUE\n    return VALUE * width\n"
    for place, value in ((folder, 3), (other, 10)):
        (place / "net.py").write_text(late)
        (place / "layers.py").write_text(f"VALUE = {value}\n")
    codes = [code_named("net.py:build", place) for place in (folder, other)]
    modules, path, cached = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    assert [call(code, {"width": 2}) for code in (*codes, *codes)] == [6, 20, 6, 20]
    assert ({*sys.modules} - modules, sys.path, sys.dont_write_bytecode) == (set(), path, cached)
    assert not list(folder.rglob("*.pyc"))


def test_a_file_with_the_name_of_a_module_that_is_loaded_leaves_that_alone(tmp_path):
    import yaml

    (tmp_path / "yaml.py").write_text("def build():\n    return 'mine'\n")
    assert call(code_named("yaml.py:build", tmp_path), {}) == "mine"
    assert sys.modules["yaml"] is yaml


def test_an_edited_file_is_read_anew_and_never_taken_for_what_was_planned(folder):
    first = code_named("net.py:build", folder)
    assert call(first, {}) == 3
    second = edited(folder, "layers.py", "VALUE = 4\n")  # as long, and within the same second
    assert call(second, {}) == 4
    third = edited(folder, "layers.py", "VALUE = 5\n")
    edited(folder, "layers.py", "VALUE = 6\n")
    with pytest.raises(BadInput, match="'net:build' was changed since the run was planned"):
        call(third, {})


def test_an_installed_function_counts_by_the_version_of_its_package(tmp_path):
    code = code_named("torch.nn:Linear", tmp_path)
    assert code.root is None
    assert load(code).function is torch.nn.Linear
    assert code != code_named("torch.nn:Bilinear", tmp_path)
    with pytest.raises(BadInput, match=r"no module 'torch\.nowhere'"):
        code_named("torch.nowhere:Linear", tmp_path)


def test_importing_it_neither_seeds_nor_prints(folder, capsys):
    edited(folder, "layers.py", "import torch\ntorch.manual_seed(1)\nprint('hello')\nVALUE = 3\n")
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    assert call(code_named("net.py:build", folder), {}) == 3
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capsys.readouterr().out == ""


FAULTS = {
    "nowhere.py:build": "nowhere.py: there is no such file, which 'nowhere.py:build' is in",
    "nowhere:build": "there is no module 'nowhere', which 'nowhere:build' is in; it is neither below",
    "syntax.py:build": "syntax.py:2: this is not Python: ",
    "zeros.py:build": "zeros.py: this is not Python: ",
    "leaves.py:build": "leaves.py: this is not Python: ",
    "imports.py:build": "imports.py:2: 'imports' cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
    "deeper.py:build": "failing.py:3: 'deeper' cannot be imported: ZeroDivisionError: division by zero",
    "exits.py:build": "exits.py:2: 'exits' cannot be imported: SystemExit: 3",
    "net.py:biuld": "net.py: there is no function 'biuld'; did you mean 'build'? (known: build)",
    "net.py:VALUE": "net.py: 'VALUE' is no function (known: build)",
    "fails.py:build": "fails.py:3: 'fails:build' fails: ValueError: two lines",
    "fails.py:library": "fails.py:7: 'fails:library' fails: json.decoder.JSONDecodeError: Exp",
}


@pytest.mark.parametrize("build", FAULTS)
def test_a_fault_is_one_line_with_its_place_in_the_users_files(folder, build):
    files = {
        "syntax": "\ndef build(:\n",
        "zeros": "\0",
        "leaves": "from .. import net\n",
        "imports": "\nimport nowhere\n",
        "deeper": "import failing\n",
        "failing": "\n\n1 / 0\n",
        "exits": "import sys\nsys.exit(3)\n",
        "fails": "def build():\n\n    raise ValueError('two\\nlines')\n\n"
                 "def library():\n    import json\n    json.loads('{')\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.raises(BadInput) as caught:
        call(code_named(build, folder), {})
    message = str(caught.value)
    assert FAULTS[build] in message
    assert "\n" not in message
