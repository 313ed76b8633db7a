"""The task-vector analogy (arXiv:2212.04089, section 5), "A is to B as C is to D": D = C + (B - A)."""

import pytest
import torch

from harness.checks.pools import CNN, MLP, build_method, fine_tunes

A_B_C = [-1.0, 1.0, 1.0]


@pytest.mark.parametrize("architecture", [CNN, MLP], ids=lambda a: a.name)
def test_the_coefficients_of_an_analogy_give_c_plus_b_minus_a(architecture):
    pool = fine_tunes(3, architecture)
    a, b, c = (m.weights for m in pool.members)
    found = build_method("task_arithmetic", pool, coefficients=A_B_C, scale=1.0).module.state_dict()
    for name in a:
        torch.testing.assert_close(found[name], c[name] + (b[name] - a[name]), rtol=1e-4, atol=1e-5)


def test_where_a_and_b_are_the_same_it_is_c_and_where_a_and_c_are_it_is_b():
    pool = fine_tunes(3)
    for order, expected in (((0, 0, 1), 1), ((0, 2, 0), 2)):
        found = build_method("task_arithmetic", pool.subset(order), coefficients=A_B_C, scale=1.0).module.state_dict()
        for name, tensor in pool.members[expected].weights.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
