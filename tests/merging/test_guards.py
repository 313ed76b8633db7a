"""What cannot be merged is refused with the reason: which member, which key, which shapes."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from transformers import Gemma3Config, LlamaConfig, xLSTMConfig

from harness.checks.pools import CNN, CNN_BN, MLP, copied, fine_tunes, independent, member, trained
from harness.merging.guards import check_mergeable, different_starts, warnings_of
from harness.models import configuration
from harness.models.architectures import build
from harness.models.weights import LazyWeights, save_weights, without_ties
from harness.types import NotApplicable


def changed(name, **tensors):
    """A member with some tensors replaced; None takes one away."""
    weights = {**copied(trained(CNN, 0)), **tensors}
    return member(name, {key: tensor for key, tensor in weights.items() if tensor is not None})


def refusal(*members):
    with pytest.raises(NotApplicable) as reason:
        check_mergeable(members)
    return str(reason.value)


GOOD = member("good", trained(CNN, 0))


def test_members_that_fit_are_accepted():
    for pool in (fine_tunes(), independent(), fine_tunes(2, CNN_BN)):
        check_mergeable(pool.members)
    check_mergeable([GOOD])


def test_an_empty_pool():
    assert "the pool is empty" in refusal()


def test_another_architecture_is_named_with_its_options():
    reason = refusal(GOOD, replace(GOOD, name="same"), member("other", trained(MLP, 0), MLP))
    assert reason == "different architectures: good and other: small_cnn and mlp"


def test_the_same_family_with_other_options_is_another_architecture():
    wider = type(CNN)("small_cnn", tuple((k, 7 if k == "hidden" else v) for k, v in CNN.options))
    assert "hidden 6 and 7" in refusal(GOOD, replace(GOOD, name="wide", architecture=wider))


@pytest.mark.parametrize("turned", [False, True], ids=["missing", "unexpected"])
def test_keys_of_one_member_only(turned):
    pair = [GOOD, changed("short", **{"hidden.bias": None})]
    reason = refusal(*(pair[::-1] if turned else pair))
    assert "good" in reason
    assert "short" in reason
    assert reason.endswith("differ in keys: hidden.bias")


def test_many_differing_keys_are_counted():
    gone = dict.fromkeys(["trunk.0.weight", "trunk.0.bias", "hidden.weight", "hidden.bias", "head.2.bias"])
    reason = refusal(GOOD, changed("short", **gone))
    assert reason.endswith("differ in keys: head.2.bias, hidden.bias, hidden.weight and 2 more")


def test_another_shape_is_named_with_both():
    reason = refusal(GOOD, changed("odd", **{"hidden.bias": torch.zeros(7)}))
    assert reason == "'hidden.bias' has shape [6] in good and [7] in odd"


def test_shapes_that_would_broadcast_are_not_let_through():
    assert "[6] in good and [1] in odd" in refusal(GOOD, changed("odd", **{"hidden.bias": torch.zeros(1)}))
    assert "[6] in good and [] in odd" in refusal(GOOD, changed("odd", **{"hidden.bias": torch.tensor(0.0)}))


@pytest.mark.parametrize(
    ("value", "word"), [(torch.nan, "NaN"), (torch.inf, "infinite"), (-torch.inf, "infinite")], ids=str
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_weights_that_are_no_numbers(value, word, position):
    bias = torch.zeros(6)
    bias[4] = value
    members = [replace(GOOD, name=f"m{k}") for k in range(3)]
    members[position] = changed("broken", **{"hidden.bias": bias})
    assert refusal(*members) == f"member broken holds {word} weights in 'hidden.bias'"
    assert refusal(members[position]) == f"member broken holds {word} weights in 'hidden.bias'"


def test_nan_beside_infinity_is_called_nan():
    bias = torch.tensor([torch.inf, torch.nan, 0, 0, 0, 0])
    assert "NaN" in refusal(changed("broken", **{"hidden.bias": bias}))


def test_counters_are_not_asked_for_finite_values():
    check_mergeable([changed(name, steps=torch.tensor(2**40)) for name in ("one", "other")])


class Unreadable(Mapping):
    """Weights of which only the names may be asked for."""

    def __init__(self, names):
        self.names = names

    def __getitem__(self, name):
        raise AssertionError(f"'{name}' was read")

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def test_what_is_clear_from_the_names_is_refused_before_a_tensor_is_read():
    names = list(GOOD.weights)
    first, second = (replace(GOOD, name=n, weights=Unreadable(names)) for n in ("first", "second"))
    assert "different architectures" in refusal(first, second, replace(second, name="third", architecture=MLP))
    assert "differ in keys" in refusal(first, replace(second, weights=Unreadable(names[1:])))


def test_the_architecture_is_the_first_reason():
    """Where the third is of another architecture, that the second lacks a key is beside the point."""
    members = [GOOD, changed("short", **{"hidden.bias": None}), member("other", trained(MLP, 0), MLP)]
    assert "different architectures" in refusal(*members)


def test_weights_on_disk_are_checked_too(tmp_path):
    spoiled = copied(trained(CNN, 0))
    spoiled["head.2.weight"][0, 0] = torch.nan
    save_weights(spoiled, tmp_path / "spoiled")
    lazy = replace(GOOD, name="lazy", weights=LazyWeights(tmp_path / "spoiled"))
    assert refusal(GOOD, lazy) == "member lazy holds NaN weights in 'head.2.weight'"


def test_members_of_one_start_raise_no_warning():
    assert different_starts(fine_tunes().members) is None
    assert different_starts(independent(1).members) is None
    assert different_starts(()) is None


def test_members_of_different_starts_are_warned_of_with_their_number():
    members = (*independent(3).members, replace(GOOD, start="start 2"))
    assert different_starts(members).startswith("the 4 members come from 3 different initialisations:")
    assert different_starts(members[1:]).startswith("the 3 members come from 2 different initialisations:")


def llama(**settings):
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                         **settings)  # fmt: skip
    architecture = configuration.architecture_of(config)
    weights = {name: torch.zeros_like(tensor) for name, tensor in without_ties(build(architecture)).items()}
    return member("llama", weights, architecture)


INERT = {
    "eos_token_id": [2, 7],
    "pad_token_id": 3,
    "bos_token_id": 5,
    "initializer_range": 0.5,
    "max_position_embeddings": 99,
    "attention_dropout": 0.3,
    "use_cache": False,
}


@pytest.mark.parametrize("key", INERT)
def test_settings_that_change_no_scores_may_differ_and_are_named(key):
    one, other = llama(), replace(llama(**{key: INERT[key]}), name="other")
    check_mergeable([one, other])
    assert key in warnings_of([one, other])["warnings"][-1]


def test_old_and_new_spellings_of_a_setting_are_the_same():
    old = {"model_type": "llama", "rope_theta": 5000.0, "vocab_size": 20, "hidden_size": 8, "intermediate_size": 8,
           "num_hidden_layers": 1, "num_attention_heads": 2}  # fmt: skip
    new = llama(rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    read = configuration.architecture_of(configuration.config_of(old))
    assert configuration.differences(read, new.architecture) == {}
    check_mergeable([new, replace(new, architecture=read)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}, "rope_parameters"),
        ({"rms_norm_eps": 0.1}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
    ],
)
def test_settings_that_change_scores_are_a_reason(settings, words):
    assert words in refusal(llama(), replace(llama(**settings), name="other"))


def test_a_length_counts_where_positions_stretch_by_it():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    short, long = (llama(rope_parameters=rope, max_position_embeddings=length) for length in (64, 128))
    assert "max_position_embeddings 64 and 128" in refusal(short, replace(long, name="long"))


def test_a_setting_of_the_network_whose_name_begins_as_one_of_its_outputs_counts():
    one, other = (configuration.architecture_of(xLSTMConfig(output_logit_soft_cap=cap)) for cap in (30.0, 10.0))
    assert configuration.differences(one, other) == {"output_logit_soft_cap": (30.0, 10.0)}
    assert not configuration.is_inert("output_logit_soft_cap", one)


def test_settings_of_a_part_of_a_model_count_one_by_one():
    def of(**settings):
        return configuration.architecture_of(Gemma3Config(text_config={"num_hidden_layers": 2, **settings}))

    for inert in ({"initializer_range": 0.5}, {"max_position_embeddings": 64}, {"attention_dropout": 0.5}):
        found = configuration.differences(of(), of(**inert))
        assert found
        assert all(configuration.is_inert(path, of()) for path in found)
    found = configuration.differences(of(head_dim=8), of(head_dim=16))
    assert found == {"text_config.head_dim": (8, 16)}
    assert not configuration.is_inert("text_config.head_dim", of())
