"""Writing down what a combination says on test: the outcomes of every example, and the costs that are counted."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.cost import counters
from harness.evaluate import outcomes, scores
from harness.kinds.kind import Evaluation
from harness.store import Key, Store, write_json
from harness.types import Combination


def write_evaluation(
    store: Store, key: Key, combination: Combination, found: Evaluation, labels: Tensor, few: Tensor | None
) -> None:
    """Write the outcomes of every example and the counted costs.

    Args:
        store: where to.
        key: of the artefact.
        combination: what was evaluated.
        found: what it said.
        labels: [N] the truth.
        few: inputs [B, ...] to count the FLOPs of; None where it cannot be run on the task's inputs.

    Raises:
        scores.NonFinite: a label was given no probability at all.
    """
    examples = outcomes.tabulate(found.log_probs, labels.numpy())
    scores.check_finite(examples)
    scores.check_numbers(found.scores)
    counts: dict[str, float | None] = {
        "params_stored": counters.parameters_stored(combination),
        "params_active": counters.parameters_active(combination),
    }
    if few is not None:
        counts["flops_per_example"] = counters.flops_per_example(combination, few)
    with store.write(key) as folder:
        columns = {str(name): torch.tensor(examples[name].to_numpy()) for name in examples}
        save_file(columns, folder / "examples.safetensors")
        measures = {name: torch.tensor(values) for name, values in found.measures.items()}
        save_file(measures, folder / "measures.safetensors")
        draws = {name: torch.tensor(each.draws) for name, each in found.aggregates.items()}
        save_file(draws, folder / "draws.safetensors")
        of_tasks = {name: {"value": each.value, "n": each.n} for name, each in found.aggregates.items()}
        write_json(folder / "evaluation.json", {**found.record, **counts, "aggregates": of_tasks})
