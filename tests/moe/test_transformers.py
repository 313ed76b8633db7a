"""The layer with the weights of transformers' blocks gives their outputs and gradients, on every path."""

import pytest
import torch
from torch import nn
from transformers import MixtralConfig, OlmoeConfig, Qwen2MoeConfig, Qwen3MoeConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from harness.moe import MixtureOfExperts, SoftmaxTopK, SwiGLUExperts
from harness.registry import DISPATCHES

INPUTS, HIDDEN, EXPERTS, K = 32, 48, 6, 2
SIZES = {"hidden_size": INPUTS, "num_experts_per_tok": K}


def mixtral():
    config = MixtralConfig(**SIZES, intermediate_size=HIDDEN, num_local_experts=EXPERTS)
    return MixtralSparseMoeBlock(config), True


def qwen3(normalise):
    config = Qwen3MoeConfig(**SIZES, moe_intermediate_size=HIDDEN, num_experts=EXPERTS, norm_topk_prob=normalise)
    return Qwen3MoeSparseMoeBlock(config), normalise


def olmoe(normalise):
    config = OlmoeConfig(**SIZES, intermediate_size=HIDDEN, num_experts=EXPERTS, norm_topk_prob=normalise)
    return OlmoeSparseMoeBlock(config), normalise


def qwen2():
    """Without its shared expert, which every row meets."""
    config = Qwen2MoeConfig(
        **SIZES, moe_intermediate_size=HIDDEN, num_experts=EXPERTS, shared_expert_intermediate_size=8
    )
    block = Qwen2MoeSparseMoeBlock(config)
    block.shared_expert = nn.Identity()
    block.shared_expert_gate = nn.Linear(INPUTS, 1, bias=True)
    nn.init.constant_(block.shared_expert_gate.bias, -1e4)  # a sigmoid of 0
    block.shared_expert_gate.requires_grad_(False)
    return block, config.norm_topk_prob


BLOCKS = {
    "Mixtral": mixtral,
    "Qwen3-MoE": lambda: qwen3(True),
    "Qwen3-MoE, not normalised": lambda: qwen3(False),
    "OLMoE": lambda: olmoe(False),
    "OLMoE, normalised": lambda: olmoe(True),
    "Qwen2-MoE's routed experts": qwen2,
}


def pair(name, path):
    """A block with random weights, and our layer with a copy of them."""
    torch.manual_seed(0)
    block, normalise = BLOCKS[name]()
    for parameter in (*block.gate.parameters(), *block.experts.parameters()):
        nn.init.normal_(parameter, std=0.2)
    layer = MixtureOfExperts(
        SoftmaxTopK(INPUTS, EXPERTS, K, normalise=normalise), SwiGLUExperts(EXPERTS, INPUTS, HIDDEN), dispatch=path
    )
    weights = {name: value for name, value in block.state_dict().items() if not name.startswith("shared_")}
    layer.load_state_dict(weights)  # the very names and layouts
    return block, layer


def results(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    wanted = [x, module.gate.weight, module.experts.gate_up_proj, module.experts.down_proj]
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    return [out, *torch.autograd.grad(out, wanted, upstream)]


@pytest.mark.parametrize("path", DISPATCHES.all())
@pytest.mark.parametrize("name", BLOCKS)
def test_equals_the_block(name, path):
    block, layer = pair(name, path)
    x = torch.randn(3, 7, INPUTS)
    for found, expected in zip(results(layer, x), results(block, x), strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()
