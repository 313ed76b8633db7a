"""Which commit a run says it is of."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness import environment


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *name, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("theirs")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "theirs")
    return tmp_path


def installed(monkeypatch, folder):
    (folder / "harness").mkdir(parents=True)
    shutil.copy(Path(environment.__file__), folder / "harness" / "environment.py")
    monkeypatch.setattr(environment, "__file__", str(folder / "harness" / "environment.py"))


def test_a_checkout_has_its_own_commit_and_a_mark_where_files_differ(repository, monkeypatch):
    installed(monkeypatch, repository)
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert environment.git_commit() == commit
    (repository / "file").write_text("changed")
    assert environment.git_commit() == commit + "+"


def test_below_anothers_repository_there_is_none(repository, monkeypatch):
    installed(monkeypatch, repository / ".venv" / "lib" / "site-packages")
    assert environment.git_commit() is None


def test_outside_any_there_is_none(tmp_path, monkeypatch):
    installed(monkeypatch, tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.git_commit() is None
