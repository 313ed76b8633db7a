"""Parameters and floating-point operations against counts worked out by hand."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.checks.pools import CNN, CNN_BN, MLP, build_method, fine_tunes, independent, split
from harness.cost.counters import flops_per_example, parameters_active, parameters_stored
from harness.models.architectures import build
from harness.systems.dropout import DropoutPass
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, SingleModel
from harness.types import Architecture, Pool

# mlp: 16 -> 6 -> 6 -> 3, weights and biases
MLP_PARAMETERS = (16 * 6 + 6) + (6 * 6 + 6) + (6 * 3 + 3)
MLP_FLOPS = 2 * (16 * 6 + 6 * 6 + 6 * 3)
# small_cnn: 1 -> 2 channels at 4x4, halved, 2 -> 4 channels at 2x2, halved, 4 features -> 6 -> 3
CONVOLUTIONS = 2 * (4 * 4 * 9 * 1 * 2 + 2 * 2 * 9 * 2 * 4)
CNN_PARAMETERS = (9 * 2 + 2) + (9 * 2 * 4 + 4) + (4 * 6 + 6) + (6 * 3 + 3)
CNN_BN_PARAMETERS = (9 * 2 + 2 * 2) + (9 * 2 * 4 + 2 * 4) + (4 * 6 + 6) + (6 * 3 + 3)
CNN_FLOPS = CONVOLUTIONS + 2 * (4 * 6 + 6 * 3)

BATCH = split("test").inputs[:20]


def one(architecture):
    return SingleModel(architecture, build(architecture))


@pytest.mark.parametrize(
    ("architecture", "parameters", "flops"),
    [
        (MLP, MLP_PARAMETERS, MLP_FLOPS),
        (CNN, CNN_PARAMETERS, CNN_FLOPS),
        (CNN_BN, CNN_BN_PARAMETERS, CNN_FLOPS),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_one_model(architecture, parameters, flops):
    system = one(architecture)
    assert parameters_stored(system) == parameters_active(system) == parameters
    assert flops_per_example(system, BATCH) == flops
    member = build_method("member", independent(2, architecture), index=1)
    assert parameters_stored(member) == parameters_active(member) == parameters
    assert flops_per_example(member, BATCH) == flops


@pytest.mark.parametrize("count", [1, 7, 20, 60])
def test_operations_are_those_of_one_example_whatever_the_batch(count):
    assert flops_per_example(one(CNN), split("test").inputs[:count]) == CNN_FLOPS


@pytest.mark.parametrize("name", ["linear", "log_linear", "majority_vote"])
@pytest.mark.parametrize("members", [1, 3, 4])
def test_an_ensemble_costs_as_many_times_as_it_has_members(name, members):
    found = build_method(name, independent(members, MLP))
    assert parameters_stored(found) == parameters_active(found) == members * MLP_PARAMETERS
    assert flops_per_example(found, BATCH) == members * MLP_FLOPS


def test_an_ensemble_of_different_networks_costs_their_sum():
    other = replace(independent(1, CNN).members[0], name="cnn", digest="cnn")
    found = build_method("linear", Pool("mixed", "architectures", (*independent(2, MLP).members, other)))
    assert parameters_stored(found) == 2 * MLP_PARAMETERS + CNN_PARAMETERS
    assert flops_per_example(found, BATCH) == 2 * MLP_FLOPS + CNN_FLOPS


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_mc_dropout_is_stored_once_and_runs_once_for_every_pass(passes):
    found = build_method("mc_dropout", fine_tunes(3), passes=passes)
    assert parameters_stored(found) == CNN_PARAMETERS
    assert parameters_active(found) == passes * CNN_PARAMETERS
    assert flops_per_example(found, BATCH) == passes * CNN_FLOPS


def test_a_model_that_is_run_twice_is_stored_once_however_it_is_run():
    first, second = fine_tunes(2).members
    parts = [MemberPart(first), MemberPart(first), DropoutPass(MemberPart(first), 0, 1), MemberPart(second)]
    found = OutputCombination(parts, Linear(uniform(4)))
    assert parameters_stored(found) == 2 * CNN_PARAMETERS
    assert parameters_active(found) == 4 * CNN_PARAMETERS
    assert flops_per_example(found, BATCH) == 4 * CNN_FLOPS


def test_a_merge_costs_what_one_member_does():
    for name in ("uniform_soup", "greedy_soup"):
        found = build_method(name, fine_tunes(4))
        assert parameters_stored(found) == parameters_active(found) == CNN_PARAMETERS
        assert flops_per_example(found, BATCH) == CNN_FLOPS


EXPERT = 4 * 6 + 6
GATES = 2 * 4 * 5  # the gate and the noise, 4 features and 5 experts each
OUTSIDE = CNN_PARAMETERS - (4 * 6 + 6)


def mixture(k, routing):
    options = {"experts": 5, "active": k, "routing": routing, **dict(CNN.options)}
    return one(Architecture("small_cnn", tuple(sorted(options.items()))))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_of_sparse_experts_only_those_that_run_are_counted(k):
    sparse, dense = mixture(k, "sparse"), mixture(5, "dense")
    stored = OUTSIDE + GATES + 5 * EXPERT
    assert parameters_stored(sparse) == parameters_stored(dense) == stored
    assert parameters_active(sparse) == OUTSIDE + GATES // 2 + k * EXPERT  # the noise is for training
    assert parameters_active(dense) == stored - GATES // 2
    assert parameters_active(sparse) < parameters_active(dense)

    around = CONVOLUTIONS + 2 * 6 * 3
    experts = k * 2 * 4 * 6
    weighing = 2 * 5 * 6  # the dense path multiplies every expert's output by its gate
    assert flops_per_example(sparse, BATCH) == around + GATES + experts  # two for each of half the parameters
    assert flops_per_example(dense, BATCH) == around + GATES + 5 * 2 * 4 * 6 + weighing


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_of_the_experts_that_transformers_stacks_only_those_that_run_are_counted(kind):
    settings = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "num_experts_per_tok": 2}  # fmt: skip
    experts = {"mixtral": {"num_local_experts": 8, "intermediate_size": 32},
               "qwen3_moe": {"num_experts": 8, "moe_intermediate_size": 32, "head_dim": 4}}[kind]  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, **experts))
    combination = SingleModel(CNN, model)
    stored = sum(parameter.numel() for parameter in model.parameters())
    assert parameters_stored(combination) == stored
    assert parameters_active(combination) == stored - 2 * 6 * 3 * 16 * 32  # six of eight idle in each of two layers


def test_counting_leaves_no_trace():
    """No gradients, no draws from the global generator, and the same answers as before."""
    system = build_method("mc_dropout", fine_tunes(3), passes=2)
    with torch.inference_mode():
        before = system.log_probs(BATCH)
    torch.manual_seed(4)
    state = torch.random.get_rng_state()
    flops_per_example(system, BATCH)
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.inference_mode():
        assert torch.equal(system.log_probs(BATCH), before)
    assert all(p.grad is None for part in system.parts() for p in part.module.parameters())
