"""Whatever a task brings: its requests, values and scores are lm-eval's, or it is refused before anything runs."""

import random
from copy import deepcopy

import lm_eval
import numpy as np
import pytest
import torch
import yaml
from lm_eval.tasks import TaskManager

from harness.errors import BadInput
from harness.lm.evaluation import measures
from harness.tasks import questions as loading
from harness.tasks.answers import answers_of
from harness.tasks.asked import digest_of, rehearse
from harness.tasks.questions import Questions
from tests.tasks.lm_eval_oracle import MadeUp, difference, said
from tests.tasks.local_tasks import function, metrics, rows, write_task

LETTERS = [{**row, "gold": "ABC"[row["gold"]]} for row in rows()]
TWO = [{**row, "gold": row["gold"] % 2} for row in rows(12, choices=2)]
CODE = """
import random

def first_words(doc):
    return doc["q"].split()[0]

def shouted(dataset):
    return dataset.map(lambda row: {"q": row["q"].upper()})

def shuffled(dataset):
    order = list(range(len(dataset)))
    random.shuffle(order)
    return dataset.select(order)

def some(doc, results):
    values = {"acc": float(results[0][0] > results[1][0]), "chars": len(doc["choices"].pop())}
    return values if doc["gold"] else {**values, "of_first": results[0][0]}

def by_length(doc, results):
    return {"short": len(results[0]) < 9, "chars": len(results[0])}

def spread(items):
    return max(items) - min(items)

def many(doc, results):
    return {"acc": [1.0, 0.0]}

def words_of_page(doc, results):
    (value,) = results
    return {"word_perplexity": (value, 3 + len(doc["q"])), "bits_per_byte": (value, 7)}
"""


def answered(questions):
    """Made-up log-likelihoods of all requests, and which are the model's first choice."""
    return zip(*(said(instance.args) for instance in questions.instances), strict=True)


def same_as_lm_eval(folder, names, **limits):
    """Every request, value and score; what Stockpot found."""
    questions = Questions(names, str(folder), allow_code=True, **limits)
    rehearse(questions)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = lm_eval.simple_evaluate(MadeUp(), tasks=list(names), task_manager=manager, bootstrap_iters=0, **limits)
    assert difference(questions, theirs) is None
    return questions, theirs


@pytest.mark.parametrize(
    "settings",
    [
        {"metric_list": metrics("acc", "acc_norm", "acc_bytes", "exact_match", "brier_score", "mcc")},
        {"metric_list": metrics("acc", "acc_mutual_info")},
        {"metric_list": metrics("f1", "mcc"), "data": TWO},
        {"metric_list": metrics("acc", aggregation="median")},
        {"metric_list": metrics("acc", aggregation=function("code.spread"))},
        {"doc_to_choice": ["A", "B", "C"], "data": LETTERS},
        {"doc_to_choice": {"a": "one", "b": "two", "c": "three"}},
        {"doc_to_choice": "{{[choices[2], choices[0], choices[1]]}}", "doc_to_target": "{{(gold + 1) % 3}}"},
        {"data": [{**row, "gold": [row["gold"]]} for row in rows()]},
        {"doc_to_text": "gold", "doc_to_target": "{{q}}"},
        {"doc_to_text": function("code.first_words"), "process_docs": function("code.shouted")},
        {"description": "Answer {{q}}.\n", "target_delimiter": "\t", "gen_prefix": "So"},
        {"num_fewshot": 2, "fewshot_split": "test"},
        {"num_fewshot": 2, "fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}},
        {"repeats": 2},
        {"filter_list": [{"name": n, "filter": [{"function": "take_first"}]} for n in ("none", "other")]},
        {"process_results": function("code.some"), "metric_list": metrics("acc", "of_first", aggregation="mean")},
        {"process_results": function("code.some"),
         "metric_list": metrics("acc", aggregation="nanmean") + metrics("chars", aggregation=function("code.spread"))},
    ],
    ids=" ".join,
)  # fmt: skip
def test_values_and_scores_are_those_of_simple_evaluate(tmp_path, settings):
    (tmp_path / "code.py").write_text(CODE)
    write_task(tmp_path, "t", **settings)
    same_as_lm_eval(tmp_path, ["t"])


@pytest.mark.parametrize(
    "settings",
    [
        {"metric_list": metrics("word_perplexity", "byte_perplexity", "bits_per_byte")},
        {"metric_list": metrics("byte_perplexity")},
        {"metric_list": metrics("word_perplexity", aggregation="weighted_perplexity")
         + metrics("bits_per_byte", aggregation="bits_per_byte"), "process_results": function("code.words_of_page")},
    ],
    ids=" ".join,
)  # fmt: skip
def test_perplexities_are_those_of_simple_evaluate_in_the_units_that_a_task_counts(tmp_path, settings):
    (tmp_path / "code.py").write_text(CODE)
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}"}
    write_task(tmp_path, "pages", **rolling, **settings)
    write_task(tmp_path, "t")
    same_as_lm_eval(tmp_path, ["t", "pages"])


EXTRACTED = [{"name": "strict", "filter": [{"function": "regex", "regex_pattern": r"#### (\d)"},
                                           {"function": "take_first"}]},
             {"name": "flexible", "filter": [{"function": "regex", "regex_pattern": r"(\d)", "group_select": -1},
                                             {"function": "take_first"}]}]  # fmt: skip
VOTED = [{"name": "maj@3", "filter": [{"function": "take_first_k", "k": 3}, {"function": "majority_vote"},
                                      {"function": "take_first"}]},
         {"name": "first", "filter": [{"function": "take_first"}]}]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"metric_list": metrics("exact_match", ignore_case=True, ignore_punctuation=True)},
        {"metric_list": metrics("exact_match"), "filter_list": EXTRACTED, "doc_to_target": "1"},
        {"metric_list": metrics("exact_match", "bleu", "chrf"), "doc_to_target": "answer {{gold}}"},
        {"metric_list": metrics("exact_match"), "doc_to_target": "choices"},
        {"metric_list": metrics("exact_match"), "doc_to_choice": "{{choices}}", "doc_to_target": "gold"},
        {"metric_list": metrics("exact_match"), "filter_list": VOTED, "repeats": 5, "doc_to_target": "A",
         "generation_kwargs": {"until": ["x"], "do_sample": True, "temperature": 0.7}},
        {"metric_list": metrics("exact_match"), "num_fewshot": 2, "fewshot_split": "test", "description": "So:",
         "doc_to_target": "answer {{gold}}"},
        {"process_results": function("code.by_length"), "metric_list": metrics("short", "chars", aggregation="mean")},
    ],
    ids=" ".join,
)  # fmt: skip
def test_written_answers_have_the_scores_of_simple_evaluate(tmp_path, settings):
    (tmp_path / "code.py").write_text(CODE)
    write_task(tmp_path, "w", **{"output_type": "generate_until", "doc_to_choice": None, **settings})
    questions, _ = same_as_lm_eval(tmp_path, ["w"])
    assert questions.documents.written


def test_an_answer_that_is_more_or_less_right_is_a_score_beside_choices_and_refused_alone(tmp_path):
    settings = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "answer {{gold}}"}
    write_task(tmp_path, "w", **settings, metric_list=metrics("chrf", "exact_match"))
    with pytest.raises(BadInput, match=r"task 'w': a written answer is right or wrong by .*, and its chrf is"):
        rehearse(Questions(["w"], str(tmp_path)))
    write_task(tmp_path, "t")
    beside, _ = same_as_lm_eval(tmp_path, ["t", "w"])
    assert not beside.documents.written
    assert set(beside.documents.tasks) == {"t"}


def test_what_is_asked_in_writing_and_what_is_right_are_in_the_digest(tmp_path):
    changes = ({}, {"doc_to_target": "2"}, {"generation_kwargs": {"until": ["y"]}}, {"filter_list": EXTRACTED},
               {"data": rows(7)}, {"repeats": 2})  # fmt: skip
    digests = []
    for number, change in enumerate(changes):
        settings = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "1"}
        folder = tmp_path / str(number)
        write_task(folder, "w", **{**settings, "metric_list": metrics("exact_match"), **change})
        digests.append(digest_of(Questions(["w"], str(folder))))
    assert len(set(digests)) == len(changes)


def test_groups_have_the_scores_that_lm_eval_gives_them(tmp_path, monkeypatch):
    for number, name in enumerate(("one", "two", "three")):
        write_task(tmp_path / name, name, rows(4 + 3 * number))
    inner = "group: inner\ntask: [one, two]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    outer = "group: outer\ntask: [inner, three]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n"
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "inner.yaml").write_text(inner)
    (tmp_path / "groups" / "outer.yaml").write_text(outer)
    index = TaskManager(include_path=tmp_path, include_defaults=False)
    monkeypatch.setattr(loading, "_manager", lambda *_: (index, False))
    questions, theirs = same_as_lm_eval(tmp_path, ["outer"])
    answers = answers_of(questions, *answered(questions))
    for name in ("inner", "outer"):
        found = answers.aggregates[f"acc/{name}"]
        assert found.value == pytest.approx(theirs["results"][name]["acc,none"], rel=1e-12)
        assert found.draws.std() == pytest.approx(binomial_error(answers, name), rel=0.15)
    assert [found.n for found in answers.aggregates.values()] == [11 + 10, 11]


@pytest.mark.parametrize(("names", "own"), [(["one"], False), (["pair"], True), (["one", "marked"], True)])
def test_members_of_groups_and_tags_are_looked_for_among_lm_evals_tasks_too(tmp_path, monkeypatch, names, own):
    write_task(tmp_path, "one", tag="marked")
    (tmp_path / "pair.yaml").write_text("group: pair\ntask: [one, arc_easy]\n")
    asked_for = []

    def index(include_path, include_defaults=True):
        asked_for.append(include_defaults)
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", index)
    _, local = loading._manager(names, str(tmp_path))
    assert local is not own
    assert asked_for == [False, True][: 1 + own]


def binomial_error(answers, group):
    """The standard error of a group's accuracy, from those of its tasks."""
    shares = {"inner": {"one": 4 / 11, "two": 7 / 11}, "outer": dict.fromkeys(("one", "two", "three"), 1 / 3)}[group]
    return np.sqrt(sum(
        share**2 * answers.metrics[f"acc/{name}"].var() / len(answers.metrics[f"acc/{name}"])
        for name, share in shares.items()
    ))  # fmt: skip


def test_unconditional_requests_are_no_choices(tmp_path):
    write_task(tmp_path, "plain")
    write_task(tmp_path, "informed", metric_list=metrics("acc", "acc_mutual_info"))
    plain, informed = (Questions([name], str(tmp_path), allow_code=True) for name in ("plain", "informed"))
    assert len(informed.instances) == 2 * len(plain.instances)
    assert informed.documents.classes == plain.documents.classes == 3
    each = [answers_of(of, *answered(of)) for of in (plain, informed)]
    assert np.array_equal(each[0].log_probs, each[1].log_probs)


def test_a_value_stays_with_its_document_where_a_task_says_nothing_of_others(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    of_first = metrics("of_first", aggregation="mean")
    write_task(tmp_path, "t", process_results=function("code.some"), metric_list=of_first)
    questions = Questions(["t"], str(tmp_path), allow_code=True)
    found = answers_of(questions, *answered(questions)).metrics["of_first/t"]
    for position, question in enumerate(questions.of["t"]):
        expected = said(question.requests[0].args)[0] if not question.doc["gold"] else np.nan
        assert found[position] == pytest.approx(expected, nan_ok=True)


def test_scoring_one_system_leaves_the_documents_as_they_are_for_the_next(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    write_task(tmp_path, "t", process_results=function("code.some"), metric_list=metrics("chars", aggregation="mean"))
    questions = Questions(["t"], str(tmp_path), allow_code=True)
    before = deepcopy([question.doc for question in questions.of["t"]])
    first, second = (answers_of(questions, *answered(questions)).metrics["chars/t"] for _ in range(2))
    assert np.array_equal(first, second)
    assert before == [question.doc for question in questions.of["t"]]


def test_examples_are_drawn_alike_whatever_was_drawn_before_and_leave_the_random_states_alone(tmp_path):
    write_task(tmp_path, "t", num_fewshot=3, fewshot_split="test")
    asked = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        asked.append([i.args for i in Questions(["t"], str(tmp_path), allow_code=True).instances])
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert asked[0] == asked[1]


def test_a_task_that_scores_by_its_own_function_says_that_accuracy_is_not_its_own(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    write_task(tmp_path, "own", process_results=function("code.some"), metric_list=metrics("acc", aggregation="mean"))
    write_task(tmp_path, "plain")
    (note,) = Questions(["own", "plain"], str(tmp_path), allow_code=True).documents.notes
    assert note.startswith("own is scored by a function of its own")


def test_ids_are_unique_with_or_without_ids_of_the_documents(tmp_path):
    write_task(tmp_path, "named", [{**row, "id": f"r{i}"} for i, row in enumerate(rows())])
    write_task(tmp_path, "twice", [{**row, "id": "same"} for row in rows()])
    write_task(tmp_path, "plain")
    ids = Questions(["named", "twice", "plain"], str(tmp_path), allow_code=True).documents.ids
    assert len(set(ids)) == 24
    assert ids[0] == "named/r0"


def test_a_score_that_is_no_mean_has_the_spread_of_other_documents(tmp_path):
    """Of a mean, where the bootstrap has a formula; and the same draws for every system."""
    write_task(tmp_path, "t", rows(60), metric_list=metrics("brier_score", "mcc"))
    (tmp_path / "code.py").write_text("def mean(items):\n    return sum(items) / len(items)\n")
    write_task(tmp_path, "u", rows(60), metric_list=metrics("acc", aggregation=function("code.mean")))
    questions = Questions(["t", "u"], str(tmp_path), allow_code=True)
    found, again = (answers_of(questions, *answered(questions), draws=400) for _ in range(2))
    assert set(found.aggregates) == {"mcc/t", "acc/u"}
    assert set(found.metrics) == {"brier_score/t"}
    aggregate = found.aggregates["acc/u"]
    assert aggregate.draws.std() == pytest.approx(np.sqrt(aggregate.value * (1 - aggregate.value) / 60), rel=0.1)
    assert aggregate.draws.mean() == pytest.approx(aggregate.value, abs=0.02)
    assert np.array_equal(found.aggregates["mcc/t"].draws, again.aggregates["mcc/t"].draws)
    assert list(measures(found)) == ["brier_score/t"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_type": "generate_until"}, "a written answer is right or wrong by the first metric, and its acc is"),
        ({"output_type": "loglikelihood", "doc_to_target": "{{q}}"}, "is of type loglikelihood"),
        ({"doc_to_image": "q"}, "asks about images"),
        ({"unsafe_code": True}, "marked as unsafe"),
        ({"data": [*rows(2), {**rows()[0], "gold": -100}]}, "document 't/2' has the label -100"),
        ({"data": [{**row, "gold": row["gold"] + 1} for row in rows()]}, "the label 3, which is none of its 3 choices"),
        ({"data": [{**row, "gold": "D"} for row in rows()], "doc_to_choice": ["A", "B", "C"]}, "has the label 'D'"),
        ({"data": [{**row, "gold": [0, 2]} for row in rows()]}, "has 2 right choices: a suite takes one"),
        ({"metric_list": metrics("f1")}, "lm-eval's f1 cannot be had: ValueError: Target is multiclass"),
        ({"metric_list": metrics("likelihood")}, "lm-eval's likelihood cannot be had"),
        ({"process_docs": function("code.shuffled")}, "documents are others each time they are read"),
        ({"process_results": function("code.many")}, "lm-eval's acc cannot be had"),
        ({"process_results": function("code.nothing")}, "cannot be loaded"),
        ({"doc_to_choice": "{{choices}"}, "cannot be loaded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_suite_cannot_take_is_refused_in_a_line_before_anything_runs(tmp_path, settings, words):
    (tmp_path / "code.py").write_text(CODE)
    write_task(tmp_path, "t", **settings)
    with pytest.raises(BadInput) as caught:
        rehearse(Questions(["t"], str(tmp_path), allow_code=True))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("named", [{}, {"data_files": None}, {"data_dir": ""}])
@pytest.mark.parametrize("loader", ["json", "csv", "imagefolder"])
def test_a_task_that_names_no_files_reads_none_of_the_working_directory(tmp_path, monkeypatch, loader, named):
    path = write_task(tmp_path / "tasks", "t")
    settings = {**yaml.safe_load(path.read_text()), "dataset_path": loader, "dataset_kwargs": named}
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "here").mkdir()
    (tmp_path / "tasks/t.jsonl").rename(tmp_path / "here/test.jsonl")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(BadInput, match=f"dataset_path '{loader}' reads files, and dataset_kwargs names none"):
        Questions(["t"], str(tmp_path / "tasks"))


def test_nothing_that_a_task_prints_gets_out(tmp_path, capfd):
    code = "def text(doc):\n    print(doc)\n    return doc['q']\n"
    code += "def choices(doc):\n    print(doc)\n    return doc['choices']\n"
    code += "def score(doc, results):\n    print(doc)\n    return {'acc': 1.0}\n"
    (tmp_path / "code.py").write_text(code)
    write_task(tmp_path, "t", doc_to_text=function("code.text"), doc_to_choice=function("code.choices"),
               process_results=function("code.score"))  # fmt: skip
    rehearse(Questions(["t"], str(tmp_path), allow_code=True))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
