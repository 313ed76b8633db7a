"""Every Eval Ever's instance-level files, ``<uuid>_samples.jsonl``: right and wrong, tokens and time.

The schema is every_eval_ever/schemas/instance_level_eval.schema.json (0.2.2) of github.com/evaleval/every_eval_ever:
one object a line, of one model, one sample and one of the evaluation's results. It has no probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import BadInput
from harness.imports.files import first_record, records
from harness.imports.format import Asked, Format, Given
from harness.imports.imported import Imported
from harness.imports.joining import join, refuse_twice
from harness.imports.outcomes import right_or_wrong
from harness.imports.prompts import prompt_groups
from harness.registry import FORMATS

KEYS = {"schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id", "evaluation"}


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*_samples.jsonl")) if path.is_dir() else [path]


def _is_samples(path: Path) -> bool:
    return path.suffix == ".jsonl" and first_record(path).keys() >= KEYS


def recognises(path: Path) -> bool:
    """A file of instances, or a folder with such files."""
    return any(_is_samples(file) for file in _files(path))


def read(given: Sequence[Given], asked: Asked) -> Imported:
    """Right and wrong of every model, joined by evaluation and sample."""
    rows = pd.DataFrame([row for one in given for file in _files(one.path) for row in _rows(file, one.member, asked)])
    place = str(given[0].path)
    if rows.empty:
        raise BadInput("there are no samples of these evaluations", place=place)
    values: dict[str, pd.DataFrame] = {}
    facts: dict[str, pd.DataFrame] = {}
    for member, of_member in rows.groupby("member"):
        of_member = of_member.set_index("id")
        refuse_twice(of_member.index, f"{place}: {member}", "give each once; of several results name one with --metric")
        values[str(member)] = of_member[["score", "right", "cost_tokens", "cost_ms"]]
        facts[str(member)] = of_member[["group", "stratum"]]
    members, questions, lost = join(values, facts, place)
    scores = pd.DataFrame({name: frame["score"] for name, frame in members.items()})
    if asked.threshold is None:
        _refuse_contradictions(members, place)
    right, partial = right_or_wrong(scores, questions["stratum"], asked.threshold, place)
    frames, left = {}, set()
    for name, frame in members.items():
        costs = frame.loc[right.index, ["cost_tokens", "cost_ms"]].astype(float)
        left |= {cost for cost in costs if costs[cost].isna().any() and costs[cost].notna().any()}
        costs = costs.dropna(axis="columns")
        frames[name] = pd.concat([right[[name]].set_axis(["correct"], axis=1), costs], axis=1)
    dropped = [f"{cost}, which some rows have and others lack" for cost in sorted(left)]
    return Imported("correct", questions.loc[right.index], frames, (), lost + partial + dropped)


def _rows(path: Path, member: str | None, asked: Asked) -> Iterator[Mapping[str, Any]]:
    """One a line: who, which sample of which evaluation, the score, and what it cost."""
    for place, record in records(path):
        if not record.keys() >= KEYS:
            raise BadInput("a line is no sample of Every Eval Ever", place=place)
        name = str(record["evaluation_name"])
        if asked.tasks and name not in asked.tasks:
            continue
        result = record.get("evaluation_result_id")
        if asked.metric is not None and result is not None and asked.metric not in (result, name):
            continue
        try:
            score, right = float(record["evaluation"]["score"]), record["evaluation"]["is_correct"]
            prompt = str(record["input"]["raw"])
        except (KeyError, TypeError, ValueError) as fault:
            raise BadInput(f"a sample lacks what the schema asks for ({fault})", place=place) from None
        tokens = (record.get("token_usage") or {}).get("total_tokens")
        times = record.get("performance") or {}
        milliseconds = times.get("latency_ms")
        if milliseconds is None:
            milliseconds = times.get("generation_time_ms")
        yield {
            "member": member or str(record["model_id"]), "id": f"{name}/{record['sample_id']}", "score": score,
            "right": bool(right), "group": prompt_groups(pd.Series([prompt]))[0], "stratum": name,
            "cost_tokens": tokens, "cost_ms": milliseconds,
        }  # fmt: skip


def _refuse_contradictions(members: Mapping[str, pd.DataFrame], place: str) -> None:
    """A score of 1 that is said to be wrong, or of 0 that is said to be right."""
    for name, frame in members.items():
        bad = (frame["score"].isin([0.0, 1.0]) & ((frame["score"] == 1) != frame["right"])).to_numpy()
        if bad.any():
            problem = f"'{name}' has a score and an is_correct that differ in '{frame.index[bad.argmax()]}'"
            raise BadInput(f"{problem} ({bad.sum()} such rows)", place=place, hint="--threshold goes by scores alone")


FORMATS.add(
    Format(
        "every_eval_ever",
        "Every Eval Ever's <uuid>_samples.jsonl: right and wrong, tokens and milliseconds, of every model",
        recognises,
        read,
        ("metric", "tasks", "threshold", "member"),
        module=__name__,
    )
)
