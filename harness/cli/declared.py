"""What there is of each sort of declaration, as ``stockpot ls`` prints it: a line for its name, and lines for the rest.

Each function takes a declaration and gives its first line and those below it. ``SORTS`` names the verbs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.display.lines import plain_line

if TYPE_CHECKING:
    import pydantic

    from harness.cost.cost import Cost
    from harness.engines.engine import Engine
    from harness.imports import Format
    from harness.kinds.kind import Kind
    from harness.methods.method import Method
    from harness.moe.dispatch.dispatch import Dispatch
    from harness.pools.source import PoolSource
    from harness.results.metric import Column, Metric

Lines = tuple[str, Sequence[str]]


def method_lines(method: Method) -> Lines:
    """Its family, what it does, its paper and its parameters."""
    return f"{method.name}  ({method.family})", [method.summary, method.paper, *_fields(method.parameters)]


def metric_lines(metric: Metric) -> Lines:
    """What it means, which way is better, and its unit and range."""
    return metric.name, [_column(metric.column)]


def cost_lines(cost: Cost) -> Lines:
    """About how long it takes for a variant, and its columns."""
    asked = "measured unless a suite says no" if cost.usual else "measured where a suite asks for it"
    import torch

    columns = [f"{column.name}: {_column(column)}" for column in cost.columns]
    reason = cost.unavailable(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return f"{cost.name}  (about {cost.seconds:g} s; {asked})", [*columns, *([f"not here: {reason}"] if reason else [])]


def kind_lines(kind: Kind) -> Lines:
    """What its models are, the tasks that come with it, and the networks that a suite may have trained."""
    key = f"a suite says 'task: {{{kind.key}: ...}}'" if kind.key else "a suite names one of its tasks"
    listed = {"tasks": sorted(kind.tasks), "networks": sorted(kind.networks)}
    return f"{kind.name}  (its models: {kind.models})", [
        key, *(f"{what}: {', '.join(names)}" for what, names in listed.items() if names)
    ]  # fmt: skip


def source_lines(source: PoolSource) -> Lines:
    """What it is, and what a suite may say of it under ``pool:``."""
    return source.name, [*_summary(source.spec), *_fields(source.spec)]


def engine_lines(engine: type[Engine]) -> Lines:
    """How it runs jobs."""
    return engine.name, _summary(engine)


def dispatch_lines(path: Dispatch) -> Lines:
    """What it does; whether a device, type or shape of rows is one for it is only known of these."""
    return path.name, [path.summary]


def format_lines(form: Format) -> Lines:
    """What it is, and how to come by a file of it where there is a pickle."""
    return form.name, [form.summary, *([f"where it is a pickle: {form.unpickle}"] if form.unpickle else [])]


def _summary(documented: type) -> list[str]:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").splitlines()[:1]


def _fields(model: type[pydantic.BaseModel]) -> list[str]:
    from harness.methods.method import describe_type

    defaults = {
        key: "required" if field.is_required() else f"default {json.dumps(field.default, default=str)}"
        for key, field in model.model_fields.items()
    }
    return [f"{key}: {describe_type(field)}; {defaults[key]}" for key, field in model.model_fields.items()]


def _column(column: Column) -> str:
    better = f"{column.better} is better" if column.better else "neither way is better"
    span = "" if (column.least, column.most) == (0.0, float("inf")) else f"; {column.least:g} to {column.most:g}"
    return f"{column.meaning}; {better}{span}{f'; in {column.unit}' if column.unit else ''}"


@dataclass(frozen=True)
class Sort:
    """A sort of declaration, and how one is printed."""

    registry: str
    """Its name in ``harness.registry``, which is imported when the verb is called."""
    help: str
    lines: Callable[[Any], Lines]


SORTS = {
    "methods": Sort("METHODS", "Every method with its family, what it does and its parameters.", method_lines),
    "metrics": Sort("METRICS", "Every metric with what it means and which way is better.", metric_lines),
    "costs": Sort("COSTS", "Every cost with its columns and about how long it takes to measure.", cost_lines),
    "kinds": Sort("KINDS", "Every kind of task with the tasks that come with it and its networks.", kind_lines),
    "sources": Sort("SOURCES", "Every source of members with what a suite may say of it.", source_lines),
    "engines": Sort("ENGINES", "Every engine that jobs can run on.", engine_lines),
    "dispatches": Sort("DISPATCHES", "Every path on which rows reach their experts in a mixture.", dispatch_lines),
    "formats": Sort("FORMATS", "Every format of predictions that can be imported.", format_lines),
}


def print_sort(sort: Sort) -> None:
    """Every declaration of a sort, ours and those of plug-ins, on stdout."""
    from harness import registry

    for declared in getattr(registry, sort.registry):
        first, rest = sort.lines(declared)
        print("\n    ".join(map(plain_line, [first, *rest])))
