"""Places that machines share artefacts through: what is there is there whole, and nothing is taken that was not put."""

import io
import tarfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.folders import WEEK
from harness.shared import Damaged, SharedPlace, shared_place, shown

NAME = "kind/ab/cdef"


@pytest.fixture(params=["folder", "file URL", "objects"])
def place(request, tmp_path):
    """A folder, the same by its URL, and a store of objects, which has no folders."""
    if request.param == "objects":
        yield SharedPlace("memory://shared/artefacts")
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
    else:
        yield SharedPlace(tmp_path / "there" if request.param == "folder" else f"file://{tmp_path}/there")


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def filled(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@given(st.dictionaries(st.sampled_from(["a", "b.json", "deep/c", "deep/er/d"]), st.binary(max_size=2000), min_size=1))
def test_what_is_put_is_got_byte_for_byte(tmp_path_factory, files):
    here = tmp_path_factory.mktemp("shared")
    place = SharedPlace(here / "there")
    place.put(NAME, filled(here / "one", files))
    assert place.has(NAME)
    assert place.names() == {NAME}
    assert place.get(NAME, here / "two")
    assert files_of(here / "two") == files


def test_what_is_not_there_is_neither_had_got_nor_removed(place, tmp_path):
    assert place.names() == set()
    assert not place.has(NAME)
    assert not place.get(NAME, tmp_path / "folder")
    place.remove(NAME)


def test_the_first_of_a_name_stays_until_it_is_removed(place, tmp_path):
    for content in (b"first", b"second"):
        place.put(NAME, filled(tmp_path / content.decode(), {"file": content}))
    assert place.get(NAME, tmp_path / "got")
    assert files_of(tmp_path / "got") == {"file": b"first"}
    place.remove(NAME)
    assert not place.has(NAME)
    assert place.names() == set()


def test_what_another_puts_meanwhile_is_seen(place, tmp_path):
    other = SharedPlace(tmp_path / "there") if not isinstance(place._files, MemoryFileSystem) else place
    assert not place.has(NAME)
    other.put(NAME, filled(tmp_path / "one", {"file": b"content"}))
    assert place.has(NAME)
    assert place.names() == {NAME}


def test_an_artefact_is_there_whole_or_not_at_all(place, tmp_path, monkeypatch):
    folder = filled(tmp_path / "one", {"a": b"content", "b": b"content"})
    added = tarfile.TarFile.add
    seen = []

    def add(archive, path, *arguments, **options):
        seen.append(place.has(NAME))
        if str(path).endswith("b"):
            raise OSError("the network is gone")
        return added(archive, path, *arguments, **options)

    monkeypatch.setattr(tarfile.TarFile, "add", add)
    with pytest.raises(BadInput, match=r"the shared store cannot be written: the network is gone$"):
        place.put(NAME, folder)
    assert seen == [False, False]
    assert place.names() == set()
    assert place._files.find(place._root) == []


@pytest.mark.parametrize("name", ["/etc/outside", "../outside", "deep/../../outside"])
def test_no_file_is_written_outside_the_folder(place, tmp_path, name):
    plant(place, [(tarfile.TarInfo(name), b"content")])
    folder = tmp_path / "within"
    with pytest.raises(Damaged, match="is no plain file below its folder"):
        place.get(NAME, folder)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(place, tmp_path, kind):
    entry = tarfile.TarInfo("entry")
    entry.type, entry.linkname = kind, "/etc/passwd"
    plant(place, [(entry, b"")])
    with pytest.raises(Damaged, match="'entry' is no plain file"):
        place.get(NAME, tmp_path / "folder")


@given(st.data())
def test_damage_writes_nothing_outside_the_folder(tmp_path_factory, data):
    here = tmp_path_factory.mktemp("shared")
    place = SharedPlace(here / "there")
    place.put(NAME, filled(here / "one", {"a": b"some content", "deep/b": b"other content" * 50}))
    path = here / "there" / f"{NAME}.tar"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    got = here / "got"
    before = files_of(here)
    with suppress(Damaged):
        place.get(NAME, got)
    assert {name: each for name, each in files_of(here).items() if not name.startswith("got/")} == before


def plant(place, entries):
    """A tar of these entries, where an artefact would be."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path = place._path(NAME)
    place._files.makedirs(path.rpartition("/")[0], exist_ok=True)
    place._files.pipe_file(path, out.getvalue())


def test_what_was_being_written_a_week_ago_is_removed_and_no_artefact(place, monkeypatch):
    place._files.makedirs(place._root, exist_ok=True)
    old, new = (f"{place._root}/.writing-{word}" for word in ("old", "new"))
    for path in (old, new):
        place._files.pipe_file(path, b"half")
    ages = {old: WEEK + 60, new: WEEK - 60}
    monkeypatch.setattr(type(place._files), "modified", lambda files, path: datetime.now(UTC) - timedelta(
        seconds=next(age for name, age in ages.items() if str(path).endswith(name[-3:]))))  # fmt: skip
    assert place.names() == set()
    assert [path[-3:] for path in place._files.find(place._root)] == ["new"]


def test_two_who_share_a_place_meet_there_and_nothing_stays(place):
    with place.meeting() as folder:
        place.write_word(f"{folder}/one", "a word")
        assert place.word(f"{folder}/one") == "a word"
        assert place.word(f"{folder}/two") is None
    assert place._files.find(place._root) == []


@pytest.mark.parametrize("url", ["nowhere://bucket/folder", "memory::nowhere://x"])
def test_a_url_that_nothing_opens_is_one_line(url):
    with pytest.raises(BadInput, match=r"^\S+: the shared store is not to be reached: Protocol not known: nowhere$"):
        shared_place(url)


def test_a_file_system_that_is_not_installed_is_named_with_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "get_filesystem_class", missing)
    with pytest.raises(BadInput, match=r"^s3://bucket: .* is not to be reached: Install s3fs to access S3$"):
        SharedPlace("s3://key:secret@bucket")


def test_who_may_not_write_is_told_where(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    with pytest.raises(BadInput, match=r"there: the shared store cannot be written: Forbidden$"):
        SharedPlace(tmp_path / "there").put(NAME, filled(tmp_path / "one", {"a": b""}))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/folder", "s3://bucket/folder"),
        ("sftp://user@host/folder", "sftp://host/folder"),
        ("https://host/folder?token=secret", "https://host/folder"),
        ("/a/folder@home", "/a/folder@home"),
        ("404, url='https://host/a?token=secret' of me@home", "404, url='https://host/a' of me@home"),
    ],
)
def test_what_may_be_secret_in_a_url_is_not_shown(url, said):
    assert shown(url) == said


def test_a_path_is_a_folder_whatever_its_name(tmp_path):
    folder = tmp_path / "simplecache::memory:" / "x"
    SharedPlace(folder).put(NAME, filled(tmp_path / "one", {"a": b""}))
    assert (folder / f"{NAME}.tar").is_file()


def test_a_place_inside_another_file_system_is_one(tmp_path):
    """fsspec's wrappers, too: what is said of files is all that is asked of them."""
    place = SharedPlace(tmp_path)
    place._files, place._root = DirFileSystem(str(tmp_path), LocalFileSystem()), "inner"
    place.put(NAME, filled(tmp_path / "one", {"a": b"1"}))
    assert place.names() == {NAME}
    assert (tmp_path / "inner" / f"{NAME}.tar").is_file()
