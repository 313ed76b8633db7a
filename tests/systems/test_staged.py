"""Staged systems: who answers, what runs for whom, and that cached predictions and files give the same system."""

from dataclasses import dataclass

import pytest
import torch

from harness.checks.pools import MLP, independent, on_test, plain_predict, split, trained
from harness.cost.counters import flops_per_example, parameters_active
from harness.evaluate.predictions import CachedPredictions, run
from harness.models.weights import module_with
from harness.store import Store
from harness.systems.acceptance import Acceptance, Confidence
from harness.systems.deciding import why_undecided
from harness.systems.dropout import DropoutPass
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, SingleModel, load_combination
from harness.types import NotApplicable

POOL, MERGED = independent(3), trained(MLP, 5)
INPUTS = split("test").inputs
ALWAYS, NEVER = Confidence(0.0), Confidence(1.1)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


class Counting(MemberPart):
    """Notes how many rows it is run on."""

    def __init__(self, member):
        super().__init__(member)
        self.rows = []

    def log_probs(self, batch):
        self.rows.append(len(batch))
        return super().log_probs(batch)


def mean_of(*parts):
    return OutputCombination(parts, Linear(uniform(len(parts))))


def soup():
    return SingleModel(MLP, module_with(MLP, MERGED))


def parts():
    return [Counting(member) for member in POOL.members]


def two_stages(accept, models=None):
    first, *_ = models = models or parts()
    return Staged([mean_of(first), mean_of(*models)], [accept])


def middle():
    """A threshold that about half of the examples do not reach, half way between two confidences."""
    ordered = plain_predict(MemberPart(POOL.members[0]), split("test")).exp().amax(1).unique()
    return Confidence(float(ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2)


def test_accepting_always_is_the_first_at_its_cost_and_never_the_last_at_the_summed_cost():
    models = parts()
    for accept, same, called in ((ALWAYS, mean_of(models[0]), [1, 0, 0]), (NEVER, mean_of(*models), [1, 1, 1])):
        found, calls = two_stages(accept).run(INPUTS)
        assert torch.equal(found, same.log_probs(INPUTS))
        assert calls.unique(dim=0).tolist() == [called]
        assert parameters_active(two_stages(accept), calls) == parameters_active(same)
        assert flops_per_example(two_stages(accept), INPUTS, calls) == flops_per_example(same, INPUTS)


def test_a_later_stage_runs_on_what_is_left_only_and_a_model_runs_once_for_an_example():
    models = parts()
    found, calls = two_stages(middle(), models).run(INPUTS)
    left = int(calls[:, 1].sum())
    assert 0 < left < len(INPUTS)
    assert [model.rows for model in models] == [[len(INPUTS)], [left], [left]]
    assert calls.sum(dim=0).tolist() == [sum(model.rows) for model in models]
    by_hand = [plain_predict(MemberPart(member), split("test")).double().exp() for member in POOL.members]
    first, every = by_hand[0], torch.stack(by_hand).mean(0)
    goes_on = first.amax(1) < middle().threshold
    torch.testing.assert_close(found.double().exp(), torch.where(goes_on[:, None], every, first), atol=1e-6, rtol=0)
    assert calls[:, 1].bool().tolist() == goes_on.tolist()


def test_raising_a_threshold_never_lowers_the_cost():
    costs = [float(two_stages(Confidence(t)).run(INPUTS)[1].double().mean()) for t in torch.linspace(0, 1.1, 20)]
    assert costs == sorted(costs)
    assert costs[0] < costs[10] < costs[-1]


def test_an_example_alone_has_the_answer_and_the_calls_that_it_has_among_others():
    system = two_stages(middle())
    found, calls = system.run(INPUTS)
    for row in range(12):
        one, called = system.run(INPUTS[row : row + 1])
        torch.testing.assert_close(one[0], found[row], atol=1e-6, rtol=1e-6)
        assert called[0].tolist() == calls[row].tolist()


def three_stages():
    """A soup, then two members, then all: what a stage shares with one before it, and a model that a method made."""
    models = [MemberPart(member) for member in POOL.members]
    return Staged([soup(), mean_of(*models[:2]), mean_of(*models)], [Confidence(0.95), Confidence(0.8)])


def test_files_hold_the_system_and_no_member_of_the_pool(tmp_path):
    system = three_stages()
    system.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert [path.parent.name for path in files if path.name == "model.safetensors"] == ["stage-0"]
    shared = {}
    again = load_combination(tmp_path, POOL, shared=shared)
    (one, calls), (two, others) = system.run(INPUTS), again.run(INPUTS)
    assert torch.equal(one, two)
    assert torch.equal(calls, others)
    assert again.accept == system.accept
    assert shared.keys() == {member.digest for member in POOL.members}
    assert len(again.parts()) == len(system.parts()) == 4


def test_cached_predictions_give_the_same_answers_and_calls(tmp_path):
    system = three_stages()
    found = run(system, split("test"), CachedPredictions(Store(tmp_path), "cpu"))
    log_probs, calls = system.run(INPUTS)
    torch.testing.assert_close(found.log_probs, log_probs, atol=1e-6, rtol=1e-6)
    assert torch.equal(found.calls, calls)
    assert len(calls.unique(dim=0)) == 3
    # of the model that a method made nothing is kept: its name tells it from no other of its architecture
    assert len(list(Store(tmp_path).artefacts())) == 3


def test_passes_whose_masks_depend_on_the_batch_are_run_and_not_replayed(tmp_path):
    whole = MemberPart(POOL.members[0])
    passes = [DropoutPass(whole, index, 1) for index in range(2)]
    assert not Staged([mean_of(whole), mean_of(*passes)], [NEVER]).replays
    assert Staged([mean_of(*passes), mean_of(whole)], [NEVER]).replays


def test_shares_are_of_the_examples_that_stop_at_each_stage():
    system = three_stages()
    _, calls = system.run(INPUTS)
    shares = system.shares(calls)
    confident = on_test(soup()).exp().amax(1) >= 0.95
    assert shares[0]["share"] == pytest.approx(float(confident.double().mean()))
    assert sum(each["share"] for each in shares) == pytest.approx(1)
    assert [len(each["models"]) for each in shares] == [1, 3, 4]


@dataclass(frozen=True)
class Unanimous(Acceptance):
    """All models that have run so far have the same first choice."""

    def __call__(self, log_probs, models):
        first = models.argmax(dim=-1)
        return (first == first[0]).all(dim=0)


def test_an_acceptance_of_another_module_sees_all_models_so_far_and_is_found_again(tmp_path):
    models = [MemberPart(member) for member in POOL.members]
    system = Staged([mean_of(models[0]), mean_of(models[1]), mean_of(models[2])], [NEVER, Unanimous()])
    said = torch.stack([plain_predict(model, split("test")) for model in models])
    agree = said[0].argmax(1) == said[1].argmax(1)
    found, calls = system.run(INPUTS)
    torch.testing.assert_close(found, torch.where(agree[:, None], said[1], said[2]), atol=1e-6, rtol=1e-6)
    assert calls[:, 2].bool().tolist() == (~agree).tolist()
    system.save(tmp_path)
    assert load_combination(tmp_path, POOL).accept == system.accept


def test_a_stage_that_says_nan_is_not_covered_by_the_next():
    broken = soup()
    next(broken.module.parameters()).data.fill_(torch.nan)
    found, _ = Staged([broken, mean_of(*parts())], [NEVER]).run(INPUTS)
    assert found.isnan().all()


def test_stages_are_rules_and_models_with_an_acceptance_between_each_two():
    one = mean_of(*parts())
    with pytest.raises(ValueError, match="2 stages need 1 acceptances, not 0"):
        Staged([one, one], [])
    with pytest.raises(ValueError, match="not Staged"):
        Staged([Staged([one], []), one], [ALWAYS])
    torch.testing.assert_close(Staged([one], []).log_probs(INPUTS), one.log_probs(INPUTS))


def test_windows_of_text_have_no_choices_to_decide_by():
    windows = split("test")
    system = two_stages(ALWAYS)
    assert why_undecided(system, windows) is None

    class Windows(MemberPart):
        def log_probs(self, batch):
            return super().log_probs(batch).repeat(3, 1)

    with pytest.raises(NotApplicable, match="windows of text have none"):
        Staged([mean_of(Windows(POOL.members[0]))], []).run(INPUTS)


def test_what_is_not_staged_calls_every_part_once():
    for combination in (mean_of(*parts()), soup()):
        found, calls = combination.run(INPUTS)
        assert torch.equal(found, combination.log_probs(INPUTS))
        assert calls.shape == (len(INPUTS), len(combination.parts()))
        assert (calls == 1).all()
        assert not combination.calls_vary
        replayed, again = combination.replay([plain_predict(part, split("test")) for part in combination.parts()])
        torch.testing.assert_close(replayed, found, atol=1e-6, rtol=1e-6)
        assert torch.equal(calls, again)
