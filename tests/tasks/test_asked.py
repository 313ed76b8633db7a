"""A digest of what is asked: it changes with every request, label and way of scoring, and with nothing else."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from harness.errors import BadInput
from harness.registry import KINDS
from harness.store import Store
from harness.tasks import asked as rendering
from harness.tasks.asked import digest_of, read_documents
from harness.tasks.questions import Questions
from harness.tasks.text import TextReference, TextTask
from tests.tasks.local_tasks import function, metrics, rows, write_task

asked = partial(rendering.asked, allow_code=True)
FOLDER = str(Path(__file__).parents[2] / "suites" / "tasks")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def renderings(monkeypatch):
    """How often lm-eval was asked to render anything."""
    count = []

    def counted(*arguments, **options):
        count.append(arguments)
        return Questions(*arguments, **options)

    monkeypatch.setattr(rendering, "Questions", counted)
    return count


def edit(path, **settings):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}, sort_keys=False))


def edit_row(path, row, **values):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[row] |= values
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


CHANGES = {
    "the prompt": lambda below: edit(below / "t.yaml", doc_to_text="Why {{q}}?"),
    "the description": lambda below: edit(below / "t.yaml", description="Answer."),
    "the delimiter": lambda below: edit(below / "t.yaml", target_delimiter="\n"),
    "an included file": lambda below: edit(below.parent / "common", doc_to_choice="{{choices[::-1]}}"),
    "a question": lambda below: edit_row(below / "t.jsonl", 3, q="another"),
    "a choice": lambda below: edit_row(below / "t.jsonl", 3, choices=["x", "y", "z"]),
    "a label": lambda below: edit_row(below / "t.jsonl", 0, gold=1),
    "an id": lambda below: edit_row(below / "t.jsonl", 0, id="another"),
    "a cluster": lambda below: edit_row(below / "t.jsonl", 0, cluster="user 1"),
    "the examples": lambda below: edit(below / "t.yaml", num_fewshot=1, fewshot_split="test"),
    "the metrics": lambda below: edit(below / "t.yaml", metric_list=metrics("acc", "acc_norm")),
    "the aggregation": lambda below: edit(below / "t.yaml", metric_list=metrics("acc", aggregation="median")),
    "repeats": lambda below: edit(below / "t.yaml", repeats=2),
    "a filter": lambda below: edit(
        below / "t.yaml", filter_list=[{"name": "first", "filter": [{"function": "take_first"}]}]
    ),
}


@pytest.fixture
def below(tmp_path):
    """A task in a sub-folder, as lm-eval lays them out, with an include outside of it."""
    path = write_task(tmp_path / "tasks" / "t", "t", [{**row, "id": str(i)} for i, row in enumerate(rows())])
    settings = yaml.safe_load(path.read_text())
    del settings["doc_to_choice"]
    path.write_text(yaml.safe_dump({"include": "../common", **settings}))
    (tmp_path / "tasks" / "common").write_text("doc_to_choice: choices\n")
    return path.parent


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_what_is_asked_changes_the_digest(below, store, what):
    before = asked(["t"], str(below.parent), None, store)
    CHANGES[what](below)
    assert asked(["t"], str(below.parent), None, store) != before


def test_other_content_of_a_file_with_the_old_time_stamp_is_another_digest(below, store):
    """As a tool that copies with the stamps leaves it; the datasets library goes by path and stamp."""
    before, stamp = asked(["t"], str(below.parent), None, store), (below / "t.jsonl").stat()
    edit_row(below / "t.jsonl", 3, q="another")
    os.utime(below / "t.jsonl", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert asked(["t"], str(below.parent), None, store) != before


def test_fewer_documents_are_another_digest(below, store):
    found = {limit: asked(["t"], str(below.parent), limit, store) for limit in (None, 3, 5)}
    assert len(set(found.values())) == 3
    assert len(read_documents(found[3], store).ids) == 3
    assert read_documents(found[None], store).labels.tolist() == [row["gold"] for row in rows()]
    assert read_documents("another", store) is None


def test_what_changes_nothing_that_is_asked_keeps_the_digest(below, store, tmp_path):
    before = asked(["t"], str(below.parent), None, store)
    (below / "t.yaml").write_text("# a comment\n" + (below / "t.yaml").read_text())
    assert asked(["t"], str(below.parent), None, store) == before
    write_task(below, "another")
    assert asked(["t"], str(below.parent), None, store) == before
    moved = Path(shutil.copytree(below.parent, tmp_path / "elsewhere"))
    edit(moved / "t" / "t.yaml", dataset_kwargs={"data_files": {"test": str(moved / "t" / "t.jsonl")}})
    assert asked(["t"], str(moved), None, store) == before


def test_tasks_whose_sources_are_seen_are_rendered_once(below, store, renderings):
    first = asked(["t"], str(below.parent), None, store)
    assert asked(["t"], str(below.parent), None, store) == first
    assert len(renderings) == 1
    edit_row(below / "t.jsonl", 0, q="another")
    second = asked(["t"], str(below.parent), None, store)
    assert asked(["t"], str(below.parent), None, store) == second != first
    assert len(renderings) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"doc_to_text": function("code.text")},
        {"process_docs": function("code.docs")},
        {"custom_dataset": function("code.data")},
        {"metric_list": [{"metric": "acc", "aggregation": function("code.mean"), "higher_is_better": True}]},
        {"fewshot_config": {"samples": function("code.samples")}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_tasks_with_functions_are_rendered_whenever_a_run_is_planned(tmp_path, store, renderings, settings):
    (tmp_path / "code.py").write_text(
        "import datasets\nfrom tests.tasks.local_tasks import rows\n"
        "text = lambda doc: doc['q']\ndocs = lambda split: split\nmean = lambda items: sum(items) / len(items)\n"
        "samples = lambda: rows(3)\ndata = lambda **_: {'test': datasets.Dataset.from_list(rows())}\n"
    )
    write_task(tmp_path, "t", **settings)
    assert asked(["t"], str(tmp_path), None, store) == asked(["t"], str(tmp_path), None, store)
    assert len(renderings) == 2


@pytest.mark.parametrize("files", ["{folder}/*.jsonl", ["{folder}/t*.jsonl"]])
def test_a_pattern_of_data_files_is_read_whenever_a_run_is_planned(tmp_path, store, renderings, files):
    write_task(tmp_path, "t")
    named = json.loads(json.dumps(files).replace("{folder}", str(tmp_path)))
    edit(tmp_path / "t.yaml", dataset_kwargs={"data_files": {"test": named}})
    before = asked(["t"], str(tmp_path), None, store)
    (tmp_path / "tt.jsonl").write_text((tmp_path / "t.jsonl").read_text())
    assert asked(["t"], str(tmp_path), None, store) != before
    assert len(renderings) == 2


def test_a_function_that_scores_counts_with_all_it_imports_and_all_of_its_documents(tmp_path, store, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "from scoring_helper import right\ndef score(doc, results):\n    return {'acc': right(doc, results)}\n"
    (tmp_path / "scoring.py").write_text(code)
    (tmp_path / "scoring_helper.py").write_text("def right(doc, results):\n    return 1.0\n")
    settings = {"process_results": function("scoring.score")}
    write_task(tmp_path, "t", [{**row, "note": ""} for row in rows()], **settings)
    found = [asked(["t"], str(tmp_path), None, store)]
    edit_row(tmp_path / "t.jsonl", 0, note="a function may read it")
    found.append(asked(["t"], str(tmp_path), None, store))
    (tmp_path / "scoring_helper.py").write_text("def right(doc, results):\n    return 0.0\n")
    found.append(asked(["t"], str(tmp_path), None, store))
    (tmp_path / "scoring.py").write_text(code + "# changed\n")
    found.append(asked(["t"], str(tmp_path), None, store))
    assert len(set(found)) == 4


def test_what_is_only_in_the_documents_is_not_asked(tmp_path, store):
    write_task(tmp_path, "t", [{**row, "note": ""} for row in rows()])
    before = asked(["t"], str(tmp_path), None, store)
    edit_row(tmp_path / "t.jsonl", 0, note="nobody reads it")
    assert asked(["t"], str(tmp_path), None, store) == before


def test_who_renders_something_else_than_was_planned_stops(tmp_path, store):
    """Such as a set that every process orders in its own way."""
    code = "import os\ndef text(doc):\n    return os.environ['OF_THIS_PROCESS'] + doc['q']\n"
    (tmp_path / "code.py").write_text(code)
    write_task(tmp_path, "t", doc_to_text=function("code.text"))
    os.environ["OF_THIS_PROCESS"] = "one"
    try:
        reference = TextReference("suite", ("t",), str(tmp_path))
        planned = KINDS.get("text").rendered(reference, store, None, allow_code=True)
        splits = dict.fromkeys(("train", "heldout", "test"))
        task = TextTask(planned, tmp_path, 1, **splits, limit=None)
        assert digest_of(task.questions) == planned.asked
        os.environ["OF_THIS_PROCESS"] = "another"
        with pytest.raises(BadInput, match="ask something else than when the run was planned"):
            _ = replace(task).questions
    finally:
        del os.environ["OF_THIS_PROCESS"]


def test_stockpots_own_tasks_are_seen_through(store, renderings):
    for _ in range(2):
        asked(["cloze_python", "bytes_python"], FOLDER, 3, store)
    assert len(renderings) == 1


def test_documents_that_name_a_cluster_belong_to_it_and_others_to_themselves(below, store):
    for row, cluster in ((0, "user 1"), (2, "user 1"), (3, 7)):
        edit_row(below / "t.jsonl", row, cluster=cluster)
    digest = asked(("t",), str(below), None, store)
    kept, rendered = read_documents(digest, store), Questions(("t",), str(below), allow_code=True).documents
    assert list(kept.clusters) == list(rendered.clusters)
    own = [name for i, name in enumerate(kept.ids) if i not in (0, 2, 3)]
    assert [kept.clusters[i] for i in (0, 2, 3)] == ["cluster user 1", "cluster user 1", "cluster 7"]
    assert [name for i, name in enumerate(kept.clusters) if i not in (0, 2, 3)] == own
    assert kept.measured == {}
