"""A policy file: what a release has to fulfil, read strictly; every fault is one line with its place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harness.errors import BadInput
from harness.keys import file_digest
from harness.results.columns import column_of, numbers, paired
from harness.results.comparable import Comparable
from harness.results.metric import Column
from harness.strict import yaml
from harness.strict.fields import Strict
from harness.strict.model import read_model

BASELINE = "baseline"
VARIANT = "variant:"


def _number(value: Any) -> Any:
    """YAML 1.2 has no 24_000_000_000, but people count zeros better with it."""
    return int(value.replace("_", "")) if isinstance(value, str) and re.fullmatch(r"\d+(_\d{3})+", value) else value


def _day(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        with suppress(ValueError):
            return date.fromisoformat(value)
    return value


Verdict = Literal["better", "equivalent", "unclear", "worse"]
Scope = Literal["these models", "models like these"]
LIKE_THESE: Scope = "models like these"


Number = Annotated[float, BeforeValidator(_number)]
Change = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Day = Annotated[date, BeforeValidator(_day)]
Text = Annotated[str, Field(min_length=1)]


class Baseline(Strict):
    """Which baseline, and that it is the one that was reviewed; the path is relative to where the command is run."""

    path: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Match(Strict):
    """The rows of the results that a rule is about; ``variant`` is a pattern ("ties/*")."""

    variant: Text = "*"
    metric: str
    seed: Annotated[int, Field(ge=0)] | Literal["all"] = "all"


class Bound(Strict):
    """An accepted change: absolute, or relative to the size of what is compared with. One of the two."""

    abs: Change | None = None
    rel: Change | None = None


class Defaults(Strict):
    """What holds for every rule that does not say otherwise."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    correction: Literal["holm", "none"] = "holm"
    on_missing: Literal["error", "fail"] = "error"
    on_nonfinite: Literal["error", "fail"] = "error"
    on_inconclusive: Literal["fail", "warn"] = "fail"


class Rule(Strict):
    """One requirement: a floor or ceiling (min, max), how far a value may move from another (vs), or a verdict."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    match: Match
    min: Number | None = None
    max: Number | None = None
    apply_to: Literal["value", "ci_low", "ci_high"] | None = None
    vs: Annotated[str, Field(pattern=r"^(baseline|variant:.+)$")] | None = None
    max_drop: Bound | None = None
    max_increase: Bound | None = None
    test: Literal["paired"] | None = None
    verdict: Annotated[list[Verdict], Field(min_length=1)] | None = None
    """The verdicts against the reference of its pool that are accepted: of the run's own table, as comparisons.parquet
    has them."""
    scope: Scope | None = None
    best: Literal[True] | None = None
    """It may be the best variant of the run by the metric: it is in the confidence set of the best."""
    same_hardware: Literal["require", "ignore"] | None = None
    on_missing: Literal["error", "fail"] | None = None
    on_nonfinite: Literal["error", "fail"] | None = None
    on_inconclusive: Literal["fail", "warn"] | None = None

    @property
    def bound(self) -> Bound | None:
        """The accepted change."""
        return self.max_drop or self.max_increase

    @property
    def column(self) -> Column:
        """What is known of its metric."""
        return column_of(self.match.metric) or Column(self.match.metric, "unknown", least=-math.inf)

    @property
    def sign(self) -> int:
        """1 where a fall is what the rule limits, -1 where it is a rise."""
        return 1 if self.max_drop else -1

    def contradiction(self) -> tuple[str, str] | None:
        """The key and the sentence of a setting that contradicts another or lacks one."""
        limits = self.min is not None or self.max is not None
        decided = self.verdict is not None or self.best is not None
        if limits + (self.bound is not None) + decided != 1 or (self.max_drop and self.max_increase):
            return "id", "a rule has min and max, or one of max_drop and max_increase, or verdict and best"
        if decided:
            return self._wrong_verdict()
        if self.scope is not None:
            return "scope", "'scope' belongs to verdict"
        if self.min is not None and self.max is not None and self.min > self.max:
            return "min", f"min {self.min:g} is above max {self.max:g}"
        if limits:
            return self._wrong_limits()
        if self.vs is None:
            return "id", "a change is from something: add vs: baseline, or vs: \"variant:NAME\""
        if self.apply_to is not None:
            return "apply_to", "'apply_to' belongs to min and max"
        if self.same_hardware is not None and self.vs != BASELINE:
            return "same_hardware", "variants of one run were measured on the same hardware"
        return self._wrong_change()

    def _wrong_verdict(self) -> tuple[str, str] | None:
        for key in ("vs", "test", "same_hardware", "apply_to"):
            if getattr(self, key) is not None:
                return key, f"'{key}' does not belong to verdict and best: these are of the run's own table"
        if self.scope is not None and self.verdict is None:
            return "scope", "'scope' belongs to verdict"
        if self.match.metric not in (known := paired()):
            return "match", f"'{self.match.metric}' has no verdicts; {', '.join(known)} have"
        if self.best and self.match.seed != "all":
            return "best", "the best is of all seeds"
        if self.scope == LIKE_THESE and self.match.seed != "all":
            return "scope", f"one seed says nothing of {LIKE_THESE}"
        return None

    def _wrong_limits(self) -> tuple[str, str] | None:
        for key in ("vs", "test", "same_hardware"):
            if getattr(self, key) is not None:
                return key, f"'{key}' belongs to max_drop and max_increase"
        least, most = self.column.least, self.column.most
        for key, limit in (("min", self.min), ("max", self.max)):
            if limit is not None and not least <= limit <= most:
                return key, f"'{self.match.metric}' lies in {least:g} .. {most:g}: {key} {limit:g} decides nothing"
        for key, end in (("min", "ci_high"), ("max", "ci_low")):
            if self.apply_to == end and getattr(self, key) is not None:
                return "apply_to", f"{key} on {end} would let doubt pass: apply it to the other end"
        return None

    def _wrong_change(self) -> tuple[str, str] | None:
        key = "max_drop" if self.max_drop else "max_increase"
        assert self.bound is not None
        if (self.bound.abs is None) == (self.bound.rel is None):
            return key, f"'{key}' has one of: abs, rel"
        metric, least, most = self.match.metric, self.column.least, self.column.most
        if self.bound.abs is not None and self.bound.abs >= most - least:
            return key, f"'{metric}' lies in {least:g} .. {most:g}: a change of {self.bound.abs:g} limits nothing"
        if self.max_drop and least == 0 and self.bound.rel is not None and self.bound.rel >= 1:
            return key, f"'{metric}' cannot fall by more than all of it: rel is a share, such as 0.1"
        if self.test and self.column.outcome is None:
            paired = ", ".join(name for name, column in numbers().items() if column.outcome)
            known = f"{paired} and those of one task or view (acc/TASK)"
            return "test", f"'{metric}' has no value for each example; a paired test is of {known}"
        wanted = "max_drop" if self.column.better == "higher" else "max_increase"
        if self.column.better is not None and key != wanted:
            return key, f"'{metric}' is better when {self.column.better}: limit it with {wanted}"
        return None


class Waiver(Strict):
    """A failure that is accepted for a while; ``variant`` is a pattern."""

    rule: str
    variant: Text
    reason: Annotated[str, Field(pattern=r"\S")]
    expires: Day


class PolicyFile(Strict):
    """The keys of a policy file."""

    version: Literal[1]
    baseline: Baseline | None = None
    comparable: list[Comparable] = ["suite_digest", "example_ids"]
    defaults: Defaults = Defaults()
    rules: Annotated[list[Rule], Field(min_length=1)]
    waivers: list[Waiver] = []


@dataclass(frozen=True)
class Policy:
    """A checked policy file."""

    path: str
    sha256: str
    file: PolicyFile

    def outcome(self, rule: Rule, event: Literal["on_missing", "on_nonfinite", "on_inconclusive"]) -> str:
        """What follows from an event: the rule's own word, or the default."""
        return str(getattr(rule, event) or getattr(self.file.defaults, event))


def read_policy(path: Path) -> Policy:
    """Read a policy file; ``BadInput`` with the first fault's place."""
    document = yaml.read(path)
    file = read_model(PolicyFile, document, "a policy file")
    for place, problem, given, choices in _faults(file):
        raise BadInput(problem, place=document.place(place), given=given, choices=choices)
    return Policy(str(path), file_digest(path), file)


Fault = tuple[yaml.Position, str, str | None, tuple[str, ...]]


def _faults(file: PolicyFile) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, rule in enumerate(file.rules):
        place: yaml.Position = ("rules", index)
        if rule.id in seen:
            yield (*place, "id"), f"two rules are called '{rule.id}'", None, ()
        seen.add(rule.id)
        metric = rule.match.metric
        if column_of(metric) is None:
            yield (*place, "match", "metric"), f"unknown metric '{metric}'", metric, tuple(numbers())
        if fault := rule.contradiction():
            yield (*place, fault[0]), fault[1], None, ()
    for index, waiver in enumerate(file.waivers):
        if waiver.rule not in seen:
            problem = f"the waiver is of an unknown rule '{waiver.rule}'"
            yield ("waivers", index, "rule"), problem, waiver.rule, tuple(seen)
