"""Claims: one process makes a thing at a time, however the others end, and nobody waits for ever."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import claims
from harness.claims import claim, remove_unheld

HOLD = """
import sys
from pathlib import Path
from harness.claims import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
APPEND = """
import sys, time
from pathlib import Path
from harness.claims import claim
for _ in range(8):
    with claim(Path(sys.argv[1])):
        count = int(Path(sys.argv[2]).read_text())
        time.sleep(0.005)
        Path(sys.argv[2]).write_text(str(count + 1))
"""


def begin(file):
    command = [sys.executable, "-c", HOLD, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_processes_that_claim_the_same_take_turns_and_leave_nothing(tmp_path):
    file, count = tmp_path / "claims" / "a", tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", APPEND, str(file), str(count)]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait() == 0
    assert count.read_text() == "24"
    assert list(tmp_path.iterdir()) == [count]


def test_a_folder_that_the_last_of_others_removes_while_it_is_asked_for_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "claims"
    folder.mkdir()

    def gone_by_now(path, is_dir=Path.is_dir):
        if path == folder and not asked:
            asked.append(path)
            folder.rmdir()
        return is_dir(path)

    asked = []
    monkeypatch.setattr(Path, "is_dir", gone_by_now)
    with claim(folder / "a"):
        assert (folder / "a").is_file()
    assert asked == [folder]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "claims").write_text("")
    with pytest.raises(OSError, match="claims"), claim(tmp_path / "claims" / "a"):
        pass


def test_a_claim_ends_with_its_process(tmp_path):
    file = tmp_path / "claims" / "a"
    process = begin(file)
    threading.Timer(0.2, process.kill).start()
    with claim(file) as waited:
        assert waited
    process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_claims_of_other_names_are_not_waited_for(tmp_path):
    with claim(tmp_path / "claims" / "a") as first, claim(tmp_path / "claims" / "b") as second:
        assert (first, second) == (False, False)
        assert sorted(path.name for path in (tmp_path / "claims").iterdir()) == ["a", "b"]


def test_one_that_nobody_touches_any_longer_is_waited_for_no_more(tmp_path, monkeypatch):
    """The lock of a node that has died may stay with the file server, and that of a stopped process does."""
    monkeypatch.setattr(claims, "PATIENCE", 0.3)
    file = tmp_path / "claims" / "a"
    process = begin(file)  # touches it every BEAT, which is longer
    with claim(file) as waited:
        assert waited
        assert process.poll() is None
    process.communicate("")


def test_one_that_is_touched_is_waited_for_however_long_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE", 0.4)
    monkeypatch.setattr(claims, "BEAT", 0.02)
    file, order = tmp_path / "claims" / "a", []

    def hold():
        with claim(file):
            held.set()
            time.sleep(1.2)
            order.append("first")

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with claim(file):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_claims_of_killed_processes_are_removed_and_those_of_others_are_not(tmp_path):
    folder = tmp_path / "claims"
    killed, alive = begin(folder / "a"), begin(folder / "b")
    killed.kill()
    killed.communicate()
    remove_unheld(folder)
    assert [path.name for path in folder.iterdir()] == ["b"]
    alive.communicate("")
    remove_unheld(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_nobody_waits(tmp_path, monkeypatch, code):
    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with claim(tmp_path / "claims" / "a") as first, claim(tmp_path / "claims" / "a") as second:
        assert (first, second) == (False, False)
