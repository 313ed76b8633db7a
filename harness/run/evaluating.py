"""What is kept of a combination on test: the outcomes of every example, and the costs that are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.cost import counters
from harness.cost.runnable import why_not_run
from harness.evaluate import outcomes, scores
from harness.evaluate.expert_use import EXPERTS
from harness.evaluate.halving import HALVED, HALVED_TOKENS
from harness.keys import Key
from harness.kinds.kind import LACKING, Evaluation
from harness.results.metric import OUTCOMES
from harness.store import Store, read_json, write_json
from harness.tasks.answers import Aggregate
from harness.types import Combination, Split

INTERMEDIATE = "intermediate.parquet"
EXAMPLES, MEASURES, DRAWS = "examples.safetensors", "measures.safetensors", "draws.safetensors"
RECORD = "evaluation.json"
CALLS = "calls"
"""The outcome of an example that says how many models ran for it."""


TOLD = ("stages", "votes", "rounds", "failures", "failed", LACKING, EXPERTS, HALVED, HALVED_TOKENS)
"""What details.json says of an evaluation: which stages answered, how answers were voted for, what each round did, how
often stages failed, and on what; the tasks that the system is not applicable to, each with the reason; what the
experts of a mixture ran for; and the batches that were left where memory was too small for those that were stated."""
FEW = 50
"""Inputs that FLOPs are counted on, at most."""


def write_evaluation(
    store: Store,
    key: Key,
    combination: Combination,
    found: Evaluation,
    labels: Tensor,
    test: Split,
    *,
    count: bool = True,
) -> None:
    """Write the outcomes of every example and the counted costs.

    Args:
        store: where to.
        key: of the artefact.
        combination: what was evaluated.
        found: what it said.
        labels: [N] the truth.
        test: whose first inputs FLOPs are counted on, where it can be run on them.
        count: whether costs are counted.

    Raises:
        scores.NonFinite: an outcome, or a score of lm-eval's, is wrong.
    """
    says = found.says or combination.says
    examples = outcomes.tabulate(found.log_probs, labels.numpy(), says=says)
    scores.check_finite(examples, says)
    infinite = scores.check_numbers(found.scores)
    counts = {}
    if count:
        few = None if why_not_run(combination, test) else test.inputs[: min(test.batch, FEW)]
        counts = counters.counted(combination, torch.from_numpy(found.calls), few)
    with store.write(key) as folder:
        columns = {str(name): torch.tensor(examples[name].to_numpy()) for name in examples}
        columns[CALLS] = torch.from_numpy(found.calls).sum(dim=1)
        save_file(columns, folder / EXAMPLES)
        measures = {name: torch.tensor(values) for name, values in found.measures.items()}
        save_file(measures, folder / MEASURES)
        kept = {name: each for name, each in found.aggregates.items() if name not in infinite}
        draws = {name: torch.tensor(each.draws) for name, each in kept.items()}
        save_file(draws, folder / DRAWS)
        of_tasks = {name: {"value": each.value, "n": each.n} for name, each in kept.items()}
        lost = {"excluded": int(scores.excluded(examples).sum()), "infinite": infinite}
        if found.intermediate is not None:
            found.intermediate.to_parquet(folder / INTERMEDIATE, index=False)
        write_json(folder / RECORD, {**counts, **found.record, **lost, "aggregates": of_tasks, "says": says})


def read_record(store: Store, key: Key) -> dict[str, Any]:
    """What else evaluating recorded: seconds, counted costs, temperatures, how many labels were given probability 0."""
    record: dict[str, Any] = read_json(store.read(key) / RECORD)
    return record


def read_examples(store: Store, key: Key) -> pd.DataFrame:
    """The table of outcomes, a row for each example, with those that metrics add."""
    columns = load_file(store.read(key) / EXAMPLES)
    return pd.DataFrame({name: columns[name].numpy() for name in (*OUTCOMES, CALLS, *outcomes.own_outcomes())})


def read_measures(store: Store, key: Key) -> dict[str, np.ndarray]:
    """Other values on test, one for each document or NaN, by name: the mean of each is a score."""
    columns = load_file(store.read(key) / MEASURES)
    return {name: columns[name].numpy() for name in sorted(columns)}


def read_intermediate(store: Store, key: Key) -> pd.DataFrame | None:
    """What the stages of a pipeline said of test; None of what is none."""
    path = store.read(key) / INTERMEDIATE
    return pd.read_parquet(path) if path.is_file() else None


def read_aggregates(store: Store, key: Key) -> dict[str, Aggregate]:
    """Scores of whole tasks that are no means over documents, by name."""
    draws, of_tasks = load_file(store.read(key) / DRAWS), read_record(store, key)["aggregates"]
    return {name: Aggregate(of["value"], draws[name].numpy(), of["n"]) for name, of in sorted(of_tasks.items())}
