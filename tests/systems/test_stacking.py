"""Stacked models against torch's own derivatives, and what is left of them under any penalty."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.systems.fitting import fit_temperature, nll
from harness.systems.rules import Rule, Stacked, mix_log_linear, temper
from harness.systems.stacking import RIDGE, _fit, _Loss, fit_stacking


def planted(members=2, rows=60, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=generator)
    logits = torch.randn(members, rows, classes, generator=generator, dtype=torch.float64)
    logits += 1.5 * torch.nn.functional.one_hot(labels, classes)
    return torch.log_softmax(logits, dim=-1), labels


def by_torch(said, labels, penalty, values):
    """The penalised loss with a graph, written with the rule itself."""
    members, _, classes = said.shape
    weights = values[members:-classes].view(members, classes, classes)
    loss = -Stacked(values[:members], weights, values[-classes:])(said)[range(len(labels)), labels].mean()
    pulls = RIDGE * (values[:members] - 1 / members).square().sum() + penalty * values[members:].square().sum()
    return loss + pulls / 2


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 1000), st.floats(0, 1))
def test_loss_and_derivatives_are_torchs(members, classes, seed, penalty):
    said, labels = planted(members, 20, classes, seed)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(members + members * classes**2 + classes, generator=generator, dtype=torch.float64)
    values.requires_grad_()
    expected = by_torch(said, labels, penalty, values)
    expected.backward()
    found, gradient = _Loss(said.numpy(), np.eye(classes)[labels], penalty)(values.detach().numpy())
    assert found == pytest.approx(expected.item(), rel=1e-9)
    np.testing.assert_allclose(gradient, values.grad.numpy(), atol=1e-9)


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_the_fit_is_where_the_derivatives_vanish(penalty):
    said, labels = planted()
    values = _fit(said.numpy(), np.eye(3)[labels], penalty)
    _, gradient = _Loss(said.numpy(), np.eye(3)[labels], penalty)(values)
    assert np.abs(gradient).max() < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_one_member_is_itself_under_a_temperature_or_better(seed):
    said, labels = planted(1, seed=seed)
    rule, _, _ = fit_stacking(said, labels, torch.Generator().manual_seed(0))
    tempered = nll(temper(said[0], fit_temperature(said[0], labels)), labels)
    assert nll(rule(said), labels) <= tempered + 1e-4


def test_under_a_heavy_penalty_a_log_linear_mixture_is_left():
    said, labels = planted()
    rule, penalty, _ = fit_stacking(said, labels, torch.Generator().manual_seed(0), [1e6])
    assert penalty == 1e6
    torch.testing.assert_close(rule(said), mix_log_linear(said, rule.scales), atol=1e-4, rtol=1e-4)


def test_a_class_that_is_mistaken_for_another_is_put_right():
    """A member that swaps two labels is right once it is read."""
    said, labels = planted(1, 400)
    swapped = said[:, :, [1, 0, 2]]
    rule, _, losses = fit_stacking(swapped, labels, torch.Generator().manual_seed(0))
    right = float((rule(swapped).argmax(dim=-1) == labels).double().mean())
    assert right == pytest.approx(float((said[0].argmax(dim=-1) == labels).double().mean()), abs=0.03)
    assert losses[max(losses)] > min(losses.values())


def test_the_penalty_has_the_least_loss_over_folds_and_the_model_is_saved_and_found_again(tmp_path):
    said, labels = planted(rows=80)
    rule, penalty, losses = fit_stacking(said, labels, torch.Generator().manual_seed(0), [1e-3, 1e-1, 10.0])
    assert list(losses) == [10.0, 1e-1, 1e-3]
    assert min(losses, key=losses.__getitem__) == penalty
    rule.save(tmp_path)
    assert torch.equal(Rule.load(tmp_path)(said), rule(said))


def test_exact_zeros_are_read_as_the_faintest_label():
    said, labels = planted()
    said[0, 0, (int(labels[0]) + 1) % 3] = -torch.inf
    rule, _, _ = fit_stacking(said, labels, torch.Generator().manual_seed(0))
    assert rule(said).isfinite().all()


def test_smaller_penalties_are_tried_until_two_in_a_row_are_worse():
    said, labels = planted(3, 60)
    penalties = [10.0**power for power in range(-6, 3)]
    _, penalty, losses = fit_stacking(said, labels, torch.Generator().manual_seed(0), penalties)
    tried = list(losses)
    assert tried == sorted(penalties, reverse=True)[: len(tried)]
    assert len(tried) < len(penalties)
    best = min(losses.values())
    assert all(losses[each] > best for each in tried[-2:])
    assert losses[penalty] == best
