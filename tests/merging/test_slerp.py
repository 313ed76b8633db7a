"""SLERP against mergekit, and against the geometry that it is named after."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.merging.inner_products import NEARLY_PARALLEL
from harness.merging.slerp import slerp
from tests.examples import examples
from tests.merging.mergekit_oracle import cases, merged, tensors

MANY = examples(150)
T = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0])


def cosine(a, b):
    norms = [max(float(x.double().norm()), 1e-30) for x in (a, b)]
    return float(a.double().flatten() @ b.double().flatten()) / math.prod(norms)


@MANY
@given(cases, T)
def test_per_tensor_it_is_mergekits(case, t):
    first, second = tensors(case, 2)
    assume(abs(abs(cosine(first, second)) - NEARLY_PARALLEL) > 1e-6)  # on the edge rounding decides the branch
    found = slerp({"w": first}, {"w": second}, t)["w"]
    expected = merged([{"w": first}, {"w": second}], "slerp", t=t)["w"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(torch.stack([first, second]).abs().max()))


@MANY
@given(st.integers(0, 2**32 - 1), T)
def test_in_float32_it_is_mergekits_to_a_millionth(seed, t):
    generator = torch.Generator().manual_seed(seed)
    models = [{"a": torch.randn(4, 6, generator=generator), "b": torch.randn(7, generator=generator)} for _ in range(2)]
    assume(all(abs(cosine(models[0][n], models[1][n])) < 0.9 for n in "ab"))
    found, expected = slerp(*models, t), merged(models, "slerp", t=t)
    for name in "ab":
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)


def vectors(seed=0, sizes=((4, 5), (6,))):
    generator = torch.Generator().manual_seed(seed)
    return {str(i): torch.randn(size, generator=generator, dtype=torch.float64) for i, size in enumerate(sizes)}


def flat(model):
    return torch.cat([tensor.flatten() for tensor in model.values()])


@pytest.mark.parametrize("t", [0.2, 0.5, 0.7])
def test_of_equal_norms_it_keeps_the_norm_and_goes_t_of_the_angle(t):
    first, second = vectors(1), vectors(2)
    second = {n: x * (flat(first).norm() / flat(second).norm()) for n, x in second.items()}
    found = flat(slerp(first, second, t, "model"))
    whole = math.acos(cosine(flat(first), flat(second)))
    assert float(found.norm()) == pytest.approx(float(flat(first).norm()), rel=1e-12)
    assert math.acos(cosine(flat(first), found)) == pytest.approx(t * whole, rel=1e-9)
    per_tensor = flat(slerp(first, second, t, "tensor"))
    assert not torch.allclose(found, per_tensor)


def test_of_one_tensor_both_scopes_are_the_same():
    first, second = vectors(1, ((9,),)), vectors(2, ((9,),))
    torch.testing.assert_close(slerp(first, second, 0.3, "model"), slerp(first, second, 0.3, "tensor"))


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_its_ends_are_the_models_and_it_is_symmetric(scope):
    first, second = vectors(1), vectors(2)
    for t, end in ((0.0, first), (1.0, second)):
        torch.testing.assert_close(slerp(first, second, t, scope), end, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slerp(first, second, 0.3, scope), slerp(second, first, 0.7, scope))


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_a_copy_changes_nothing(scope):
    model = vectors(3)
    torch.testing.assert_close(slerp(model, dict(model), 0.4, scope), model, rtol=1e-12, atol=0)
