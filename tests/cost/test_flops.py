"""Operations of forward passes against counts worked out by hand; a multiply-add is two."""

import pytest
import torch
from torch.nn import functional
from transformers import MixtralConfig, MixtralForCausalLM

from harness.cost.flops import count
from harness.models.architectures import build
from harness.moe import MixtureOfExperts, SoftmaxTopK, SwiGLUExperts
from harness.moe.dispatch.trial import fault
from harness.moe.layer import classifier_layer
from harness.types import Architecture


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (5, 3, 4), (7, 1, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(rows, inputs, outputs, bias):
    layer = torch.nn.Linear(inputs, outputs, bias=bias)
    assert count(lambda: layer(torch.randn(rows, inputs))) == 2 * rows * inputs * outputs
    assert count(lambda: layer(torch.randn(inputs))) == 2 * inputs * outputs  # a vector, not a matrix of one row


def test_products_of_vectors():
    assert count(lambda: torch.randn(4, 6) @ torch.randn(6)) == 2 * 4 * 6
    assert count(lambda: torch.randn(6) @ torch.randn(6)) == 2 * 6
    assert count(lambda: torch.randn(6) + torch.randn(6)) == 0


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "side"), [(1, 0, 1, 7), (1, 1, 1, 9), (2, 1, 1, 5), (1, 1, 3, 9)]
)
def test_convolution(stride, padding, groups, side):
    """Every output value is a product of its window of 3 x 3 over the channels of its group; the input is 9 x 9."""
    layer = torch.nn.Conv2d(6, 12, 3, stride=stride, padding=padding, groups=groups)
    expected = 2 * (side * side * 12) * (3 * 3 * 6 // groups)
    assert count(lambda: layer(torch.randn(2, 6, 9, 9))) == 2 * expected


@pytest.mark.parametrize("masked", ["not", "causal", "mask"])
def test_attention(masked):
    """Scores are queries times keys, the result is scores times values: 2 x 2 heads x Tq x Tk x d, twice."""
    query, key, value = torch.randn(3, 3, 2, 5, 8)
    mask = {"attn_mask": torch.zeros(5, 5)} if masked == "mask" else {"is_causal": masked == "causal"}
    found = count(lambda: functional.scaled_dot_product_attention(query, key, value, **mask))
    assert found == 3 * 2 * (2 * 5 * 5 * 8 + 2 * 5 * 5 * 8)


def test_fused_and_plain_attention_cost_the_same():
    def attend(plain):
        query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 9, 8), torch.randn(2, 4, 9, 8)
        if plain:
            return (query @ key.transpose(-1, -2)).softmax(-1) @ value
        return functional.scaled_dot_product_attention(query, key, value)

    assert count(lambda: attend(plain=True)) == count(lambda: attend(plain=False)) == 2 * 2 * (2 * 4 * 6 * 9 * 8)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("length", [1, 10])
def test_llama(implementation, length):
    hidden, inner, layers, vocabulary, batch = 16, 64, 2, 24, 3
    options = {"context": 16, "heads": 4, "hidden": hidden, "layers": layers, "vocab": vocabulary}
    module = build(Architecture("tiny_llama", tuple(options.items()))).eval()
    module.set_attn_implementation(implementation)
    projections = 4 * 2 * hidden * hidden  # query, key, value, output: of a token
    perceptron = 3 * 2 * hidden * inner  # gate, up, down
    attention = 2 * 2 * length * length * hidden  # of a sequence: all heads together are as wide as the model
    tokens = length * (layers * (projections + perceptron) + 2 * hidden * vocabulary)
    found = count(lambda: module(torch.randint(0, vocabulary, (batch, length))))
    assert found == batch * (tokens + layers * attention)


def test_attention_that_torch_runs_as_one_operator():
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    rows, projections, perceptron = 3 * 10, 4 * 2 * 16 * 16, 2 * 2 * 16 * 32
    expected = rows * (projections + perceptron) + 3 * 2 * 2 * 10 * 10 * 16
    assert count(lambda: layer(torch.randn(3, 10, 16))) == expected
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_mixtral_whatever_runs_its_experts(implementation):
    hidden, inner, layers, vocabulary, experts, active, tokens = 16, 32, 2, 24, 4, 2, 30
    module = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, num_local_experts=experts, num_experts_per_tok=active,
        )
    ).eval()  # fmt: skip
    module.set_experts_implementation(implementation)
    projections = 2 * 2 * hidden * hidden + 2 * 2 * hidden * hidden // 2  # two heads of four hold keys and values
    mixture = 2 * hidden * experts + active * 3 * 2 * hidden * inner
    attention = 3 * 2 * 2 * 10 * 10 * hidden  # three sequences of ten
    expected = layers * (tokens * (projections + mixture) + attention) + tokens * 2 * hidden * vocabulary
    assert count(lambda: module(torch.randint(0, vocabulary, (3, 10)))) == expected


@pytest.mark.parametrize(
    ("left", "right", "offsets", "expected"),
    [
        ((8, 16), (3, 16, 32), [2, 2, 8], 2 * 8 * 16 * 32),  # rows in groups, one of them empty
        ((3, 8, 16), (16, 32), [8, 8, 32], 2 * 8 * 16 * 32),  # columns in groups
        ((8, 16), (16, 32), [8, 16], 2 * 8 * 16 * 32),  # the inner index in groups
        ((3, 8, 16), (3, 16, 32), None, 3 * 2 * 8 * 16 * 32),
    ],
)
def test_grouped_products(left, right, offsets, expected):
    one, other = torch.randn(left, dtype=torch.bfloat16), torch.randn(right, dtype=torch.bfloat16)
    offs = None if offsets is None else torch.tensor(offsets, dtype=torch.int32)
    assert count(lambda: functional.grouped_mm(one, other, offs=offs)) == expected


@pytest.mark.parametrize("path", ["index", "grouped", "sorted", "sparse"])
def test_paths_of_experts_count_the_rows_that_reach_an_expert(path):
    """Whether a path can run is tried out, which does not count."""
    fault.cache_clear()
    layer = MixtureOfExperts(SoftmaxTopK(32, 4, 2), SwiGLUExperts(4, 32, 64), dispatch=path).eval()
    gate, experts = 2 * 32 * 4, 2 * (32 * 2 * 64 + 64 * 32)
    assert count(lambda: layer(torch.randn(10, 32))) == 10 * (gate + 2 * experts)


def test_sparse_products_count_what_is_stored():
    dense, other = torch.diag(torch.arange(1.0, 33.0)), torch.randn(32, 7)
    assert count(lambda: dense.to_sparse_csr() @ other) == 2 * 32 * 7
    assert count(lambda: dense.to_sparse_bsr((16, 16)) @ other) == 2 * 2 * 16 * 16 * 7
    assert count(lambda: dense @ other) == 2 * 32 * 32 * 7


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_mixture_of_experts_layer(k):
    """Of the sparse path a gate and k experts for each row; the dense one runs all experts and weighs their outputs."""
    rows, inputs, outputs, experts = 9, 4, 3, 5
    one_expert = 2 * inputs * outputs
    gate = 2 * inputs * experts

    def counted(routing):
        layer = classifier_layer(inputs, outputs, experts=experts, k=k, routing=routing).eval()
        torch.nn.init.normal_(layer.gate.weight)
        return count(lambda: layer(torch.randn(rows, inputs)))

    assert counted("sparse") == rows * (gate + k * one_expert)
    assert counted("dense") == rows * (gate + experts * one_expert + 2 * experts * outputs)
