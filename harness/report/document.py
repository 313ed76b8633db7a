"""The report of a finished run: report.html, report.md, the figures and claims.json, from the run's folder alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from harness.display import formats
from harness.display.capacity import COLUMNS, as_rows, unpredicted_words
from harness.display.formats import amount, bytes_more
from harness.display.lines import escaped
from harness.folders import write_whole
from harness.report.answer import Answer, answer
from harness.report.claim import NOT_TESTED
from harness.report.claims import Claim, as_json, claims
from harness.report.equal_compute import equal_compute
from harness.report.evidence import Evidence
from harness.report.experts import experts_of
from harness.report.figures import CURVES, CURVES_NARROW, FIRST, NARROW, figures
from harness.report.plots.style import render
from harness.report.quality_cost import quality_cost
from harness.report.stages import stages_of
from harness.report.students import students_of
from harness.report.table import table_of
from harness.results.columns import column_of, numbers, plugged_in, variant_columns
from harness.results.history import Entry, history
from harness.results.metric import Column
from harness.results.run import read_run
from harness.results.serving import title_of
from harness.store import as_text

EFFORT = ("warnings", "_seconds", "_bytes")
"""Ends of the names of what methods record that is no choice of theirs: the report has warnings elsewhere."""

LONGEST = 200
"""Characters of what a method records, at most: longer values are in details.json."""


def write_report(folder: Path) -> Path:
    """Render the report of the run in ``folder`` into it, and return report.html.

    Deterministic: the same run gives the same bytes. ``BadInput`` where the folder is no finished run.
    """
    folder = Path(folder)
    evidence = Evidence(read_run(folder))
    pictures: dict[str, dict[str, str]] = {}
    (folder / "figures").mkdir(exist_ok=True)
    for name, caption, figure in figures(evidence):
        files = render(figure)
        for kind, content in files.items():
            write_whole(folder / "figures" / f"{name}.{kind}", content)
        data = base64.b64encode(files["svg"]).decode()
        pictures[name] = {"name": name, "caption": caption, "data": data, "narrow": ""}
    for wide, narrow in ((FIRST, NARROW), (CURVES, CURVES_NARROW)):
        if wide in pictures and (small := pictures.pop(narrow, None)):
            pictures[wide]["narrow"] = small["data"]
    curves = pictures.pop(CURVES, None)
    tested = claims(evidence)
    write_whole(folder / "claims.json", as_text(as_json(tested)))
    context = _context(evidence, answer(evidence), tested) | {"figures": list(pictures.values()), "curves": curves}
    write_whole(folder / "report.md", _render("report.md", context))
    target = folder / "report.html"
    write_whole(target, _render("report.html", context))
    return target


def _render(template: str, context: dict[str, Any]) -> str:
    assets: dict[str, str] = {}
    for name in ("css", "js"):
        text = resources.files("harness.report").joinpath(f"report.{name}").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assets |= {name: text, f"{name}_hash": f"sha256-{digest}"}
    return _template(template).render(context | assets)


@cache
def _template(name: str) -> jinja2.Template:
    """Compiled once for all reports of a process."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        finalize=_without_control,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        each: getattr(formats, each)
        for each in (
            "percent", "percent_interval", "points", "points_interval", "number", "ratio", "joules", "megabytes",
            "seconds", "quantity", "scored", "score_interval", "difference", "difference_interval", "inline_code",
            "plain_text",
        )
    } | {"title_of": title_of}  # fmt: skip
    return environment.get_template(name)


def _without_control(value: Any) -> Any:
    """A value that is put into a page: text of others, of old runs too, without what a terminal would act on."""
    return type(value)(escaped(value, keep="\n\t")) if isinstance(value, str) else value


def _context(evidence: Evidence, said: Answer, found: list[Claim]) -> dict[str, Any]:
    record = evidence.run.record
    table = table_of(evidence)
    return {
        "record": record,
        "splits_differ": evidence.run.splits_differ,
        "warnings": [*record["warnings"], *_undeclared(evidence)],
        "answer": said,
        "table": table,
        "score": table.score,
        "corrected": evidence.corrected,
        "rows": table.rows,
        "not_ok": _not_ok(evidence),
        "quality_cost": quality_cost(evidence),
        "equal_compute": equal_compute(evidence),
        "claims": [claim for claim in found if claim.verdict != NOT_TESTED],
        "untested": [claim for claim in found if claim.verdict == NOT_TESTED],
        "columns": variant_columns(),
        "serving": evidence.serving,
        "measured": not evidence.serving.why_no_costs,
        "own_costs": [column for name in evidence.own_costs if (column := column_of(name))],
        "added": _with_values(evidence, plugged_in()),
        "every": _with_values(evidence, numbers()),
        "pools": record["pools"],
        "versions": record["versions"],
        "learned": _learned(evidence),
        "history": _history(history(evidence.run)),
        "summary": record["summary"],
        "noise": _noise(record.get("noise")),
        "capacity": _capacity(record.get("capacity"), evidence.ok),
        "stages": stages_of(evidence),
        "experts": experts_of(evidence),
        "students": students_of(evidence),
        "joules": evidence.ok["energy_j_per_example"].notna().any(),
        "energy": sorted({str(source).split("; window of")[0] for source in evidence.ok["energy_source"]} - {""}),
        "json": lambda value: json.dumps(value, sort_keys=True),
    }


def _not_ok(evidence: Evidence) -> list[dict[str, Any]]:
    """The variants without results, and those without results on some tasks, each with its reason."""
    failed = evidence.rows[evidence.rows["status"] != "ok"].to_dict("records")
    return [*failed, *({**row, "status": "scored in part"} for row in evidence.scored_in_part)]


def _undeclared(evidence: Evidence) -> list[str]:
    """A sentence that names the columns of variants.csv that are not in the report; none where it has all."""
    unknown = [str(name) for name in evidence.run.variants if name not in variant_columns()]
    said = "variants.csv has columns that nothing installed here declares, and that this report is without: "
    return [said + ", ".join(unknown)] if unknown else []


def _with_values(evidence: Evidence, columns: Mapping[str, Column]) -> list[Column]:
    """Those of these numbers that some variant has."""
    return [column for name, column in columns.items() if evidence.ok[name].notna().any()]


def _noise(found: dict[str, Any] | None) -> str:
    """What the machine does to equal systems; empty where no times were taken."""
    if not found:
        return ""
    full = f"{found['throughput_ratio']:.3f} ({found['throughput_low']:.3f} to {found['throughput_high']:.3f})"
    words = (
        f"against itself the reference takes {found['latency_ratio']:.3f} times as long ({found['low']:.3f} to "
        f"{found['high']:.3f}) for one example and {full} for a full batch, {found['clock']} time; differences in "
        "latency that are not beyond this are called unclear"
    )
    if "measured" not in found:  # a run of an earlier version
        return words
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    cores = f" on any of {len(found['cores'])} cores" if found["cores"] else ""
    speed = f", GPU at {found['sm_mhz']:.0f} MHz" if isinstance(found.get("sm_mhz"), float) else ""
    return f"{words}; full batches of {found['batch']}, {threads}{cores}{speed}, measured {found['measured']}"


def _capacity(found: dict[str, Any] | None, rows: pd.DataFrame) -> dict[str, Any] | None:
    """What was predicted to fit, and how far the prediction was from what was then measured."""
    if not found or not (found["pools"] or found.get("untold")):
        return None
    words = (
        f"Predicted before the run, for {amount(found['budget_bytes'])}B ({found['budget_source']}), of which a "
        f"process takes {amount(found['process_bytes'])}B before it holds any model: what one model and all of a "
        "pool need on full batches, one after another; the largest batch that one and all can be given at once; the "
        "largest ensemble on full batches."
    )
    both = rows.dropna(subset=["predicted_memory_bytes", "working_memory_bytes"])
    if len(both):
        more = (both["working_memory_bytes"] - both["predicted_memory_bytes"]).to_numpy()
        worst = int((abs(more) / both["predicted_memory_bytes"].to_numpy()).argmax())
        words += (
            f" Measured after it, {len(both)} variants needed {bytes_more(float(np.median(more)))} than predicted in "
            f"the median, and {both['variant'].iloc[worst]}, which is farthest off, {bytes_more(float(more[worst]))} "
            f"than {amount(both['predicted_memory_bytes'].iloc[worst])}B."
        )
    words = f"{words} {unpredicted_words(found)}".strip()
    return {"words": words, "columns": COLUMNS, "rows": as_rows(found["pools"])}


def _learned(evidence: Evidence) -> list[tuple[str, str]]:
    """What methods record of a variant, first seed: weights, scales, members, whatever they are called.

    Left out are curves, which are figures, what building took (``_seconds``, ``_bytes``), and what is long.
    """
    seed = str(evidence.run.record["seeds"][0])
    lines = []
    for variant, seeds in sorted(evidence.run.details.items()):
        told = sorted(seeds.get(seed, {}).items())
        words = {key: _short(value) for key, value in told if not key.endswith(EFFORT) and not _is_curve(value)}
        parts = [f"{key} = {text}" for key, text in words.items() if 0 < len(text) <= LONGEST]
        if parts and evidence.by_name.get(variant, {}).get("method") != "member":
            lines.append((variant, "; ".join(parts)))
    return lines


def _is_curve(value: Any) -> bool:
    """Whether it has points, {name: number}, in a list, at any depth."""
    if isinstance(value, dict):
        return any(map(_is_curve, value.values()))
    return isinstance(value, list) and any(isinstance(item, dict) or _is_curve(item) for item in value)


def _history(entries: list[Entry]) -> dict[str, Any] | None:
    """The runs of the suite up to this one, and the families that any of them has; None for the first run."""
    families = sorted({family for entry in entries for family in entry.best})
    return {"families": families, "entries": entries, "metric": entries[-1].metric} if len(entries) > 1 else None


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    if isinstance(value, dict):
        if len(value) > 12 and all(isinstance(item, float) for item in value.values()):  # a language model's layers
            ordered = sorted(value, key=lambda key: float(value[key]))
            ends = (f"{_short(value[key])} ({key})" for key in (ordered[0], ordered[-1]))
            return f"{len(value)} from {' to '.join(ends)}"
        return ", ".join(f"{key}: {_short(item)}" for key, item in value.items())
    return str(value)
