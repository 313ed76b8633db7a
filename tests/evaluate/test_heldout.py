"""Choosing on held-out: the order of members, equal scores, and the search along a scale."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.evaluate.heldout import predict_module, ranking, score, search_scale
from harness.types import Architecture, Member, Split

LABELS = torch.tensor([0, 1, 1, 0])


def log_probs(*of_label):
    """Two classes; the label of each example has this probability."""
    rows = [[p, 1 - p] if label == 0 else [1 - p, p] for p, label in zip(of_label, LABELS.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64).log()


def members(*names):
    return [Member(name, Architecture("any"), {}, "start", 0, {}, name) for name in names]


def test_a_score_is_accuracy_and_minus_the_nll():
    found = score(log_probs(0.9, 0.8, 0.4, 0.6), LABELS)
    nll = -(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.6)) / 4
    assert found == (0.75, pytest.approx(-nll, rel=1e-12))


def test_accuracy_comes_first_then_nll_then_the_name():
    stacked = torch.stack(
        [
            log_probs(0.6, 0.6, 0.4, 0.6),  # three right
            log_probs(0.6, 0.6, 0.6, 0.6),  # all right, unsure
            log_probs(0.9, 0.9, 0.9, 0.9),  # all right, sure
            log_probs(0.9, 0.9, 0.9, 0.9),  # its copy
            log_probs(0.99, 0.99, 0.99, 0.4),  # three right, and sure
        ]
    )
    assert ranking(members("a", "b", "d", "c", "e"), stacked, LABELS) == [3, 2, 1, 4, 0]
    assert ranking(members("a", "b", "c", "d", "e"), stacked, LABELS) == [2, 3, 1, 4, 0]


def test_where_choices_go_by_the_nll_it_comes_first():
    probabilities = ((0.6, 0.6, 0.6, 0.6), (0.99, 0.99, 0.99, 0.4), (0.9, 0.9, 0.9, 0.9))
    stacked = torch.stack([log_probs(*row) for row in probabilities])
    assert ranking(members("a", "b", "c"), stacked, LABELS) == [2, 0, 1]
    assert ranking(members("a", "b", "c"), stacked, LABELS, "nll") == [2, 1, 0]
    accuracy, minus_nll = score(stacked[1], LABELS)
    assert score(stacked[1], LABELS, "nll") == (minus_nll, accuracy)


def test_the_order_of_the_pool_does_not_matter():
    stacked = torch.stack([log_probs(0.9, 0.9, p, 0.7) for p in (0.6, 0.6, 0.4, 0.8)])
    pool = members("z", "a", "m", "k")
    expected = [pool[k].name for k in ranking(pool, stacked, LABELS)]
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        shuffled = [pool[k] for k in order]
        assert [shuffled[k].name for k in ranking(shuffled, stacked[order], LABELS)] == expected == ["k", "a", "z", "m"]


class Says(nn.Module):
    """Gives the label this probability for the given number of examples, and one minus that for the rest."""

    def __init__(self, right, probability):
        super().__init__()
        self.logits = nn.Parameter(log_probs(*[probability] * right, *[1 - probability] * (4 - right)).float())

    def forward(self, batch):
        return self.logits[batch[:, 0].long()]


SPLIT = Split("heldout", torch.arange(4.0).unsqueeze(1), LABELS, list("abcd"), "d")


def test_a_network_is_predicted_with_normalised_log_probabilities():
    module = Says(3, 0.8)
    module.logits.data += torch.arange(4.0).unsqueeze(1)  # not normalised any more
    torch.testing.assert_close(predict_module(module, SPLIT), log_probs(0.8, 0.8, 0.8, 0.2).float())


def search(table, examples=SPLIT, **options):
    """The search over a table of scale -> (how many are right, how sure it is)."""
    made = {}

    def build(scale):
        made[scale] = Says(*table[scale])
        return made[scale]

    chosen, module, curve = search_scale(list(table), build, examples, **options)
    assert list(made) == list(table)  # each once, in the grid's order
    assert module is made[chosen]
    assert [point["scale"] for point in curve] == list(table)
    for point in curve:
        expected = score(predict_module(made[point["scale"]], SPLIT), LABELS)
        assert (point["accuracy"], -point["nll"]) == expected
    return chosen


def test_the_best_scale_is_chosen():
    assert search({0.0: (2, 0.9), 0.5: (4, 0.9), 1.0: (3, 0.9)}) == 0.5


def test_equal_accuracies_are_told_apart_by_nll():
    assert search({0.0: (3, 0.9), 0.5: (3, 0.7), 1.0: (3, 0.99)}) == 0.5


def test_the_first_of_equals_is_chosen():
    assert search({0.0: (2, 0.7), 0.5: (3, 0.7), 1.0: (3, 0.7)}) == 0.5
    assert search({1.0: (3, 0.7), 0.5: (3, 0.7)}) == 1.0


def test_lowest_looks_for_the_least_accuracy_then_the_highest_nll_then_the_first():
    assert search({0.0: (4, 0.9), 0.5: (1, 0.9), 1.0: (2, 0.9)}, lowest=True) == 0.5
    assert search({0.0: (1, 0.7), 0.5: (1, 0.9), 1.0: (1, 0.8)}, lowest=True) == 0.5
    assert search({0.0: (2, 0.7), 0.5: (1, 0.7), 1.0: (1, 0.7)}, lowest=True) == 0.5


def test_a_split_whose_criterion_is_the_nll_is_searched_by_it():
    """One scale is right more often, the other less sure of what it gets wrong; the curve keeps both scores' names."""
    table = {0.0: (3, 0.999), 0.5: (2, 0.6)}
    assert search(table) == 0.0
    by_nll = replace(SPLIT, criterion="nll")
    assert search(table, by_nll) == 0.5
    assert search(table, by_nll, lowest=True) == 0.0
