"""Multiple choice in lm-eval's samples: the scores of the choices, the label, and the check against lm-eval's own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special

from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.imports.lm_eval import Samples

Lengths = Callable[[str], int]
LENGTHS: Mapping[str, Lengths] = {
    "acc": lambda text: 1,
    "acc_norm": len,
    "acc_bytes": lambda text: len(text.encode("utf-8")),
}
"""What a choice's log-likelihood is divided by, as in lm_eval.api.task.ConfigurableTask.process_results."""


@dataclass(frozen=True)
class Choices:
    """The choices of N questions, up to C of each."""

    log_scores: np.ndarray
    """[N, C], -inf where a question has fewer choices."""
    labels: np.ndarray
    """[N] positions."""

    @property
    def probabilities(self) -> np.ndarray:
        """[N, C]: the softmax of the scores; 0 where there is no choice."""
        return scipy.special.softmax(self.log_scores, axis=1)

    @property
    def counts(self) -> np.ndarray:
        """[N] numbers of choices."""
        return np.isfinite(self.log_scores).sum(axis=1)


def read_choices(samples: Samples) -> Choices | str:
    """The choices' scores and the labels that agree with the file's own metric in every row; or why there are none.

    ``BadInput`` where scores and labels are there but do not give the file's metric: then they are not what they seem.
    """
    rows = list(samples.records.values())
    if samples.metric not in LENGTHS:
        return f"'{samples.metric}' of {samples.task} does not go by the scores of choices"
    scores = [_log_likelihoods(record) for record in rows]
    if not all(len(each) > 1 for each in scores):
        return f"{samples.task} is no multiple choice"
    count = max(map(len, scores))
    problem = None
    for texts in (_without_delimiter, list):
        table = np.full((len(rows), count), -np.inf)
        for row, (record, each) in enumerate(zip(rows, scores, strict=True)):
            lengths = [LENGTHS[samples.metric](text) for text in texts(_continuations(record, len(each)))]
            table[row, : len(each)] = np.divide(each, lengths) if all(lengths) else np.nan
        best = table.argmax(axis=1)
        for read in (_as_position, _as_text, _by_outcome):
            if read is _by_outcome and (problem or samples.metric != "acc"):
                continue  # it agrees with whatever the metric says, so it comes last
            labels = np.array([read(record, len(each), int(place), samples.metric)
                               for record, each, place in zip(rows, scores, best, strict=True)])  # fmt: skip
            if (labels < 0).any():
                continue
            differs = (best == labels) != (samples.scores == 1)
            if not differs.any() and not np.isnan(table).any():
                return Choices(table, labels)
            problem = problem or f"{samples.metric} of document {rows[differs.argmax()]['doc_id']} is not what the " \
                                 "choices' scores and the target give"  # fmt: skip
        if samples.metric == "acc":
            break  # which goes by no lengths
    if problem is None:
        return f"the targets of {samples.task} do not name one choice each"
    raise BadInput(problem, place=str(samples.path), hint="import right and wrong only: --as correct")


def _log_likelihoods(record: Mapping[str, Any]) -> list[float]:
    """Of each choice; fewer than two where the sample is no multiple choice. JSON has numbers as text here."""
    try:
        pairs = [(float(value), str(greedy)) for value, greedy in record["filtered_resps"]]
    except (TypeError, ValueError):
        return []
    if not all(greedy in ("True", "False") for _, greedy in pairs):
        return []
    half = len(pairs) // 2 if "acc_mutual_info" in record.get("metrics", record) else len(pairs)
    return [value for value, _ in pairs[:half]]  # the second half is the choices without their question


def _continuations(record: Mapping[str, Any], count: int) -> list[str]:
    """The choices as the model was asked for them."""
    arguments = record.get("arguments", [])
    if isinstance(arguments, dict):
        arguments = [list(arguments[f"gen_args_{number}"].values()) for number in range(len(arguments))]
    return [str(each[1]) if len(each) > 1 else "" for each in arguments[:count]]


def _without_delimiter(texts: Sequence[str]) -> list[str]:
    """What follows the one space that lm-eval sets before choices, unless a task says otherwise."""
    return [text.removeprefix(" ") for text in texts]


def _as_position(record: Mapping[str, Any], count: int, best: int, metric: str) -> int:
    try:
        position = int(record["target"])
    except (TypeError, ValueError):
        return -1
    return position if 0 <= position < count else -1


def _as_text(record: Mapping[str, Any], count: int, best: int, metric: str) -> int:
    """The one choice that reads as the target does; a list of targets names no single one."""
    texts = [text.strip() for text in _continuations(record, count)]
    target = str(record["target"]).strip()
    return texts.index(target) if texts.count(target) == 1 and not _is_list(target) else -1


def _is_list(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _by_outcome(record: Mapping[str, Any], count: int, best: int, metric: str) -> int:
    """Of two choices the one that the metric says was right: of tasks that ask for one text after two beginnings."""
    if count != 2 or _is_list(str(record["target"])):
        return -1
    return best if record[metric] == 1 else 1 - best
