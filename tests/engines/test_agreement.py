"""Laws of what machines must agree on: one difference is named, and a folder is shared or said not to be."""

from dataclasses import replace

import pytest

from harness.engines import agreement
from harness.engines.agreement import check_answers, check_facts, facts, meeting_places, why_not_shared
from harness.errors import BadInput


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


def test_a_shared_folder_is_seen_from_both_sides_and_nothing_stays(tmp_path):
    stores = [tmp_path / "one", tmp_path / "two"]
    with meeting_places(stores) as words:
        assert why_not_shared(words, "a") is None
        check_answers(words, "node of a", "a")
        with pytest.raises(BadInput, match=r"^node node of b: what it writes to .*one is not seen here; start "):
            check_answers(words, "node of b", "b")
    assert [list(store.iterdir()) for store in stores] == [[], []]


def test_another_folder_at_the_same_path_is_not_the_shared_one(tmp_path):
    with meeting_places([tmp_path]) as words:
        (place,) = words
        (place / agreement.DRIVER).write_text("another word")
        assert why_not_shared(words, "a") == f"its {tmp_path} is another folder than this machine's"
        (place / agreement.DRIVER).unlink()
        assert why_not_shared(words, "a") == f"its {tmp_path} is another folder than this machine's, or none"
        place.rmdir()
        place.write_text("a file")
        assert why_not_shared(words, "a").startswith(f"its {tmp_path} cannot be used: ")
        place.unlink()
