"""What ``cache gc`` removes: never what a kept run was read from, nor anything while a run goes on."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.main import main
from harness.errors import BadInput
from harness.keys import Key
from harness.run.collecting import remove, runs_that_stay, stored, to_remove
from harness.run.folder import ARTEFACTS, using
from harness.store import MANIFEST, QUARANTINE, Store, check_again, write_json
from tests.examples import examples

DAY = 86400.0


def made(store, count, size=100):
    """Artefacts, each used a day before the next."""
    keys = [Key.of("kind", code="harness.errors", number=number) for number in range(count)]
    for key in keys:
        with store.write(key) as folder:
            (folder / "data.bin").write_bytes(bytes(size))
    for age, key in enumerate(reversed(keys)):
        then = time.time() - (age + 0.5) * DAY
        os.utime(store.path(key) / MANIFEST, (then, then))
    return keys


def a_run(out, name, keys):
    folder = out / "suite" / name
    folder.mkdir(parents=True)
    store = Store(out / ".store")
    write_json(folder / "run.json", {})
    if keys is not None:
        write_json(folder / ARTEFACTS, [str(store.path(key).relative_to(store.root)) for key in keys])
    return folder


@given(
    of_runs=st.lists(st.sets(st.integers(0, 5)), max_size=3),
    days=st.none() | st.integers(0, 7),
    share=st.none() | st.floats(0, 1),
)
@examples(30)
def test_what_a_run_needs_stays_and_of_the_rest_what_is_old_or_too_much_goes(tmp_path_factory, of_runs, days, share):
    out = tmp_path_factory.mktemp("gc")
    store = Store(out / ".store")
    keys = made(store, 6)
    for number, needed in enumerate(of_runs):
        a_run(out, str(number), [keys[i] for i in needed])
    found = stored(store, runs_that_stay(out))
    whole = sum(each.bytes for each in found)
    before, room = None if days is None else time.time() - days * DAY, None if share is None else int(share * whole)
    remove(store, to_remove(found, before, room))
    left = {number for number, key in enumerate(keys) if store.path(key).is_dir()}
    needed = set().union(*of_runs)
    assert left >= needed
    if days is None and room is None:
        assert left == needed
    elif room is None:
        assert left == needed | set(range(max(0, 6 - days), 6))
    else:
        assert sum(each.bytes for each in stored(store, runs_that_stay(out))) <= room or left == needed
        free = sorted(left - needed)
        assert free == sorted(set(range(6)) - needed)[-len(free) :] if free else True  # the oldest go first
    assert store.damaged() == {}


def test_a_run_that_is_named_needs_nothing_and_one_that_is_not_there_is_told(tmp_path):
    store = Store(tmp_path / ".store")
    keys = made(store, 3)
    a_run(tmp_path, "one", keys[:2])
    other = a_run(tmp_path, "other", keys[1:])
    for name in ("suite/one", str(other.parent / "one")):
        found = stored(store, runs_that_stay(tmp_path, [name]))
        assert [each.folder for each in to_remove(found)] == [store.path(keys[0])]
    with pytest.raises(BadInput, match="there is no run 'suite/onne'; did you mean 'suite/one'"):
        runs_that_stay(tmp_path, ["suite/onne"])


def test_a_run_that_does_not_say_what_it_was_read_from_keeps_all_that_was_there(tmp_path):
    store = Store(tmp_path / ".store")
    made(store, 2)
    silent = a_run(tmp_path, "silent", None)
    later = Key.of("kind", code="harness.errors", number="later")
    time.sleep(0.02)
    with store.write(later):
        pass
    runs = runs_that_stay(tmp_path)
    assert runs.silent == (silent,)
    assert [each.folder for each in to_remove(stored(store, runs))] == [store.path(later)]


def test_nothing_is_removed_while_a_run_goes_on(tmp_path):
    store = Store(tmp_path / ".store")
    (key,) = made(store, 1)
    found = stored(store, runs_that_stay(tmp_path))
    with using(store), using(store), pytest.raises(BadInput, match="a run that uses the store goes on"):
        remove(store, to_remove(found))
    assert store.has(key)
    remove(store, to_remove(found))
    assert not store.has(key)


def test_the_command_says_what_goes_and_verify_can_move_damage_aside(capsys, tmp_path):
    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main(["cache", *words, "--out", str(tmp_path)])
        return ended.value.code, capsys.readouterr().out

    store = Store(tmp_path / ".store")
    keys = made(store, 3)
    a_run(tmp_path, "one", keys[:1])
    (store.path(keys[0]) / "data.bin").write_bytes(b"")
    code, said = call("verify", "--quarantine")
    assert code == 1
    assert f"{store.path(keys[0]) / 'data.bin'}: its sha256 is not the recorded one" in said
    assert len(list((store.root / QUARANTINE).iterdir())) == 1
    assert call("verify") == (0, "")
    assert call("gc", "--dry-run")[1].startswith("3 of 3 artefacts would go")  # one in the quarantine
    assert call("gc", "--older-than", "1d")[1].startswith("1 of 3 artefacts removed")
    check_again()
    assert [store.has(key) for key in keys] == [False, False, True]
    assert call("gc", "--max-size", "1GB")[1].startswith("0 of 2")
    assert call("gc")[1].startswith("2 of 2")
    assert list((store.root / QUARANTINE).iterdir()) == []
    assert call("gc", "--older-than", "soon")[0] == 2
