"""Model Stock against mergekit, against its formula, and where the two part."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.merging.model_stock import model_stock
from tests.examples import examples
from tests.merging.mergekit_oracle import cases, merged, tensors

MANY = examples(150)
MERGEKIT = {"norm_floor": 1e-6}


def models_of(*tensors):
    return [{"w": tensor} for tensor in tensors]


@MANY
@given(cases, st.integers(2, 5), st.booleans())
def test_with_its_floor_it_is_mergekits(case, count, filter_wise):
    base, *others = models_of(*tensors(case, count + 1))
    found, ratios = model_stock(base, others, filter_wise=filter_wise, **MERGEKIT)
    assume(max(abs(r) for r in ratios) < 100)  # near its pole the ratio multiplies rounding
    expected = merged([base, *others], "model_stock", filter_wise=filter_wise)["w"]
    scale = max(float(m["w"].abs().max()) for m in (base, *others)) * max(1.0, *map(abs, ratios))
    torch.testing.assert_close(found["w"], expected, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("filter_wise", [False, True])
def test_in_float32_it_is_mergekits_to_a_millionth_floor_or_not(filter_wise):
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(5, 6, generator=generator), "b": torch.randn(5, generator=generator)}
    push = {n: torch.randn(t.shape, generator=generator) for n, t in base.items()}
    models = [{n: t + push[n] + torch.randn(t.shape, generator=generator) for n, t in base.items()} for _ in range(4)]
    expected = merged([base, *models], "model_stock", filter_wise=filter_wise)
    for floor in (0.0, 1e-6):
        found, _ = model_stock(base, models, filter_wise=filter_wise, norm_floor=floor)
        for name in base:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)


def test_the_ratio_is_its_formula():
    """Three updates of 60 degrees to each other: c = 1/2 and t = (3/2) / (1 + 2/2)."""
    base = torch.tensor([1.0, 2.0, 3.0])
    updates = [torch.tensor(u) for u in ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0))]
    found, (ratio,) = model_stock({"w": base}, models_of(*(base + u for u in updates)))
    assert ratio == pytest.approx(0.75, abs=1e-6)
    torch.testing.assert_close(found["w"], base + 0.75 * torch.stack(updates).mean(dim=0))


@pytest.mark.parametrize("size", [1.0, 1e-5])
def test_updates_that_agree_give_the_mean_and_orthogonal_ones_the_base(size):
    base = torch.tensor([0.5, -1.0])
    for a, b, expected in (
        ([1.0, 2.0], [1.0, 2.0], base + size * torch.tensor([1.0, 2.0])),
        ([1.0, 0.0], [0.0, 1.0], base),
    ):
        others = models_of(base + size * torch.tensor(a), base + size * torch.tensor(b))
        torch.testing.assert_close(model_stock({"w": base}, others)[0]["w"], expected, rtol=0, atol=1e-3 * size)


def test_mergekits_floor_draws_small_updates_to_the_base():
    """Two equal updates of norm 1e-4: c is 1, and t should be, but mergekit divides by 1e-6 instead of 1e-8."""
    base = torch.zeros(4, dtype=torch.float64)
    others = models_of(*2 * [torch.full((4,), 5e-5, dtype=torch.float64)])
    assert model_stock({"w": base}, others)[1] == [pytest.approx(1.0)]
    found, (ratio,) = model_stock({"w": base}, others, **MERGEKIT)
    assert ratio == pytest.approx(2 * 0.01 / 1.01)
    torch.testing.assert_close(found["w"], merged([{"w": base}, *others], "model_stock")["w"])


def test_a_filter_of_a_convolution_is_an_output_unit_and_not_a_row_of_its_kernel():
    generator = torch.Generator().manual_seed(1)
    base, *tuned = [torch.randn(3, 2, 2, 2, generator=generator) for _ in range(4)]
    found, _ = model_stock({"w": base}, models_of(*tuned), filter_wise=True)
    for unit in range(3):
        whole, _ = model_stock({"w": base[unit]}, models_of(*(t[unit] for t in tuned)))
        torch.testing.assert_close(found["w"][unit], whole["w"])
    peer = merged(models_of(base, *tuned), "model_stock", filter_wise=True)["w"]
    assert (found["w"] - peer).abs().max() > 1e-2
    rows = base.reshape(-1, 2), [t.reshape(-1, 2) for t in tuned]
    by_row, _ = model_stock({"w": rows[0]}, models_of(*rows[1]), filter_wise=True, **MERGEKIT)
    torch.testing.assert_close(by_row["w"].view_as(base), peer, rtol=1e-5, atol=1e-5)


def test_updates_in_opposite_directions_have_no_finite_ratio_and_keep_the_base():
    base = torch.tensor([1.0, 2.0])
    found, ratios = model_stock({"w": base}, models_of(base + 1, base - 1))
    assert ratios == [0.0]
    assert torch.equal(found["w"], base)


def test_one_model_has_no_angle():
    with pytest.raises(ValueError, match="two models"):
        model_stock({"w": torch.ones(2)}, models_of(torch.ones(2)))


def test_empty_tensors_and_scalars_pass():
    base = {"s": torch.tensor(1.0), "e": torch.zeros(0, 3)}
    found, ratios = model_stock(base, [{n: t + 1 for n, t in base.items()}] * 2, filter_wise=True)
    assert float(found["s"]) == 2.0
    assert ratios == [1.0, 0.0]
