"""Every dispatch path gives what the dense reference gives, forward and backward, or says why it cannot run."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.moe import PerceptronExperts, Routing
from harness.registry import DISPATCHES
from tests.examples import examples
from tests.moe.cases import EXPERTS, choices, routing, routings

PATHS = sorted(DISPATCHES.all())
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
RUNS_ON_CPU = {
    "dense": {torch.float64, torch.float32, torch.bfloat16},
    "sorted": {torch.float64, torch.float32, torch.bfloat16},
    "index": {torch.float64, torch.float32, torch.bfloat16},
    "grouped": {torch.float32, torch.bfloat16},
    "sparse": {torch.float64, torch.float32},
    "sparse_blocks": {torch.float64, torch.float32},
}


def upstream(x, experts):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(len(x), experts.outputs, generator=generator, dtype=torch.float64).to(x.dtype)


def results(path, experts, x, given_routing):
    """Outputs and the gradients of a random sum of them by rows, weights and parameters."""
    x = x.clone().requires_grad_()
    weights = given_routing.weights.clone().requires_grad_()
    out = DISPATCHES.get(path).run(experts, x, replace(given_routing, weights=weights))
    wanted = [x, weights, *experts.parameters()]
    gradients = torch.autograd.grad(out, wanted, upstream(x, experts), allow_unused=True)
    return [out, *(torch.zeros_like(w) if g is None else g for g, w in zip(gradients, wanted, strict=True))]


def size_of_products(experts, x, given_routing):
    """Norm of |result| |gradient| over the pairs: a weight's gradient is the scalar product, which may cancel to 0."""
    with torch.no_grad():
        each = torch.stack([expert(x) for expert in experts.each(x.dtype)]).double().norm(dim=-1)  # [E, N]
        return float(
            (each.t().gather(1, given_routing.chosen) * upstream(x, experts).double().norm(dim=-1, keepdim=True)).norm()
        )


def agree(path, experts, x, given_routing):
    found, expected = (results(name, experts, x, given_routing) for name in (path, "dense"))
    assert found[0].dtype == x.dtype
    sizes = [float(tensor.detach().double().norm()) for tensor in expected]
    sizes[2] = max(sizes[2], size_of_products(experts, x, given_routing))
    with torch.no_grad():  # where it may write into what it made
        found, expected = [*found, DISPATCHES.get(path).run(experts, x, given_routing)], [*expected, expected[0]]
    for one, other, size in zip(found, expected, [*sizes, sizes[0]], strict=True):
        assert one.shape == other.shape
        assert float((one.detach().double() - other.detach().double()).norm()) <= TOLERANCE[x.dtype] * size


@pytest.mark.parametrize("path", [path for path in PATHS if path != "dense"])
@examples(60)
@given(
    data=st.data(),
    kind=st.sampled_from(sorted(EXPERTS)),
    sizes=st.sampled_from([(16, 32, 16), (32, 64, 16), (3, 5, 2), (8, 8, 24)]),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_equals_the_dense_reference_with_its_gradients(path, data, kind, sizes, dtype):
    made = data.draw(routings(dtype))
    torch.manual_seed(1)
    experts = EXPERTS[kind](made.experts, *sizes).to(dtype)
    x = torch.randn(len(made.chosen), sizes[0]).to(dtype)
    if DISPATCHES.get(path).unavailable(experts, x) is None:
        agree(path, experts, x, made)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_says_whether_it_runs_a_type(path, dtype):
    """And it runs what it says that it runs; a new path says in RUNS_ON_CPU what it is for."""
    experts, x = PerceptronExperts(2, 64, 64, 64).to(dtype), torch.randn(5, 64).to(dtype)
    why = DISPATCHES.get(path).unavailable(experts, x)
    assert (why is None) == (dtype in RUNS_ON_CPU[path]), why
    if why is None:
        agree(path, experts, x, routing(choices(5, 2, 1), 2, dtype))
    else:
        assert str(dtype) in why
        assert "cpu" in why


@pytest.mark.parametrize("kind", sorted(EXPERTS))
@pytest.mark.parametrize("path", [path for path in PATHS if torch.float64 in RUNS_ON_CPU[path]])
def test_gradients_are_those_of_differences(path, kind):
    torch.manual_seed(0)
    side = 16 if path == "sparse_blocks" else 3
    experts = EXPERTS[kind](3, side, side, side).double()
    if DISPATCHES.get(path).unavailable(experts, torch.zeros(1, side, dtype=torch.float64)) is not None:
        assert kind == "modules"
        return
    made = routing(choices(4, 3, 2, seed=2), 3, torch.float64)
    names, parameters = zip(*experts.named_parameters(), strict=True)

    def run(x, weights, *values):
        with torch.nn.utils.stateless._reparametrize_module(experts, dict(zip(names, values, strict=True))):
            return DISPATCHES.get(path).run(experts, x, replace(made, weights=weights))

    inputs = [torch.randn(4, side, dtype=torch.float64), made.weights, *(p.detach() for p in parameters)]
    torch.autograd.gradcheck(run, [i.clone().requires_grad_() for i in inputs], fast_mode=True)


@pytest.mark.parametrize("path", PATHS)
def test_only_its_experts_run_for_a_row(path):
    """Where others hold NaN, they do not reach it; the dense reference multiplies them by 0."""
    experts, x = PerceptronExperts(4, 16, 16, 16), torch.randn(6, 16)
    with torch.no_grad():
        experts.up_proj[2] = torch.nan
    run = DISPATCHES.get(path)
    out = run.run(experts, x, routing(torch.tensor([[0, 1]] * 3 + [[3, 1]] * 3), 4, torch.float32))
    assert bool(out.isfinite().all()) is not run.every_expert


@pytest.mark.parametrize("path", PATHS)
def test_equal_experts_of_one_row_add_up(path):
    """A gate gives different ones, but nothing rests on that."""
    experts, x = PerceptronExperts(3, 16, 16, 16), torch.randn(4, 16)
    chosen = torch.tensor([[1, 1], [2, 0], [0, 0], [1, 2]])
    made = routing(chosen, 3, torch.float32)
    each = torch.stack([expert(x) for expert in experts.each(x.dtype)])
    expected = sum(made.weights[:, j : j + 1] * each[chosen[:, j], torch.arange(4)] for j in range(2))
    torch.testing.assert_close(DISPATCHES.get(path).run(experts, x, made), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_a_gradient_that_nobody_wants_is_not_needed(path):
    experts, x = PerceptronExperts(2, 16, 16, 16).requires_grad_(False), torch.randn(3, 16)
    made: Routing = routing(choices(3, 2, 1), 2, torch.float32)
    assert not DISPATCHES.get(path).run(experts, x, made).requires_grad
    wanted = x.clone().requires_grad_()
    DISPATCHES.get(path).run(experts, wanted, made).sum().backward()
    assert wanted.grad.abs().sum() > 0
