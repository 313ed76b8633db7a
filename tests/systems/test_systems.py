"""What a combination runs, what it is over, and how it is read back from disk."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer as Words
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from harness.checks.pools import CNN, build_method, independent, member, split, trained
from harness.cost import counters
from harness.evaluate.predictions import predict
from harness.models.architectures import build
from harness.models.tokens import read_tokenizer
from harness.systems.dropout import DropoutPass
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Contrast, Linear, LogLinear, Tempered
from harness.systems.systems import OutputCombination, dense_network, load_combination
from harness.types import (
    Architecture,
    Ingredients,
    Member,
    NotApplicable,
    Pool,
    Split,
    Tokenizer,
    check_tokens,
    cut_to,
    shared_labels,
    tokens_known,
)


def test_combinations_read_with_one_dictionary_load_each_part_once(tmp_path):
    members = [member(f"m{k}", trained(CNN, k)) for k in range(3)]
    pool = Pool("main", "fine_tunes", tuple(members[:2]), base=members[2])
    passes = [DropoutPass(MemberPart(members[0]), index, seed=0) for index in range(2)]
    written = {
        "pair": [MemberPart(members[0]), MemberPart(members[1])],
        "contrast": [MemberPart(members[2]), MemberPart(members[0]), MemberPart(members[2])],
        "dropout": passes,
    }
    shared = {}
    for name, parts in written.items():
        combination = OutputCombination(parts, Linear(uniform(len(parts))))
        (tmp_path / name).mkdir()
        combination.save(tmp_path / name)
        again = load_combination(tmp_path / name, pool, shared=shared)
        alone = load_combination(tmp_path / name, pool)
        inputs = split("test").inputs
        assert torch.equal(again.log_probs(inputs), combination.log_probs(inputs))
        assert [part.digest for part in again.parts()] == [part.digest for part in parts]
        held = {id(part.module) for part in shared.values()}
        assert all(id(part.module) in held for part in again.parts())
        assert not any(id(part.module) in held for part in alone.parts())
    assert shared.keys() == {member.digest for member in members}  # all passes with dropout are of one network


# Members of weight zero


class Absent(MemberPart):
    """A part that must not be run."""

    @property
    def module(self):
        raise AssertionError("it was run")


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (Linear(torch.tensor([0.0, 1.0, 0.0])), [1]),
        (Linear(torch.tensor([0.4, 0.0, 0.6])), [0, 2]),
        (LogLinear(torch.tensor([1.5, 0.0, -0.5])), [0, 2]),
        (LogLinear(torch.zeros(3)), [0]),
        (Tempered(Linear(torch.tensor([0.0, 0.0, 1.0])), 2.0), [2]),
        (Contrast(0.0, "none", 0.1), [0]),
    ],
)
def test_a_member_of_weight_zero_is_not_run_not_counted_and_not_saved(tmp_path, rule, kept):
    members = [member(f"m{k}", trained(CNN, k)) for k in range(3)]
    parts = [(MemberPart if k in kept else Absent)(each) for k, each in enumerate(members)]
    combination = OutputCombination(parts, rule, {"weights": [1, 2, 3]})
    inputs = split("test").inputs
    stacked = torch.stack([MemberPart(each).log_probs(inputs) for each in members])
    assert torch.equal(combination.log_probs(inputs), rule(stacked))
    assert list(combination.parts()) == [parts[k] for k in kept]
    assert combination.details["weights"] == [1, 2, 3]
    assert combination.details["not_run"] == [f"m{k}" for k in range(3) if k not in kept]
    alone = OutputCombination([parts[k] for k in kept], Linear(uniform(len(kept))))
    for count in (counters.parameters_stored, counters.parameters_active):
        assert count(combination) == count(alone)
    assert counters.flops_per_example(combination, inputs[:2]) == pytest.approx(
        counters.flops_per_example(alone, inputs[:2]), rel=0.01
    )
    combination.save(tmp_path)
    again = load_combination(tmp_path, Pool("main", "fine_tunes", tuple(members[k] for k in kept)))
    assert torch.equal(again.log_probs(inputs), combination.log_probs(inputs))


# Vocabularies

KNOWN = 40


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer whose ids have a hole: it knows up to 39."""
    folder = tmp_path_factory.mktemp("words")
    known = {f"t{k}": k for k in range(KNOWN) if k != 7}
    inner = Words(models.WordLevel(known, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="t0").save_pretrained(folder)
    return Tokenizer("words", str(folder), tokens_known(read_tokenizer(folder)))


def language_model(vocabulary, seed, tokenizer):
    architecture = Architecture(
        "tiny_llama", (("hidden", 16), ("layers", 1), ("heads", 2), ("vocab", vocabulary), ("context", 16))
    )
    torch.manual_seed(seed)
    weights = {name: 3 * tensor for name, tensor in build(architecture).state_dict().items()}
    return Member(f"m{seed}", architecture, weights, "", 0, {}, f"{vocabulary}/{seed}", tokenizer)


def windows(tokenizer, most=KNOWN):
    inputs = torch.arange(24).view(3, 8) % most
    return Split("heldout", inputs, inputs[:, 1:].flatten(), ["a", "b", "c"], "windows", tokenizer=tokenizer)


def test_members_padded_otherwise_are_combined_over_the_tokens_of_their_tokenizer(words):
    members = [language_model(size, seed, words) for seed, size in enumerate((48, 44, KNOWN))]
    parts, text = [MemberPart(each) for each in members], windows(words)
    found = OutputCombination(parts, Linear(uniform(3)))
    logits = [part.module.double()(input_ids=text.inputs[:, :-1]).logits.flatten(0, 1)[:, :KNOWN] for part in parts]
    expected = torch.stack([each.softmax(-1) for each in logits]).mean(0).log()
    for part in parts:
        part.module.float()
    torch.testing.assert_close(found.log_probs(text.inputs).double(), expected, rtol=1e-5, atol=1e-5)
    assert found.details["vocabulary"].startswith(f"cut to the {KNOWN} tokens")
    given = Ingredients(Pool("p", "independent", tuple(members)), replace(text), text,
                        lambda part, split: predict(part.log_probs, split), 0, frozenset({"heldout"}))  # fmt: skip
    stacked = given.stacked(parts, text)
    assert torch.equal(found.combine(stacked), found.log_probs(text.inputs))  # the fast path is the slow one
    for part, whole in zip(parts, given.predictions(parts, text), strict=True):
        assert torch.equal(whole, part.log_probs(text.inputs))


def test_one_member_and_members_padded_alike_keep_all_they_have(words):
    one, other = (MemberPart(language_model(48, seed, words)) for seed in range(2))
    for parts in ([one], [one, other]):
        found = OutputCombination(parts, Linear(uniform(len(parts))))
        assert found.log_probs(windows(words).inputs).shape[-1] == 48
        assert "vocabulary" not in found.details
    assert torch.equal(cut_to(48, one.log_probs(windows(words).inputs)), one.log_probs(windows(words).inputs))


def test_a_member_that_lacks_tokens_is_named_and_stands_alone(words):
    whole, lacking = (MemberPart(language_model(size, seed, words)) for seed, size in enumerate((48, KNOWN - 1)))
    with pytest.raises(NotApplicable, match="m0 has a vocabulary of 48 and m1 one of 39: m1 lacks some of the 40"):
        OutputCombination([whole, lacking], Linear(uniform(2)))
    alone = OutputCombination([whole, lacking], Linear(torch.tensor([0.0, 1.0])))
    check_tokens([lacking], windows(words, KNOWN - 1))
    assert alone.log_probs(windows(words, KNOWN - 1).inputs).shape[-1] == KNOWN - 1
    with pytest.raises(NotApplicable, match=f"m1 has a vocabulary of {KNOWN - 1} tokens, and the text has token"):
        check_tokens([lacking], replace(windows(words), inputs=torch.tensor([[1, KNOWN - 1]])))


def test_labels_without_a_tokenizer_are_not_told_apart():
    with pytest.raises(NotApplicable, match="a has a vocabulary of 4 and b one of 5, and no tokenizer"):
        shared_labels(["a", "b"], [4, 5], None)


def test_one_network_is_told_by_its_layers_and_not_by_its_weights(tmp_path):
    saved = {
        "soup": build_method("uniform_soup", independent(2)),
        "other soup": build_method("slerp", independent(2)),
        "another size": build_method("distill", independent(2), epochs=1, size="half"),
        "experts": build_method("moe", independent(2), epochs=1),
        "a rule": build_method("linear", independent(2)),
    }
    found = {}
    for name, combination in saved.items():
        (tmp_path / name).mkdir()
        combination.save(tmp_path / name)
        found[name] = dense_network(tmp_path / name)
    assert found["soup"] == found["other soup"] != found["another size"]
    assert found["another size"] is not None
    assert found["experts"] is None
    assert found["a rule"] is None
