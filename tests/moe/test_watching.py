"""What routers decide is noted as they decide it, ours and transformers'."""

import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from harness.moe import MixtureOfExperts, NoisyTopK, PerceptronExperts, SoftmaxTopK
from harness.moe.watching import PARTS, loads_noted, routers_of, watched

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "vocab_size": 20, "num_experts_per_tok": 2}  # fmt: skip


def ours(gate=NoisyTopK, **options):
    torch.manual_seed(0)
    layer = MixtureOfExperts(gate(4, 3, 2), PerceptronExperts(3, 4, 5, 4), dispatch="dense", **options)
    nn.init.normal_(layer.gate.weight)
    return nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2))


def test_our_layers_choices_are_the_best_scores():
    network, x = ours(SoftmaxTopK), torch.randn(7, 4)
    with watched(network) as watch:
        network(x)
    scores = network[0](x) @ network[1].gate.weight.T
    assert watch.experts == {"1": 3}
    assert watch.dropped == {"1": 0}
    assert torch.equal(watch.chosen["1"], scores.topk(2).indices)


def test_what_a_capacity_drops_is_counted():
    network = ours(SoftmaxTopK, capacity=0.5)
    with watched(network) as watch:
        network(torch.randn(12, 4))
    assert watch.dropped["1"] == int(network[1].dropped) > 0


@pytest.mark.parametrize(
    ("model", "config"),
    [(MixtralForCausalLM, MixtralConfig(num_local_experts=4, **SIZES)),
     (Qwen3MoeForCausalLM, Qwen3MoeConfig(num_experts=4, moe_intermediate_size=8, head_dim=4, **SIZES))],
    ids=["Mixtral", "Qwen3-MoE"],
)  # fmt: skip
def test_transformers_routers_say_what_its_models_give_as_router_logits(model, config):
    torch.manual_seed(0)
    network = model(config).eval()
    assert list(routers_of(network)) == [f"model.layers.{layer}.mlp" for layer in range(2)]
    with torch.inference_mode(), watched(network) as watch:
        found = network(torch.arange(10).view(2, 5), output_router_logits=True)
    for chosen, logits in zip(watch.chosen.values(), found.router_logits, strict=True):
        assert torch.equal(chosen.sort().values, logits.topk(2).indices.sort().values)
    assert set(watch.experts.values()) == {4}
    hooks = [len(router._forward_hooks) for router in routers_of(network).values()]
    with watched(network):
        assert [len(router._forward_hooks) - 1 for router in routers_of(network).values()] == hooks
    assert [len(router._forward_hooks) for router in routers_of(network).values()] == hooks


def test_loads_in_training_are_means_over_equal_parts_of_its_steps():
    network = ours()
    batches = [torch.randn(6, 4) for _ in range(23)]
    with loads_noted(network) as loads, watched(network) as watch:
        network.train()
        each = []
        for batch in batches:
            network(batch)
            each.append(torch.bincount(watch.chosen["1"].flatten(), minlength=3) / 6)
        network.eval()
        network(batches[0])  # is no training
    assert len(loads) == PARTS
    expected = [torch.stack(part).mean(dim=0).tolist() for part in (each[:3], each[3:6], each[6:9], each[9:11])]
    for found, mean in zip(loads, expected, strict=False):
        assert found == pytest.approx(mean, abs=1e-6)
    assert all(sum(load) == pytest.approx(2) for load in loads)
