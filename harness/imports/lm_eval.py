"""lm-eval's per-sample files (``--log_samples``): multiple choice with probabilities, or right and wrong by a metric.

They are written by lm_eval.loggers.EvaluationTracker.save_results_samples (read in lm-eval 0.4.13): a folder for each
model, and in it ``samples_<task>_<date>.jsonl``. A file says neither the model nor the task: their names do.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import BadInput
from harness.imports.choices import Choices, read_choices
from harness.imports.files import first_record, records
from harness.imports.format import Asked, Format, Given
from harness.imports.imported import Imported
from harness.imports.joining import join, refuse_twice
from harness.imports.outcomes import right_or_wrong
from harness.registry import FORMATS

NAME = re.compile(r"samples_(?P<task>.+?)(_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?)?\.jsonl")
KEYS = {"doc_id", "doc", "target", "resps", "filtered_resps"}
BASE = {*KEYS, "arguments", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"}


@dataclass(frozen=True)
class Samples:
    """One model's answers to one task, by one filter."""

    member: str
    task: str
    path: Path
    metric: str
    records: Mapping[str, dict[str, Any]]
    """By id: ``task/doc_id/hash of the document``."""

    @property
    def scores(self) -> np.ndarray:
        """[N] of the metric."""
        return np.array([record[self.metric] for record in self.records.values()], dtype=float)


def _is_sample_file(path: Path) -> bool:
    return path.suffix == ".jsonl" and first_record(path).keys() >= KEYS


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]


def recognises(path: Path) -> bool:
    """A file of samples, or a folder with such files."""
    return any(_is_sample_file(file) for file in _files(path))


def read(given: Sequence[Given], asked: Asked) -> Imported:
    """Every model's samples of the tasks, joined by task, document id and the document's hash."""
    loaded = [each for one in given for file in _files(one.path) for each in _load(file, one.member, asked)]
    if not loaded:
        raise BadInput("there are no samples of these tasks", place=str(given[0].path))
    _refuse_repeats(loaded)
    tasks = sorted({each.task for each in loaded})
    members = sorted({each.member for each in loaded})
    by_place = {(each.member, each.task): each for each in loaded}
    everywhere = [task for task in tasks if all((member, task) in by_place for member in members)]
    dropped = [f"the task {task}, which not all members have" for task in tasks if task not in everywhere]
    if not everywhere:
        raise BadInput(f"no task has samples of all {len(members)} members", place=str(given[0].path))
    chosen = [by_place[member, task] for member in members for task in everywhere]
    choices = {} if asked.form == "correct" else {id(each): read_choices(each) for each in chosen}
    reasons = sorted({each for each in choices.values() if isinstance(each, str)})
    if asked.form == "probabilities" and reasons:
        raise BadInput(f"no probabilities: {reasons[0]}", place=str(given[0].path))
    if asked.form == "correct" or reasons:
        notes = [f"right and wrong only: {reason}" for reason in reasons[:3]]
        return _outcomes(chosen, asked, dropped, notes)
    return _probabilities(chosen, {key: each for key, each in choices.items() if isinstance(each, Choices)}, dropped)


def _load(path: Path, member: str | None, asked: Asked) -> Iterable[Samples]:
    named = NAME.fullmatch(path.name)
    task = named["task"] if named else path.stem
    if asked.tasks and task not in asked.tasks:
        return
    rows = list(records(path))
    for place, record in rows:
        if not record.keys() >= KEYS:
            raise BadInput("a line is no sample of lm-eval", place=place)
    if not rows:
        raise BadInput("the file has no samples", place=str(path))
    chosen = [record for _, record in rows]
    metric, kept = _choose_metric(chosen, asked.metric, str(path))
    ids = pd.Index([f"{task}/{record['doc_id']}/{_hash(record)}" for record in kept], dtype=object)
    refuse_twice(ids, str(path))
    yield Samples(member or path.resolve().parent.name, task, path, metric, dict(zip(ids, kept, strict=True)))


def _hash(record: Mapping[str, Any]) -> str:
    """The document's: lm-eval's own, or in older files one of the same text."""
    return record.get("doc_hash") or hashlib.sha256(json.dumps(record["doc"], sort_keys=True).encode()).hexdigest()


def _choose_metric(
    rows: Sequence[dict[str, Any]], asked: str | None, place: str
) -> tuple[str, list[dict[str, Any]]]:
    """The metric to go by, and the samples of its filter: what is asked for, or the only one there is, or ``acc``."""
    known: dict[str, None] = {}
    for record in rows:
        for name in record.get("metrics", record.keys() - BASE):
            if isinstance(record.get(name), int | float):
                known[f"{name},{record.get('filter', 'none')}"] = None
    if not known:
        raise BadInput("no metric has one number for each sample", place=place)
    if asked is not None:
        fits = [each for each in known if asked in (each, each.partition(",")[0])]
    else:
        fits = [each for each in known if each == "acc,none"] or list(known)
    if len(fits) != 1:
        problem = "several metrics: say which with --metric" if fits or asked is None else f"unknown metric '{asked}'"
        raise BadInput(problem, place=place, given=asked, choices=fits or known)
    metric, _, chosen = fits[0].partition(",")
    return metric, [record for record in rows if record.get("filter", "none") == chosen]


def _refuse_repeats(loaded: Sequence[Samples]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for each in loaded:
        first = seen.setdefault((each.member, each.task), each.path)
        if first != each.path:
            problem = f"the samples of member '{each.member}' for task '{each.task}' are here and in {first}"
            raise BadInput(problem, place=str(each.path), hint="give one of them, or name members with NAME=PATH")


def _facts(each: Samples) -> pd.DataFrame:
    """Documents with one hash are one question asked twice, and stay together."""
    hashes = [name.rpartition("/")[2][:16] for name in each.records]
    return pd.DataFrame({"group": hashes, "stratum": each.task}, index=pd.Index(each.records, dtype=object))


def _joined(
    values: Mapping[str, list[pd.DataFrame]], facts: Mapping[str, list[pd.DataFrame]]
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, list[str]]:
    """Rows of all members, called ``task/doc_id``: the hash has done its work."""
    frames = {name: pd.concat(parts) for name, parts in values.items()}
    members, questions, lost = join(frames, {name: pd.concat(parts) for name, parts in facts.items()}, "lm_eval")
    short = pd.Index([name.rpartition("/")[0] for name in questions.index], dtype=object)
    return {name: frame.set_axis(short) for name, frame in members.items()}, questions.set_axis(short), lost


def _probabilities(chosen: Sequence[Samples], choices: Mapping[int, Choices], dropped: list[str]) -> Imported:
    count = max(each.log_scores.shape[1] for each in choices.values())
    classes = tuple(class_names(count))
    values: dict[str, list[pd.DataFrame]] = {}
    facts: dict[str, list[pd.DataFrame]] = {}
    for each in chosen:
        read = choices[id(each)]
        index = pd.Index(each.records, dtype=object)
        padded = np.zeros((len(index), count))
        padded[:, : read.log_scores.shape[1]] = read.probabilities
        values.setdefault(each.member, []).append(pd.DataFrame(padded, index, classes))
        labels = [classes[label] for label in read.labels]
        facts.setdefault(each.member, []).append(_facts(each).assign(label=labels))
    members, questions, lost = _joined(values, facts)
    sizes = sorted({int(n) for each in choices.values() for n in each.counts})
    notes = [f"classes are the positions of the choices; of {sizes[0]} to {sizes[-1]} choices the missing have "
             "probability 0"] if len(sizes) > 1 else []  # fmt: skip
    return Imported("probabilities", questions, members, classes, dropped + lost, notes)


def class_names(count: int) -> list[str]:
    """A, B, C, ... or numbers of one width, so that their order by name is that of the choices."""
    letters = [chr(ord("A") + position) for position in range(26)]
    return letters[:count] if count <= 26 else [f"{position:0{len(str(count - 1))}d}" for position in range(count)]


def _outcomes(chosen: Sequence[Samples], asked: Asked, dropped: list[str], notes: list[str]) -> Imported:
    values: dict[str, list[pd.DataFrame]] = {}
    facts: dict[str, list[pd.DataFrame]] = {}
    for each in chosen:
        index = pd.Index(each.records, dtype=object)
        values.setdefault(each.member, []).append(pd.DataFrame({"score": each.scores}, index))
        facts.setdefault(each.member, []).append(_facts(each))
    members, questions, lost = _joined(values, facts)
    scores = pd.DataFrame({name: frame["score"] for name, frame in members.items()})
    right, partial = right_or_wrong(scores, questions["stratum"], asked.threshold, "lm_eval")
    frames = {name: right[[name]].set_axis(["correct"], axis=1) for name in right}
    used = sorted({f"{each.metric} of {each.task}" for each in chosen})
    notes = [*notes, f"right by {', '.join(used[:4])}{', …' if len(used) > 4 else ''}"]
    return Imported("correct", questions.loc[right.index], frames, (), dropped + lost + partial, notes)


FORMATS.add(
    Format(
        "lm_eval",
        "lm-eval's samples_<task>_<date>.jsonl, a folder for each model: probabilities of choices, or right and wrong",
        recognises,
        read,
        ("metric", "tasks", "threshold", "member"),
        module=__name__,
    )
)
