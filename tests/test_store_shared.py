"""A store that shares a place with others: what one has made all have, and damage is never taken for an artefact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import shared
from harness import store as stores
from harness.errors import BadInput
from harness.keys import Key
from harness.shared import SharedPlace
from harness.store import MANIFEST, Store, write_json

KEY = Key.of("kind", code="harness.errors", seed=0)
OTHER = Key.of("kind", code="harness.errors", seed=1)


class Machines:
    """Stores of their own, each of which knows nothing of what the others do but through the place."""

    def __init__(self, folder):
        self.folder, self.place = folder, SharedPlace(folder / "place")

    def __getitem__(self, name):
        for known in (stores._checked, stores._shared, stores._lost, stores._made):
            known.clear()
        return Store(self.folder / name, f"file://{self.folder}/place")


@pytest.fixture(name="machines")
def _machines(tmp_path):
    return Machines(tmp_path)


def made(store, key=KEY, content=b"content"):
    with store.kept_if(lambda: None), store.write(key) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "data.bin").write_bytes(content)
        write_json(folder / "value.json", {"a": 1})


def content(store, key=KEY):
    return (store.read(key) / "deep" / "data.bin").read_bytes()


def test_what_one_machine_has_made_the_others_have(machines):
    made(machines["one"])
    assert machines["two"].has(KEY)
    assert content(machines["two"]) == b"content"
    assert not machines["two"].has(OTHER)
    with pytest.raises(BadInput, match="no such artefact"):
        machines["two"].read(OTHER)


def test_what_is_not_to_be_kept_is_not_shared(machines):
    def refuse():
        raise BadInput("the member's files were changed")

    store = machines["one"]
    with pytest.raises(BadInput, match="were changed"), store.kept_if(refuse), store.write(KEY) as folder:
        write_json(folder / "value.json", 1)
    assert machines.place.names() == set()


def test_who_lists_the_place_copies_nothing_until_it_reads(machines, monkeypatch):
    made(machines["one"])
    store = machines["two"]
    asked = []
    monkeypatch.setattr(SharedPlace, "has", lambda place, name: asked.append(name))
    with store.listed():
        assert store.has(KEY)
        assert not store.has(OTHER)
        assert not store.path(KEY).exists()
        assert content(store) == b"content"
    assert asked == []


def test_many_are_copied_at_once(machines):
    keys = [Key.of("kind", code="harness.errors", seed=seed) for seed in range(40)]
    one = machines["one"]
    for number, key in enumerate(keys):
        with one.write(key) as folder:
            write_json(folder / "value.json", number)
    assert machines.place.names() == set()
    one.share_used()
    assert machines.place.names() == {key.folder for key in keys}
    two = machines["two"]
    with two.listed():
        two.draw([*keys, *keys, Key.of("kind", code="harness.errors", seed="none")])
    assert sorted(two.folders()) == sorted(map(two.path, keys))
    assert two.damaged() == {}


def test_what_is_forgotten_is_forgotten_by_all(machines):
    made(machines["one"])
    assert machines["two"].has(KEY)
    two = machines["two"]
    with two.listed():
        two.remove(KEY)
        assert not two.has(KEY)
    assert not two.has(KEY)
    assert not machines["three"].has(KEY)


def test_what_was_made_before_there_was_a_place_is_shared_when_its_job_is_found_done(machines):
    plain = Store(machines.folder / "one")
    made(plain)
    assert machines.place.names() == set()
    store = machines["one"]
    store.share([KEY, OTHER])
    assert machines.place.names() == {KEY.folder}


def test_a_damaged_artefact_is_had_again_from_the_place(machines, logged):
    made(machines["one"])
    store = machines["one"]
    (store.path(KEY) / "deep" / "data.bin").write_bytes(b"damaged")
    assert content(machines["one"]) == b"content"
    assert "its sha256 is not the recorded one" in " ".join(logged)


@given(st.data())
def test_damage_at_the_place_is_never_read_and_made_again(tmp_path_factory, data):
    machines = Machines(tmp_path_factory.mktemp("shared"))
    made(machines["one"])
    path = machines.folder / "place" / f"{KEY.folder}.tar"
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="truncated"):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        damaged = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    path.write_bytes(damaged)
    store = machines["two"]
    if store.has(KEY):  # what was damaged is none of the content: rights, times, or what fills the last block
        assert content(store) == b"content"
    else:
        assert not path.exists()
        made(store)
    assert content(machines["three"]) == b"content"


def test_an_artefact_under_the_name_of_another_is_damage(machines, logged):
    made(machines["one"])
    one = machines["one"]
    machines.place.put(OTHER.folder, one.path(KEY))
    assert not machines["two"].has(OTHER)
    assert f"{MANIFEST}: its inputs are not those of its folder" in " ".join(logged)
    assert machines.place.names() == {KEY.folder}


def test_without_a_place_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "_connected", None)
    store = Store(tmp_path)
    with store.listed():
        assert not store.has(KEY)
    made(store)
    store.share([KEY])
    store.draw([OTHER])
    store.share_used()
    store.remove(KEY)
    assert not store.has(KEY)
