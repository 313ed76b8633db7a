"""The fields of run.json without which no one can say what a run is comparable with: there, and of the right type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.errors import BadInput
from harness.strict import yaml

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _seeds(value: Any) -> bool:
    ints = isinstance(value, list) and bool(value) and all(type(each) is int and each >= 0 for each in value)
    return ints and len(set(value)) == len(value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_text, value)) and len(set(value)) == len(value)


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_text, value)) and all(map(_count, value.values()))


def _devices(value: Any) -> bool:
    named = isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    return named and all(_text(each.get("kind")) and isinstance(each.get("name"), str) for each in value)


NEEDED: dict[str, Check] = {
    "run_id": _text,
    "started": _text,
    "status": _text,
    "limit": _or_none(_count),
    "only": _or_none(_text),
    "seeds": _seeds,
    "dtype": _text,
    "batch_policy": _counts,
    "device": _text,
    "devices": _devices,
    "machine.system": _text,
    "machine.cpu": lambda value: isinstance(value, str),  # not every processor says its name
    "machine.cores": _count,
    "engine.workers": _count,
    "engine.threads_per_worker": _count,
    "suite.name": _text,
    "suite.digest": _text,
    "suite.yaml": _text,
    "task.name": _text,
    "task.digest": _text,
    "task.documents": _counts,
    "reference.variant": _text,
    "summary.variants": _count,
}
"""By its place in run.json, what the value has to be; those that may be null have to be written as null."""


def field_faults(record: dict[str, Any]) -> Iterator[str]:
    """A line for each field that is not recorded, or holds something else."""
    for path, check in NEEDED.items():
        value: Any = record
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                yield f"{path} is not recorded in run.json"
                break
            value = value[part]
        else:
            if not check(value):
                yield f"{path} of run.json is {_shown(value)}, which it cannot be"
    if "planned" in record and not _names(record["planned"]):
        yield f"planned of run.json is {_shown(record['planned'])}, which it cannot be"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def suite_of(record: dict[str, Any]) -> dict[str, Any]:
    """The suite file that a run keeps, as it was read; empty where it keeps none that can be read."""
    try:
        suite = yaml.load(record["suite"]["yaml"], "suite").value
    except (KeyError, TypeError, BadInput):
        return {}
    return suite if isinstance(suite, dict) else {}
