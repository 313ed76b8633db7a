"""Staged systems on lm-eval's choices against a plain loop, document by document; what cannot be asked is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.errors import BadInput
from harness.evaluate.routing import fit_router
from harness.lm import combination_file
from harness.lm.evaluation import Unscored, measures, score_combinations
from harness.models.architectures import build
from harness.models.tokens import read_tokenizer
from harness.models.weights import module_with
from harness.store import Store
from harness.systems.acceptance import Confidence, Margin
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.routed import Routed
from harness.systems.routers import evidence_of
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, SingleModel
from harness.tasks import text
from harness.types import Architecture, Combination, Member
from tests.lm.written_tasks import load as load_written
from tests.lm.written_tasks import small_domain, store_of, trained_parts, write_task


def write_tasks(folder):
    """Twelve questions with two or three choices, asked again without context for mutual information; and texts."""
    asked = [
        {"q": f"{i} and {i % 5}:", "c": [f" a{i}", f" b{i}", f" c{i}"][: 2 + i % 2], "a": i % 2} for i in range(12)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/q.jsonl}}}}\ntest_split: test\n"
    (folder / "q.yaml").write_text(
        f"task: q\n{data}output_type: multiple_choice\ndoc_to_text: '{{{{q}}}}'\ndoc_to_choice: '{{{{c}}}}'\n"
        "doc_to_target: '{{a}}'\nmetric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_mutual_info}]\n"
    )
    (folder / "r.yaml").write_text(
        f"task: r\n{data}output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{{{q}}}}'\n"
        "metric_list: [{metric: bits_per_byte}]\n"
    )


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    patch = pytest.MonkeyPatch()
    patch.setattr(text, "DOMAINS", {"python": text.DOMAINS["python"]})  # the one that comes with the interpreter
    patch.setattr(text, "TOKENIZER_CHARACTERS", 20_000)
    patch.setattr(text, "WINDOWS", {"train": 12, "heldout": 3, "test": 2})
    patch.setattr(text, "VOCABULARY", 300)
    store = Store(tmp_path_factory.mktemp("store"))
    yield lambda *names: text.load(text.TextReference("toy", names, str(folder)), store, limit=None)
    patch.undo()


@pytest.fixture(scope="module")
def task(load):
    return load("q")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Models, and tasks of every type."""
    patch, folder, store = pytest.MonkeyPatch(), tmp_path_factory.mktemp("mixed"), store_of(tmp_path_factory)
    small_domain(patch)
    write_task(folder)
    choices = {"output_type": "multiple_choice", "doc_to_choice": ["a", "e", "t"], "doc_to_target": 1}
    write_task(folder, "choices", metric_list=[{"metric": "acc"}], filter_list=None, **choices)
    texts = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{context}}"}
    write_task(folder, "texts", metric_list=[{"metric": "bits_per_byte"}], filter_list=None, **texts)
    yield trained_parts(load_written(folder, store, "choices")), lambda *names: load_written(folder, store, *names)
    patch.undo()


def architecture_for(task):
    return Architecture("tiny_llama", (("hidden", 16), ("layers", 1), ("heads", 2), ("vocab", task.vocabulary)))


@pytest.fixture(scope="module")
def parts(task):
    architecture, found = architecture_for(task), []
    for k in range(3):
        torch.manual_seed(k)
        weights = {name: 4 * tensor for name, tensor in build(architecture).state_dict().items()}
        found.append(MemberPart(Member(f"m{k}", architecture, weights, "", 0, {}, f"m{k}")))
    return found


def mean_of(*parts):
    return OutputCombination(parts, Linear(uniform(len(parts))))


def by_hand(stages, thresholds, order):
    """Per document: the first stage whose best choice has the threshold, or the last."""
    stops = []
    for row in range(len(order)):
        stop = 0
        while stop < len(thresholds) and np.exp(stages[stop].log_probs[row].max()) < thresholds[stop]:
            stop += 1
        stops.append(stop)
    return stops


def threshold_between(log_probs):
    """Half of the documents reach it."""
    ordered = np.sort(np.exp(log_probs.max(axis=1)))
    return float(ordered[5] + ordered[6]) / 2


def test_every_document_has_the_answers_of_the_stage_where_it_stops(task, parts):
    merged = SingleModel(architecture_for(task), module_with(architecture_for(task), parts[2].member.weights))
    stages = [merged, mean_of(*parts[:2]), mean_of(*parts)]
    alone = score_combinations(stages, task).answers
    thresholds = [threshold_between(alone[0].log_probs), threshold_between(alone[1].log_probs)]
    system = Staged(stages, [Confidence(value) for value in thresholds])
    found = score_combinations([mean_of(*parts), system], task)
    answers, calls = found.answers[1], found.calls[1]
    stops = by_hand(alone, thresholds, task.documents.ids)
    assert set(stops) == {0, 1, 2}
    np.testing.assert_allclose(
        answers.log_probs, [alone[stop].log_probs[row] for row, stop in enumerate(stops)], atol=1e-5
    )
    for metric in ("acc/q", "acc_norm/q", "acc_mutual_info/q"):
        expected = [alone[stop].metrics[metric][row] for row, stop in enumerate(stops)]
        assert answers.metrics[metric].tolist() == expected
        assert answers.scores[metric] == pytest.approx(np.mean(expected))
    assert calls.tolist() == [[[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]][stop] for stop in stops]
    assert found.calls[0].tolist() == [[1, 1, 1]] * 12
    assert [each["models"] for each in found.record] == [4]  # all in one pass


def test_a_cascade_of_two_models_is_a_plain_loop_over_lm_evals_own_model(task, parts):
    """Per document: its choices' log-likelihoods under the first model, and under the second where none is likely."""
    models = [HFLM(part.module, tokenizer=read_tokenizer(task.tokenizer), batch_size=1) for part in parts[:2]]
    alone = score_combinations([mean_of(parts[0])], task).answers[0]
    threshold = threshold_between(alone.log_probs)
    right, normed, calls = [], [], []
    for line in (question.doc for question in task.questions.of["q"]):
        requests = [Instance("loglikelihood", line, (line["q"], " " + choice), 0) for choice in line["c"]]
        for number, model in enumerate(models):
            said = np.array([value for value, _ in model.loglikelihood(requests, disable_tqdm=True)])
            called = [1, number]
            if np.exp(said - np.logaddexp.reduce(said)).max() >= threshold:
                break
        right.append(float(said.argmax() == line["a"]))
        normed.append(float((said / [len(choice) for choice in line["c"]]).argmax() == line["a"]))
        calls.append(called)
    found = score_combinations([Staged([mean_of(parts[0]), mean_of(parts[1])], [Confidence(threshold)])], task)
    assert found.answers[0].metrics["acc/q"].tolist() == right
    assert found.answers[0].metrics["acc_norm/q"].tolist() == normed
    assert found.calls[0].tolist() == calls
    assert len({tuple(each) for each in calls}) == 2


def test_accepting_always_is_the_first_stage_and_never_the_last(task, parts):
    stages = [mean_of(parts[0]), mean_of(*parts)]
    systems = [Staged(stages, [Confidence(threshold)]) for threshold in (0.0, 1.1)]
    found = score_combinations([*stages, *systems], task)
    for one, other in zip(found.answers[:2], found.answers[2:], strict=True):
        assert np.array_equal(one.log_probs, other.log_probs)
        assert one.scores == other.scores
    assert [calls.sum(axis=1).tolist() for calls in found.calls[2:]] == [[1] * 12, [3] * 12]


def router_on(task, parts, asked=0):
    """A router of these parts that has seen the task's documents, and for each third of them another part be right."""
    evidence = evidence_of(torch.from_numpy(score_combinations([mean_of(parts[asked])], task).answers[0].log_probs))
    right = torch.eye(len(parts))[torch.arange(len(evidence)) % len(parts)]
    router = replace(fit_router(evidence, right, "neighbours"), count=torch.tensor(1))
    return Routed(parts, router, [0.0] * len(parts), asked=asked)


def test_every_document_has_the_answers_of_the_member_that_is_picked_for_it(task, parts):
    system = router_on(task, parts)
    found = score_combinations([*map(mean_of, parts), system], task)
    *alone, answers = found.answers
    expected = [row % 3 for row in range(12)]
    for row, member in enumerate(expected):
        assert np.array_equal(answers.log_probs[row], alone[member].log_probs[row])
        for metric in ("acc/q", "acc_norm/q", "acc_mutual_info/q"):
            assert answers.metrics[metric][row] == alone[member].metrics[metric][row]
    assert found.calls[-1].tolist() == [[1, int(member == 1), int(member == 2)] for member in expected]


def test_a_router_takes_no_more_choices_than_it_was_fitted_on_and_no_several_members(task, parts):
    few, several = router_on(task, parts), router_on(task, parts)
    few.router = replace(few.router, centre=few.router.centre[:-1])
    several.picked = 2
    reasons = [str(found) for found in score_combinations([few, several], task).answers]
    assert "up to 3 choices, the router's held-out ones up to 2" in reasons[0]
    assert "picks one language model" in reasons[1]


ORDERS = [("choices", "texts", "letters"), ("texts", "letters", "choices"), ("letters", "choices", "texts")]


@pytest.mark.parametrize("names", ORDERS, ids=lambda names: "-".join(names))
def test_what_decides_by_choices_is_scored_on_the_tasks_that_have_them_and_told_of_the_others(mixed, names):
    """Whatever the order of the tasks, and whatever else they are: its scores are those of its tasks alone."""
    parts, load = mixed
    task, plain = load(*names), mean_of(*parts[:2])
    margin = Staged([mean_of(parts[0]), plain], [Margin(0.2)])
    confident = Staged([mean_of(parts[0]), plain], [Confidence(0.5)])
    fitted = Staged(confident.stages, confident.accept, settings=[confident.accept])
    systems = [margin, confident, router_on(load("choices"), parts), plain, fitted]
    found, apart = score_combinations(systems, task), score_combinations(systems, load("choices"))
    lacking = [each.keys() for each in found.lacking]
    assert lacking == [{"texts", "letters"}, {"texts"}, {"texts", "letters"}, set(), {"texts", "letters"}]
    assert "Margin decides by the probabilities of classes" in found.lacking[0]["letters"]
    assert "choices of a document, and these have none" in found.lacking[1]["texts"]
    assert "what is written has none" in found.lacking[2]["letters"]
    assert "thresholds were fitted on choices" in found.lacking[4]["letters"]
    for answers, alone, calls, called, not_there in zip(
        found.answers, apart.answers, found.calls, apart.calls, lacking, strict=True
    ):
        np.testing.assert_allclose(answers.log_probs, alone.log_probs, atol=1e-5)
        assert alone.scores.items() <= answers.scores.items()
        assert calls.tolist() == called.tolist()
        scored = {place.partition("/")[2] for place in answers.scores} | {each.task for each in answers.rolling}
        assert scored == {*names} - not_there
        assert ("bits_per_byte" in measures(answers)) == ("texts" not in not_there)


def test_a_system_without_an_answer_to_what_all_are_compared_by_has_no_scores(mixed):
    """Without choices these are the documents that are answered in writing."""
    parts, load = mixed
    systems = [Staged([mean_of(parts[0]), mean_of(parts[1])], [accept]) for accept in (Margin(0.2), Confidence(0.5))]
    found = score_combinations([*systems, router_on(load("choices"), parts)], load("texts", "letters"))
    assert [isinstance(each, Unscored) for each in found.answers] == [True, False, True]
    assert found.lacking[1].keys() == {"texts"}


def test_a_stage_that_cannot_be_scored_is_the_reason_of_the_whole(task, parts):
    broken = SingleModel(architecture_for(task), build(architecture_for(task)))
    next(broken.module.parameters()).data.fill_(torch.nan)
    system = Staged([mean_of(parts[0]), broken], [Confidence(0.0)])
    found, other = score_combinations([system, mean_of(parts[0])], task).answers
    assert "not finite" in str(found)
    assert not isinstance(other, Unscored)


class Unknown(Combination):
    """A combination of several parts that is no output rule: its first part is not it."""

    def __init__(self, parts):
        self.several, self.details = parts, {}

    def log_probs(self, batch):
        return self.several[0].log_probs(batch)

    def parts(self):
        return self.several

    def save(self, folder):
        raise NotImplementedError


def test_a_combination_of_another_kind_is_refused_and_never_scored_as_its_first_part(task, parts):
    unknown, plain = score_combinations([Unknown(parts), mean_of(*parts)], task).answers
    assert isinstance(unknown, Unscored)
    assert "and this is of the class Unknown" in str(unknown)
    assert not isinstance(plain, Unscored)


def test_a_combination_file_takes_rules_and_models_only(parts):
    for refused in (Unknown(parts), Staged([mean_of(*parts)], [])):
        with pytest.raises((BadInput, TypeError), match="no rule over models"):
            combination_file.models_and_rule(refused)
