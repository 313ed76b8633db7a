"""Laws of what machines must agree on: one difference is named, and a folder is shared or said not to be."""

from dataclasses import replace

import pytest

from harness.engines import agreement
from harness.engines.agreement import check_answers, check_facts, facts, meetings, why_not_shared
from harness.errors import BadInput
from harness.shared import shared_place


def test_a_machine_agrees_with_itself():
    check_facts("one", facts())


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        ("torch", "1.0", "it has torch 1.0, and this machine 2"),
        ("python", None, "it has python nowhere, and this machine 3."),
        ("plug-in", "7", "it has plug-in 7, and this machine none"),
    ],
)
def test_one_version_that_differs_is_named(name, there, said):
    mine = facts()
    versions = {**mine.versions, name: there}
    theirs = replace(mine, versions={each: version for each, version in versions.items() if version})
    with pytest.raises(BadInput, match=f"^node two: {said}"):
        check_facts("two", theirs)


def test_other_code_is_refused_and_another_processor_is_not():
    check_facts("two", replace(facts(), machine="of another sort"))
    with pytest.raises(BadInput, match=r"^node two: its code of Stockpot, or of a plug-in, is not this machine's"):
        check_facts("two", replace(facts(), code="another"))


def test_the_digest_of_the_code_is_of_every_file_that_runs(tmp_path, monkeypatch):
    for name, text in {"__init__.py": "", "sums.py": "1", "fast.so": "x", "report.css": "a"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(agreement.harness, "__file__", str(tmp_path / "__init__.py"))

    def digest_with(name, text):
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text)
        agreement.code_digest.cache_clear()
        found = agreement.code_digest()
        (tmp_path / name).write_text(before)
        return found

    same = digest_with("report.css", "b")
    others = [digest_with("sums.py", "2"), digest_with("fast.so", "y"), digest_with("__init__.py", "3")]
    agreement.code_digest.cache_clear()
    assert len({same, *others}) == 4
    assert same == digest_with("report.css", "a")
    agreement.code_digest.cache_clear()


def test_what_is_shared_is_seen_from_both_sides_and_nothing_stays(tmp_path):
    stores, place = [tmp_path / "one", tmp_path / "two"], tmp_path / "place"
    with meetings(stores, [f"file://{place}"]) as found:
        assert why_not_shared(found, "a") is None
        check_answers(found, "node of a", "a")
        with pytest.raises(BadInput, match=r"^node node of b: what it writes to .*one is not seen here; start "):
            check_answers(found, "node of b", "b")
        with pytest.raises(BadInput, match=r"^node node of b: what it writes to file:///"):
            check_answers(found[2:], "node of b", "b")
    assert [list(folder.iterdir()) for folder in (*stores, place)] == [[], [], []]


def test_another_folder_or_place_of_the_same_name_is_not_the_shared_one(tmp_path):
    with meetings([tmp_path], ["memory://place"]) as found:
        for meeting in found:
            place = shared_place(meeting.place)
            other = f"its {meeting.place} is another one than this machine's, or none"
            place.write_word(f"{meeting.folder}/{agreement.DRIVER}", "another word")
            assert why_not_shared([meeting], "a") == other
            place._files.rm(f"{place._root}/{meeting.folder}", recursive=True)
            assert why_not_shared([meeting], "a") == other
        (tmp_path / found[0].folder).write_text("a file")
        assert why_not_shared(found, "a").startswith(f"its {tmp_path}: the shared store cannot be read: ")
        (tmp_path / found[0].folder).unlink()
