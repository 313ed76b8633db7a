"""The suites that come with Stockpot are found in a checkout and where a wheel puts them; a wheel has all of them."""

import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import harness
from harness.suite.shipped import PLACE, shipped_suites
from tests.cli.command import call

ROOT = Path(__file__).parents[2]


class Installed:
    """An installed distribution with one file of suites, as the record of a wheel lists it."""

    def __init__(self, environment):
        self.environment = environment

    def files(self, name):
        assert name == "stockpot"
        path = metadata.PackagePath("../../..", *PLACE, "smoke.yaml")
        path.dist = self
        return [metadata.PackagePath("harness/__init__.py"), path]

    def locate_file(self, path):
        return self.environment / "lib" / "python3" / "site-packages" / path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Stockpot as a wheel installs it into an environment, and a folder to work in that has no suites."""
    environment = tmp_path / "environment"
    (environment / "lib" / "python3" / "site-packages" / "harness").mkdir(parents=True)
    (environment / "work").mkdir()
    monkeypatch.setattr(harness, "__file__", str(environment / "lib/python3/site-packages/harness/__init__.py"))
    monkeypatch.setattr(metadata, "files", Installed(environment).files)
    monkeypatch.chdir(environment / "work")
    return environment


def test_a_checkout_has_its_own():
    assert shipped_suites() == ROOT / "suites"


def test_a_wheels_are_listed_by_paths_that_can_be_run(elsewhere, capsys):
    folder = elsewhere.joinpath(*PLACE)
    folder.mkdir(parents=True)
    (folder / "smoke.yaml").write_text((ROOT / "suites" / "smoke.yaml").read_text())
    code, out, err = call(capsys, "ls", "suites")
    assert (code, err) == (0, "")
    path = out.split("  ")[0]
    assert Path(path) == folder / "smoke.yaml"
    assert call(capsys, "validate", path)[0] == 0


def test_an_installation_without_suites_says_where_they_are(elsewhere, capsys):
    code, out, err = call(capsys, "ls", "suites")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "in its repository" in err


def test_a_wheel_has_every_file_of_suites():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    placed = {file for patterns in said.values() for pattern in patterns for file in ROOT.glob(pattern)}
    for place, patterns in said.items():
        below = Path(place).relative_to(Path(*PLACE).parent)
        assert all(Path(pattern).parent == below for pattern in patterns)  # so that what is beside stays beside
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "suites"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout")
    assert placed == {ROOT / file for file in listed.stdout.splitlines()}
