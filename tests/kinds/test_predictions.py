"""Evaluating combinations of members that are known by predictions: nothing is run, and each row costs what ran."""

import numpy as np
import pytest
import torch

from harness.checks.tasks import LIMIT, tried
from harness.evaluate.predictions import CachedPredictions
from harness.registry import KINDS
from harness.systems.acceptance import Confidence
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, SingleModel
from harness.types import NotApplicable
from tests.pools import planted_predictions as planted

KIND = KINDS.get("predictions")


@pytest.fixture(scope="module")
def on(tmp_path_factory):
    return tried(planted.TABLE, planted.write_pool(tmp_path_factory.mktemp("kind")), pool=planted.POOL)


def evaluated(on, combination, task):
    (found,) = KIND.evaluate([combination], task, task, CachedPredictions(on.store, "cpu"))
    return found


def test_a_row_of_a_staged_system_costs_what_ran_for_it(on):
    first, *others = parts = [MemberPart(member) for member in on.members]
    both = OutputCombination(parts, Linear(uniform(3)))
    cascade = Staged([OutputCombination([first], Linear(uniform(1))), both], [Confidence(0.7)])
    found = evaluated(on, cascade, on.task)
    test = slice(planted.HELDOUT, None)
    sure = planted.probabilities(0)[test].max(axis=1) >= 0.7
    assert 0 < sure.sum() < len(sure)
    dear = sum(planted.costs(member)[test] for member in range(1, 1 + len(others)))
    np.testing.assert_allclose(found.measures["cost/money"], planted.costs(0)[test] + np.where(sure, 0, dear))
    answered = np.where(sure[:, None], planted.probabilities(0)[test],
                        np.mean([planted.probabilities(member)[test] for member in range(3)], axis=0))  # fmt: skip
    np.testing.assert_allclose(np.exp(found.log_probs), answered, atol=1e-6)


def test_with_a_limit_the_costs_are_those_of_the_first_rows(on):
    found = evaluated(on, OutputCombination([MemberPart(on.members[1])], Linear(uniform(1))), on.limited)
    first = slice(planted.HELDOUT, planted.HELDOUT + LIMIT)
    np.testing.assert_allclose(found.measures["cost/money"], planted.costs(1)[first])


def test_a_cost_that_only_some_members_bring_is_of_those_alone(tmp_path):
    planted.write_pool(tmp_path, priced=False)
    priced = planted.wide(1).assign(cost_money=planted.costs(1))
    priced.to_parquet(tmp_path / "b.parquet", index=False)
    on = tried(planted.TABLE, tmp_path, pool=planted.POOL)
    one, two = (OutputCombination([MemberPart(m) for m in on.members[k:]][:2], Linear(uniform(2))) for k in (0, 1))
    alone = OutputCombination([MemberPart(on.members[1])], Linear(uniform(1)))
    assert not evaluated(on, one, on.task).measures
    assert not evaluated(on, two, on.task).measures
    assert list(evaluated(on, alone, on.task).measures) == ["cost/money"]


def test_nobody_can_build_or_train_a_network_for_it(on):
    with pytest.raises(NotApplicable, match="have no network that could be trained"):
        KIND.loaded["predictions"](classes=3)
    assert not KIND.networks
    module = MemberPart(on.members[0]).module
    assert not any(parameter.requires_grad for parameter in module.parameters())
    combination = SingleModel(on.members[0].architecture, module)
    assert torch.isfinite(torch.from_numpy(evaluated(on, combination, on.task).log_probs)).all()
