"""The laws of costs: ours keep them, and a cost that breaks one is caught by it."""

import time
from dataclasses import replace

import pytest
import torch

from harness.checks import BrokenLaw, check_cost, costs, laws
from harness.cost.cost import Cost, cost
from harness.registry import COSTS
from harness.results.metric import Column

LAWS = {law.__name__: law for law in laws("cost")}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("name", COSTS.all())
def test_cost(name, law):
    law(COSTS.get(name))


COLUMN = Column("batches", "full batches that were run", better="lower", source="planted_source", interval="batches")
FIGURES = {"batches": 1, "batches_low": 1, "batches_high": 1, "planted_source": "counter"}


def measured(**figures):
    """A cost that gives these figures besides."""
    return planted(lambda bench: FIGURES | figures)


def planted(gives, **changes):
    def measure(bench):
        bench.load().log_probs(bench.test.full_batch)
        return gives(bench)

    words = (("planted_source", "where the figure comes from"),)
    return replace(declared("planted", measure), columns=(COLUMN,), words=words, **changes)


def declared(name, measure):
    """A cost with all defaults; the registry is as before."""
    before = dict(COSTS.all())
    cost(name, columns=[COLUMN], seconds=0.1)(measure)
    found = COSTS.get(name)
    COSTS._known = before
    return found


def spoils_a_member(bench):
    combination = bench.load()
    next(combination.parts()[0].module.parameters()).data.zero_()
    return FIGURES


def leaves_it_in_training(bench):
    bench.load().parts()[0].module.train()
    return FIGURES


def slow(device):
    time.sleep(0.2)


count = iter(range(100))
WRONG: list[tuple[Cost, str]] = [
    (replace(measured(), columns=()), "its_columns_say_what_they_are"),
    (replace(measured(), columns=(replace(COLUMN, meaning=""),)), "its_columns_say_what_they_are"),
    (replace(measured(), columns=(replace(COLUMN, name="peak_memory_bytes"),)), "its_columns_are_no_others"),
    (replace(measured(), unavailable=slow), "a_missing_meter_is_known_at_once"),
    (replace(measured(), unavailable=lambda device: "no"), "a_missing_meter_is_known_at_once"),
    (planted(lambda bench: {"batches": None}), "every_column_is_given"),
    (measured(batches="many"), "every_column_is_given"),
    (replace(measured(), columns=(COLUMN, replace(COLUMN, name="more", interval=None))), "every_column_is_given"),
    (replace(measured(), columns=(replace(COLUMN, source="nowhere_source"),)), "its_columns_say_what_they_are"),
    (
        planted(lambda bench: FIGURES, derive=lambda figures, context: {"batches": 1 / context.row["accuracy"]}),
        "little_is_enough_to_derive",
    ),
    (
        planted(lambda bench: FIGURES, derive=lambda figures, context: {"batches": context.reference["batches"]}),
        "little_is_enough_to_derive",
    ),
    (
        planted(lambda bench: FIGURES, derive=lambda figures, context: {"batches": not context.reference}),
        "little_is_enough_to_derive",
    ),
    (measured(batch=3), "nothing_undeclared_is_given"),
    (planted(lambda bench: FIGURES, derive=lambda figures, context: {"more": 1}), "nothing_undeclared_is_given"),
    (measured(batches=-1), "figures_are_within_range"),
    (measured(batches=float("inf")), "figures_are_within_range"),
    (measured(batches_low=2), "figures_are_within_range"),
    (measured(planted_source=torch.ones(1)), "figures_can_be_kept"),
    (planted(lambda bench: FIGURES if next(count) % 2 else {"planted_source": "once"}), "it_can_be_measured_again"),
    (planted(spoils_a_member), "the_combination_is_unchanged"),
    (planted(leaves_it_in_training), "the_combination_is_unchanged"),
    (declared("planted", lambda bench: FIGURES), "the_combination_is_unchanged"),
]


@pytest.mark.parametrize(("planted", "law"), WRONG, ids=[f"{i}-{law}" for i, (_, law) in enumerate(WRONG)])
def test_a_wrong_cost_is_caught(planted, law, monkeypatch):
    monkeypatch.setattr(costs, "AT_ONCE", 0.1)
    with pytest.raises(BrokenLaw, match="cost 'planted'") as caught:
        LAWS[law](planted)
    assert caught.value.law == law
    monkeypatch.setattr(COSTS, "_known", {**COSTS.all(), "planted": planted})
    with pytest.raises(BrokenLaw):
        check_cost("planted")


def test_every_law_of_costs_catches_something():
    assert {law for _, law in WRONG} == set(LAWS)


@pytest.mark.parametrize(
    "right",
    [
        measured(),
        planted(lambda bench: {"batches": None, "planted_source": "the meter was busy"}),
        planted(lambda bench: {**FIGURES, "more": 1}, derive=lambda figures, context: {"batches": figures["more"]}),
        planted(lambda bench: 1 / 0, unavailable=lambda device: "this machine has no such meter"),
    ],
)
def test_a_right_cost_passes(right):
    for law in LAWS.values():
        law(right)
