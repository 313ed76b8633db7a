"""Folders that are being filled: nobody takes them for abandoned while their process lives, and everybody after it."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
import time

import pytest

from harness import folders
from harness.errors import BadInput
from harness.folders import (
    WEEK,
    append_whole,
    claimed,
    here,
    locked,
    locked_at_once,
    remove_abandoned,
    remove_unclaimed,
    remove_unfinished,
    temporary,
    used_by_nobody,
    used_with_others,
    write_whole,
)
from tests.interrupting import interrupted_everywhere

HOLD = """
import sys
from pathlib import Path
from harness.folders import temporary
with temporary(Path(sys.argv[1]), sys.argv[2]) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", [".writing", "[a]*?"])
def test_what_a_process_fills_stays_while_it_lives_and_goes_when_it_was_killed(tmp_path, name):
    other = tmp_path / f"{name[:-1]}x-1-2"
    other.mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path), name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = tmp_path / process.stdout.readline().strip()
    assert folder.is_dir()
    remove_abandoned(tmp_path, name)
    assert folder.is_dir()
    process.kill()
    process.communicate()
    assert folder.is_dir()
    remove_abandoned(tmp_path, name)
    assert list(tmp_path.iterdir()) == [other]


def test_a_temporary_folder_is_gone_at_the_end_unless_it_got_its_name(tmp_path):
    with temporary(tmp_path, "a") as folder:
        (folder / "file").write_text("half")
    assert list(tmp_path.iterdir()) == []
    with temporary(tmp_path, "a") as folder:
        (folder / "file").write_text("whole")
        folder.rename(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    with pytest.raises(KeyboardInterrupt), temporary(tmp_path, "a"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_one_that_was_taken_for_abandoned_before_it_was_locked_is_made_again(tmp_path):
    made = []

    def make():
        made.append(tmp_path / str(len(made)))
        made[-1].mkdir()
        if len(made) == 1:
            remove_unclaimed(made[-1], here())
        return made[-1]

    with claimed(make) as folder:
        assert folder == tmp_path / "1"
        assert folder.is_dir()


def test_what_another_machine_fills_is_left_alone_until_nothing_in_it_has_changed_for_a_week(tmp_path):
    """Its locks on folders are not seen here: this is how a network file system has them."""
    folder = tmp_path / ".writing-0123abcd-1-2"
    unnamed = tmp_path / ".writing-1-2"
    for each in (folder, unnamed):
        (each / "deep").mkdir(parents=True)
        (each / "deep" / "file").write_text("half")
    remove_abandoned(tmp_path, ".writing")
    assert folder.is_dir()
    assert unnamed.is_dir()
    long_ago = time.time() - WEEK - 60
    for path in (unnamed / "deep" / "file", unnamed / "deep", unnamed, folder / "deep", folder):
        os.utime(path, (long_ago, long_ago))
    remove_abandoned(tmp_path, ".writing")
    assert not unnamed.exists()
    assert folder.is_dir()  # its file is new
    os.utime(folder / "deep" / "file", (long_ago, long_ago))
    remove_abandoned(tmp_path, ".writing")
    assert not folder.exists()


def test_a_file_is_used_with_others_or_by_nobody(tmp_path):
    file = tmp_path / "lock"
    with used_with_others(file), used_with_others(file), used_by_nobody(file) as alone:
        assert not alone
    with used_by_nobody(file) as alone, used_by_nobody(file) as twice:
        assert (alone, twice) == (True, False)
    with used_with_others(file), used_by_nobody(file) as alone:
        assert not alone


def test_nobody_waits_without_end_for_who_uses_a_file_alone(tmp_path, monkeypatch):
    """A file server may keep the lock of a node that has died."""
    monkeypatch.setattr(folders, "PATIENCE", 0.2)
    file = tmp_path / "lock"
    refused = pytest.raises(BadInput, match=r"lock: a process holds it alone, .* remove the file")
    with used_by_nobody(file), refused, used_with_others(file):
        pass
    with used_with_others(file):
        pass


@pytest.mark.parametrize("code", sorted(folders.NO_LOCKS))
def test_where_there_are_no_locks_a_file_is_used_all_the_same(tmp_path, monkeypatch, code):
    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with used_with_others(tmp_path / "lock"), used_by_nobody(tmp_path / "lock") as alone:
        assert not alone


def test_a_lock_is_shared_or_alone(tmp_path):
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True), locked_at_once(tmp_path) as alone:
        assert not alone
    with locked_at_once(tmp_path) as alone, locked_at_once(tmp_path) as twice:
        assert (alone, twice) == (True, False)


@pytest.mark.parametrize("code", sorted(folders.NO_LOCKS))
def test_where_there_are_no_locks_folders_are_filled_and_nothing_is_taken_for_abandoned(tmp_path, monkeypatch, code):
    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with temporary(tmp_path, "a") as folder:
        remove_abandoned(tmp_path, "a")
        assert folder.is_dir()
        folder.rename(tmp_path / "b")
    remove_unclaimed(tmp_path / "b", here())
    assert (tmp_path / "b").is_dir()


@pytest.fixture
def small_files():
    """No file of this process may be larger than 100 bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", [write_whole, append_whole])
def test_a_file_that_cannot_be_written_is_as_it_was(write, tmp_path, small_files):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="File too large") as full:
        write(path, "x" * 101)
    assert full.value.filename == str(path)
    assert not path.exists() or path.read_text() == ""
    write(path, "it")
    with pytest.raises(OSError, match="File too large"):
        write(path, "x" * 101)
    assert path.read_text() == "it"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_keeps_its_rights_and_a_link_stays_one(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    (tmp_path / "figures").mkdir()
    left, kept = tmp_path / f"figures/.a.svg-{here()}-1-0123abcd", tmp_path / ".hidden"
    for path in (left, kept):
        path.write_text("half")
    with claimed(lambda: folders._empty_file(tmp_path / f".b-{here()}-1-0123abcd")) as written:
        remove_unfinished(tmp_path)
        assert written.exists()
    assert sorted(tmp_path.rglob(".*")) == [written, kept]


def test_a_signal_at_any_instruction_leaves_a_temporary_folder_under_its_name_or_not_at_all(tmp_path):
    def fill():
        with temporary(tmp_path, ".writing") as folder:
            (folder / "file").write_text("whole")
            folder.rename(tmp_path / "final")

    ended = 0
    for ended in interrupted_everywhere(fill, folders):  # noqa: B007
        assert {path.name for path in tmp_path.iterdir()} <= {"final"}
        shutil.rmtree(tmp_path / "final", ignore_errors=True)
    assert ended > 100
    assert (tmp_path / "final/file").read_text() == "whole"


def test_a_signal_at_any_instruction_leaves_the_old_file_or_the_new_one(tmp_path):
    file, ended = tmp_path / "file", 0
    file.write_text("old")
    for ended in interrupted_everywhere(lambda: write_whole(file, "new"), folders):  # noqa: B007
        assert list(tmp_path.iterdir()) == [file]
        assert file.read_text() in ("old", "new")
        file.write_text("old")
    assert ended > 100
    assert file.read_text() == "new"


def write_there(parent):
    write_whole(parent / "file", "text")


def begin_there(parent):
    with temporary(parent, ".writing"):
        pass


@pytest.mark.parametrize("make", [write_there, begin_there])
def test_where_the_parent_is_gone_that_is_an_error_at_once(make, tmp_path):
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "gone")
