"""Pipelines: what each stage hands on, what its failures are, and that calls and files are those of plain loops."""

import json

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from harness.cost import counters
from harness.models import raw
from harness.models.classifiers import texts_of
from harness.systems.fitting import uniform
from harness.systems.parts import MaskedPart, MemberPart
from harness.systems.pipeline import Name, Pipeline, Restore
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, load_combination
from harness.types import NotApplicable
from tests.models.classifier_folders import LABELS
from tests.systems.restorers import classifier, plain_mask_predict, pool, restorer, split

BATCH = split("test").inputs
SAID = [texts[0] for texts in texts_of(BATCH)]


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def reads(position=1):
    return OutputCombination([MemberPart(pool().members[position])], Linear(uniform(1)))


def restores(rounds=0, share=0.0, kind="words"):
    return Restore(MaskedPart(pool(kind).members[0]), rounds, share)


def system(*stages, last=None, **settings):
    return Pipeline(stages or [restores()], last or reads(), len(LABELS), **settings)


def examples(*texts):
    return raw.held([json.dumps([text] if isinstance(text, str) else text).encode() for text in texts])


@pytest.mark.parametrize("rounds", [0, 3])
def test_a_plain_loop_with_transformers_gives_the_same_texts_classes_and_calls(rounds):
    folder = restorer()
    masked, words = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    other = classifier(1)
    network = AutoModelForSequenceClassification.from_pretrained(other).eval()
    tokenizer = AutoTokenizer.from_pretrained(other)
    found = system(restores(rounds)).trace(BATCH)
    for row, text in enumerate(SAID):
        restored, calls = plain_mask_predict(masked, words, text, rounds)
        assert found.results[0][row] == restored
        assert found.calls[row].tolist() == [calls, 1]
        logits = network(**tokenizer(restored, return_tensors="pt", return_token_type_ids=False)).logits[0]
        torch.testing.assert_close(found.log_probs[row], logits.log_softmax(-1), atol=1e-5, rtol=1e-5)
    assert found.failed == [None] * len(SAID)


def test_a_restorer_that_changes_nothing_leaves_what_its_reader_says_of_the_text():
    with examples("the film was great", "i sleep !") as batch:
        found = system().trace(batch)
        assert torch.equal(found.log_probs, reads().log_probs(batch))
    assert found.results == [["the film was great", "i sleep !"]]
    assert found.calls.tolist() == [[0, 1], [0, 1]]  # with nothing to fill in the restorer does not run


def test_a_true_result_in_the_place_of_a_stages_own_leaves_what_follows_to_itself():
    truth = [f"a great film {row}" for row in range(len(SAID))]
    found = system(restores(4)).trace(BATCH, [truth])
    with examples(*truth) as clean:
        assert torch.equal(found.log_probs, reads().log_probs(clean))
    assert found.calls[:, 0].sum() == 0


def test_a_class_is_handed_on_by_its_name_as_the_second_text():
    stage = Name(MemberPart(pool().members[2]), LABELS)
    found = system(stage).trace(BATCH)
    names = [LABELS[row] for row in reads(2).log_probs(BATCH).argmax(-1).tolist()]
    assert found.results == [names]
    with examples(*([text, name] for text, name in zip(SAID, names, strict=True))) as pairs:
        torch.testing.assert_close(found.log_probs, reads().log_probs(pairs))
    assert found.calls.tolist() == [[1, 1]] * len(SAID)
    true = system(stage).trace(BATCH, [[LABELS[0]] * len(SAID)])
    with examples(*([text, LABELS[0]] for text in SAID)) as pairs:
        torch.testing.assert_close(true.log_probs, reads().log_probs(pairs))


def test_both_texts_of_a_pair_are_restored():
    with examples(["a [MASK] film", "the [MASK] day"], ["i sleep", "a day"]) as batch:
        found = system().trace(batch)
    with examples("a [MASK] film", "the [MASK] day") as alone:
        one, two = system().trace(alone).results[0]
    assert found.results == [[json.dumps([one, two]), json.dumps(["i sleep", "a day"])]]
    assert found.calls[:, 0].tolist() == [2, 0]


def test_what_a_stage_cannot_take_is_recorded_with_the_stage_and_the_others_go_on():
    with examples("a [MASK] film", "", "day " * 60, "the [MASK] day") as batch:
        found = system().trace(batch)
        kept = system(otherwise="unchanged").trace(batch)
        expected = reads().log_probs(batch)
    assert [fault and fault[0] for fault in found.failed] == [None, 0, 0, None]
    assert found.failed[1][1] == "the text has no token"
    assert found.failed[2][1].startswith("the text has 62 tokens")
    uniform_row = torch.full((3,), 1 / 3).log()
    assert torch.equal(found.log_probs[1:3], uniform_row.expand(2, 3))
    assert found.calls[1:3].tolist() == [[0, 0], [0, 0]]
    with examples("a [MASK] film", "the [MASK] day") as alone:
        torch.testing.assert_close(found.log_probs[[0, 3]], system().log_probs(alone))
    torch.testing.assert_close(kept.log_probs[1:3], expected[1:3])
    assert kept.failed == found.failed


def test_what_the_last_stage_cannot_take_is_its_own_failure():
    class Picky(OutputCombination):
        def log_probs(self, batch):
            if any("rain" in texts[0] for texts in texts_of(batch)):
                raise IndexError("no position is left")
            return super().log_probs(batch)

    picky = Picky([MemberPart(pool().members[1])], Linear(uniform(1)))
    with examples("the rain", "a day") as batch:
        found = system(last=picky).trace(batch)
        fine = reads().log_probs(batch)
    assert found.failed == [(1, "IndexError: no position is left"), None]
    assert torch.equal(found.log_probs[0], torch.full((3,), 1 / 3).log())
    torch.testing.assert_close(found.log_probs[1], fine[1])


def test_calls_add_up_to_what_the_networks_ran_on_and_to_the_costs():
    made = system(restores(3, 0.25))
    rows = []
    for part in made.parts():
        part.module.register_forward_hook(
            lambda module, given, named, out: rows.append((id(module), len(named["input_ids"]))), with_kwargs=True
        )
    _, calls = made.run(BATCH)
    for part, count in zip(made.parts(), calls.sum(dim=0).tolist(), strict=True):
        assert sum(n for module, n in rows if module == id(part.module)) == count
    figures = counters.counted(made, calls, BATCH)
    sizes = [sum(p.numel() for p in part.module.parameters()) for part in made.parts()]
    mean = calls.double().mean(dim=0)
    assert figures["params_stored"] == sum(sizes)
    assert figures["params_active"] == pytest.approx(float(mean @ torch.tensor(sizes).double()))
    each = counters.flops_of_parts(made, BATCH)
    assert min(each) > 0
    assert figures["flops_per_example"] == pytest.approx(float(mean @ torch.tensor(each).double()))


@pytest.mark.parametrize("stage", ["text", "class"])
def test_saved_and_loaded_again_it_is_the_same(tmp_path, stage):
    stages = [restores(2, 0.3)] if stage == "text" else [Name(MemberPart(pool().members[2]), LABELS)]
    made = system(*stages, otherwise="unchanged")
    made.save(tmp_path)
    again = load_combination(tmp_path, pool())
    assert isinstance(again, Pipeline)
    assert torch.equal(again.log_probs(BATCH), made.log_probs(BATCH))
    assert (again.otherwise, again.says) == ("unchanged", "probabilities")


def test_a_masked_language_model_says_no_class():
    with pytest.raises(NotApplicable, match="gives text and no class"):
        MaskedPart(pool().members[0]).log_probs(BATCH)
