"""The sparse mixture-of-experts layer against running every expert on every row."""

import torch

from harness.moe import MixtureOfExperts, NoisyTopK, PerceptronExperts


def test_sparse_experts(in_turn):
    torch.manual_seed(0)
    sparse, dense = (
        MixtureOfExperts(NoisyTopK(256, 8, 2), PerceptronExperts(8, 256, 1024, 256), dispatch=path).eval()
        for path in ("sorted", "dense")
    )
    torch.nn.init.normal_(sparse.gate.weight, std=0.1)
    dense.load_state_dict(sparse.state_dict())
    rows = torch.randn(4096, 256)

    def forward(layer):
        with torch.inference_mode():
            return layer(rows)

    torch.testing.assert_close(forward(sparse), forward(dense), atol=1e-4, rtol=1e-4)
    in_turn(
        "8 experts, 2 active, 4,096 rows of 256 (hidden 1,024), against all experts on all rows",
        lambda: forward(sparse),
        lambda: forward(dense),
        target=">= 3",
    )
