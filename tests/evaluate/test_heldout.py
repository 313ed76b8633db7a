"""Choosing on held-out: the order of members, equal scores, and the search along a scale."""

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.evaluate.heldout import predict_module, ranking, score, search, search_layer_scales
from harness.types import Architecture, Member, Split
from tests.examples import examples

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


def chosen_from(table, examples=SPLIT, **options):
    """The search over a table of scale -> (how many are right, how sure it is)."""
    made = {}

    def build(scale):
        made[scale] = Says(*table[scale])
        return made[scale]

    found = search(list(table), build, examples, **options)
    chosen = found.scale
    assert list(made) == list(table)  # each in the grid's order
    assert found.module is made[chosen]
    assert [point["scale"] for point in found.curve] == list(table)
    for point in found.curve:
        expected = score(predict_module(made[point["scale"]], SPLIT), LABELS)
        assert (point["accuracy"], -point["nll"]) == expected
    return chosen


def test_the_best_scale_is_chosen():
    assert chosen_from({0.0: (2, 0.9), 0.5: (4, 0.9), 1.0: (3, 0.9)}) == 0.5


def test_equal_accuracies_are_told_apart_by_nll():
    assert chosen_from({0.0: (3, 0.9), 0.5: (3, 0.7), 1.0: (3, 0.99)}) == 0.5


def test_the_first_of_equals_is_chosen():
    assert chosen_from({0.0: (2, 0.7), 0.5: (3, 0.7), 1.0: (3, 0.7)}) == 0.5
    assert chosen_from({1.0: (3, 0.7), 0.5: (3, 0.7)}) == 1.0


def test_lowest_looks_for_the_least_accuracy_then_the_highest_nll_then_the_first():
    assert chosen_from({0.0: (4, 0.9), 0.5: (1, 0.9), 1.0: (2, 0.9)}, lowest=True) == 0.5
    assert chosen_from({0.0: (1, 0.7), 0.5: (1, 0.9), 1.0: (1, 0.8)}, lowest=True) == 0.5
    assert chosen_from({0.0: (2, 0.7), 0.5: (1, 0.7), 1.0: (1, 0.7)}, lowest=True) == 0.5


def test_a_split_whose_criterion_is_the_nll_is_searched_by_it():
    """One scale is right more often, the other less sure of what it gets wrong; the curve keeps both scores' names."""
    table = {0.0: (3, 0.999), 0.5: (2, 0.6)}
    assert chosen_from(table) == 0.0
    by_nll = replace(SPLIT, criterion="nll")
    assert chosen_from(table, by_nll) == 0.5
    assert chosen_from(table, by_nll, lowest=True) == 0.0


def overwriting(table):
    """A build that hands out one module, and how often it was asked for each candidate."""
    module, asked = Says(0, 0.5), []

    def build(scales):
        asked.append(scales)
        module.logits.data = Says(*table(scales)).logits.data
        return module

    return build, asked


def test_a_module_that_is_overwritten_ends_with_the_best_weights_and_its_cost_is_counted():
    table = {0.0: (2, 0.9), 0.5: (4, 0.9), 1.0: (3, 0.9)}
    build, asked = overwriting(table.__getitem__)
    found = search(list(table), build, SPLIT)
    assert asked == [0.0, 0.5, 1.0, 0.5]
    assert score(predict_module(found.module, SPLIT), LABELS)[0] == 1.0
    assert (found.scale, found.evaluations) == (0.5, 3)
    assert found.seconds > 0
    assert found.details == {
        "scale": 0.5,
        "curve": found.curve,
        "heldout_evaluations": 3,
        "search_seconds": found.seconds,
    }


# Scales by layer.

GRID = [0.0, 0.5, 1.0]


class Surface(nn.Module):
    """Two classes; how sure it is of the right one falls with the squared distance of the scales from an optimum."""

    def __init__(self, scales, optimum, interaction):
        super().__init__()
        off = [scales[layer] - best for layer, best in optimum.items()]
        distance = sum(x * x for x in off) + interaction * sum(a * b for a, b in itertools.pairwise(off))
        self.logits = nn.Parameter(log_probs(*[0.5 + 0.4 * math.exp(-distance)] * 4).float())

    def forward(self, batch):
        return self.logits[batch[:, 0].long()]


def by_layer(optimum, interaction=0.0, **options):
    """The outcome of a search, and all candidates in the order in which they were built."""
    tried = []

    def build(scales):
        tried.append(tuple(scales.values()))
        return Surface(scales, optimum, interaction)

    return search_layer_scales(list(optimum), GRID, build, SPLIT, **options), tried


def test_each_layer_takes_its_best_scale():
    found, tried = by_layer({"a": 1.0, "b": 0.0, "c": 0.5})
    assert found.scale == {"a": 1.0, "b": 0.0, "c": 0.5}
    assert tried[:3] == [(0.0,) * 3, (0.5,) * 3, (1.0,) * 3]
    assert [point["scale"] for point in found.curve] == GRID
    assert tried[-1] == (1.0, 0.0, 0.5)
    assert len(set(tried)) == len(tried) - 1 == found.evaluations <= (1 + 3) * len(GRID)
    best = max(point["accuracy"] - point["nll"] for point in found.curve)
    assert sum(score(predict_module(found.module, SPLIT), LABELS)) > best


def test_more_sweeps_see_more_and_one_that_changes_nothing_is_free():
    optimum = {"a": 1.0, "b": 0.0, "c": 1.0}
    once, _ = by_layer(optimum, interaction=1.9, sweeps=1)
    often, tried = by_layer(optimum, interaction=1.9, sweeps=50)
    assert score(predict_module(often.module, SPLIT), LABELS) >= score(predict_module(once.module, SPLIT), LABELS)
    assert len(tried) < (1 + 50 * 3) * len(GRID) / 5
    none, tried = by_layer(optimum, sweeps=0)
    assert len(set(none.scale.values())) == 1
    assert len(set(tried)) == len(GRID)


@examples(60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["accuracy", "nll"]))
def test_it_is_never_worse_than_the_best_shared_scale(seed, lowest, criterion):
    """On any landscape: the score of each candidate is drawn at random."""

    def build(scales):
        draw = random.Random(f"{seed} {sorted(scales.items())}")
        return Says(draw.randint(0, 4), draw.uniform(0.51, 0.99))

    examples = replace(SPLIT, criterion=criterion)

    def wanted(module):
        found = score(predict_module(module, examples), LABELS, criterion)
        return tuple(-value for value in found) if lowest else found

    found = search_layer_scales(["a", "b", "c"], GRID, build, examples, sweeps=2, lowest=lowest)
    shared = [wanted(build(dict.fromkeys("abc", scale))) for scale in GRID]
    assert wanted(found.module) >= max(shared)
    assert wanted(build(found.scale)) == wanted(found.module)


def test_where_no_layer_gains_the_first_best_shared_scale_stays():
    found = search_layer_scales(["a", "b"], GRID, lambda scales: Says(3, 0.7), SPLIT)
    assert found.scale == {"a": 0.0, "b": 0.0}
