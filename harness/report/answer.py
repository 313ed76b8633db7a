"""The answer first: what to do within each serving budget, in sentences that no reader has to take back later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.display.formats import counted, difference, missing, ratio, scored
from harness.evaluate.decisions import ALPHA, OWN
from harness.report.evidence import Evidence, Gain
from harness.report.words import (
    SAME_COST,
    amount,
    cost_in_words,
    gain_in_words,
    in_words,
    interval,
    members_in_words,
    reference_in_words,
    serving_in_words,
    unit,
)
from harness.results.columns import paired
from harness.results.metric import DOCUMENTS

Pieces = list[tuple[str, str]]
"""("text" | "code", words)"""

ABOUT = 1.2
"""What costs up to this much more than a budget still counts to it: its price is said."""
POWER_Z = 0.8416
"""The normal quantile of a power of 80 %."""
MOST_EXAMPLES = 10**7
"""More than these nobody labels."""


@dataclass(frozen=True)
class Answer:
    """The sentences, in pieces that are either text or a variant's name, and sentences that qualify them."""

    sentences: tuple[Pieces, ...]
    notes: tuple[str, ...]
    headlines: tuple[tuple[str, str], ...]
    """(figure, what it is)"""

    @property
    def pieces(self) -> Pieces:
        """All of it in one paragraph."""
        found: Pieces = []
        for sentence in self.sentences:
            found += [("text", " "), *sentence] if found else sentence
        return found


@dataclass(frozen=True)
class Budget:
    """What a serving budget allows that a smaller one does not."""

    new: list[dict[str, Any]]
    """Its variants, the best first."""
    cost: float
    """What the dearest of them costs, in units of the reference; NaN where costs are not known."""


@dataclass(frozen=True)
class Winner:
    """The best of the variants that are better than the reference, within a budget."""

    row: dict[str, Any]
    gain: Gain


def answer(evidence: Evidence) -> Answer:
    """What the run says about its question."""
    if evidence.reference is None or missing(evidence.reference[evidence.score.name]):
        none = [("text", f"There is no answer: {_why_none(evidence)}.")]
        by_others = () if evidence.reference is None else _by_other_scores(evidence, nothing_better=True)
        return Answer((none,), tuple(by_others), ())
    budgets = _budgets(evidence)
    winners = _winners(evidence, budgets)
    sentences = list(_sentences(evidence, budgets, winners))
    sentences += [sentence for sentence in (_cheaper(evidence, budgets), _other_pools(evidence)) if sentence]
    notes = tuple(_notes(evidence, winners))
    return Answer(tuple(sentences), notes, tuple(_headlines(evidence, winners)))


def _why_none(evidence: Evidence) -> str:
    name = evidence.run.record["reference"]["variant"]
    rows = evidence.rows[evidence.rows["variant"] == name].to_dict("records")
    what = "result" if evidence.reference is None else evidence.score.title
    reasons = [row["reason"] for row in rows if not missing(row["reason"])]
    return f"the reference {name} has no {what} in this run" + "".join(f" ({reason})" for reason in reasons)


def _budgets(evidence: Evidence) -> list[Budget]:
    """The variants of the main pool by what they cost: one model, two, four, eight ...; only where there are any."""
    rows = evidence.ok[(evidence.ok["pool"] == evidence.main) & (evidence.ok["verdict"] != "reference")]
    groups: dict[float, list[dict[str, Any]]] = {}
    for row in evidence.ordered(rows[rows[evidence.score.name].notna()]).to_dict("records"):
        cost = evidence.cost_ratio(row)
        # Where costs are not counted there is one budget, of which nothing is said.
        place = max(0, math.ceil(math.log2(cost / ABOUT))) if cost > 0 else math.inf
        groups.setdefault(place, []).append(row)
    found = []
    for place in sorted(groups):
        costs = [evidence.cost_ratio(row) for row in groups[place]]
        found.append(Budget(groups[place], max(costs) if place < math.inf else math.nan))
    return found


def _winners(evidence: Evidence, budgets: list[Budget]) -> list[Winner | None]:
    """For each budget the best variant within it that is better than the reference; None where there is none."""
    winners: list[Winner | None] = []
    for budget in budgets:
        best = winners[-1] if winners else None
        for row in budget.new:
            gain = evidence.gain(row["variant"])
            if gain and row["verdict"] == "better" and (best is None or gain.value > best.gain.value):
                best = Winner(row, gain)
        winners.append(best)
    return winners


def _sentences(evidence: Evidence, budgets: list[Budget], winners: list[Winner | None]) -> Iterator[Pieces]:
    """From the smallest budget to the largest, whatever is new in each."""
    if not budgets:
        yield [("text", "There is nothing to compare: the reference is the only variant of its pool with a score.")]
        return
    without = winners.count(None)  # the first ones: who wins a budget wins a larger one, or is beaten there
    if without:
        yield _nothing(evidence, budgets[:without], last=without == len(budgets))
    leader: Winner | None = None  # what dearer ones have to beat
    said: Winner | None = None
    idle: list[Budget] = []
    for budget, winner in zip(budgets[without:], winners[without:], strict=True):
        assert winner is not None
        if said is None or winner.row is not said.row:
            sentence, is_more = _wins(evidence, winner, leader, of_pairs=_pairs(budgets))
            yield sentence
            leader, said, idle = winner if is_more else leader, winner, []
        else:
            idle.append(budget)
    if leader and idle:
        yield _no_more(evidence, idle, leader)


def _nothing(evidence: Evidence, budgets: list[Budget], *, last: bool) -> Pieces:
    """That nothing within these budgets is better, and what would show a gain."""
    rows = [row for budget in budgets for row in budget.new]
    gains = [(gain, row) for row in rows if (gain := evidence.gain(row["variant"]))]
    known = [gain for gain, _ in gains]
    shown = any(gain.high_together > gain.margin for gain in known) or not known
    cost = budgets[-1].cost
    within = "" if math.isnan(cost) else f"at {'up to ' if cost > ABOUT else ''}{_within(cost)} "
    text = _sentence(f"{within}nothing {'is shown to beat' if shown else 'beats'} {reference_in_words(evidence)}")
    if not shown:
        least = min(known, key=lambda gain: gain.margin)
        text += f" by more than {amount(evidence.score, least.margin)}{unit(evidence.score)} of {evidence.score.title}"
    unclear = [(gain, row) for gain, row in gains if gain.verdict == "unclear"]
    nearest = max(unclear, key=lambda pair: pair[0].value, default=None) if last else None
    if nearest is None or not shown:
        return [("text", f"{text}.")]
    return [("text", text), *_what_would_show_it(evidence, *nearest), ("text", ".")]


def _within(cost: float) -> str:
    return "the cost of one model" if cost <= ABOUT else cost_in_words(cost)


def _what_would_show_it(evidence: Evidence, gain: Gain, row: dict[str, Any]) -> Pieces:
    """How many more examples would show the gain of the variant that is nearest to one."""
    score = evidence.score
    wanted = max(gain.value, gain.margin)
    more = _more(evidence, gain, wanted)
    what = "documents" if score.outcome == DOCUMENTS else "examples"
    examples = f"about {more:,} more test {what} would show" if more else ""
    if gain.value <= gain.margin:
        return [("text", f"; {examples} a gain of {amount(score, wanted)}{unit(score)}")] if examples else []
    half = (gain.high_together - gain.low_together) / 2
    value = f"{amount(score, gain.value, half)}{unit(score)}"
    bounds = interval(score, gain.low_together, gain.high_together)
    better = f"{score.title} lower by {value}" if score.sign < 0 else f"+{value} of {score.title}"
    named: Pieces = [("text", f"; nearest to it is {_the(evidence, row)}"), *_code(row)]
    end = f", and {examples} a gain of that size" if examples else ""
    return [*named, ("text", f", {better} ({bounds}){end}")]


def _more(evidence: Evidence, gain: Gain, wanted: float) -> int | None:
    """How many more examples would show such a gain with a power of 80 %; None where they alone would not."""
    if not gain.units or not wanted > 0 or (evidence.seeds > 1 and not evidence.corrected):
        return None
    error = (gain.high - gain.low) / 2 / 1.96
    needed = gain.units * (((gain.high_together - gain.low_together) / 2 + POWER_Z * error) / wanted) ** 2
    more = needed - gain.units
    if not 0 < more < MOST_EXAMPLES:
        return None
    step = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return math.ceil(more / step) * step


def _wins(evidence: Evidence, winner: Winner, leader: Winner | None, of_pairs: int) -> tuple[Pieces, bool]:
    """What the best of a budget gains, and whether that is shown to be more than what a smaller one has."""
    cost = evidence.cost_ratio(winner.row)
    at = "" if math.isnan(cost) else f"At {cost_in_words(cost)}: "
    than = reference_in_words(evidence) if leader is None else None
    told = gain_in_words(evidence.score, winner.gain, than, _scopes(evidence, winner))
    sentence: Pieces = [("text", _sentence(f"{at}{_the(evidence, winner.row)}")), *_code(winner.row)]
    more, is_more = _more_than(evidence, winner, leader, of_pairs)
    return [*sentence, ("text", f", {told}"), *more, ("text", ".")], is_more


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _scopes(evidence: Evidence, winner: Winner) -> str:
    """The intervals that hold for the whole table, in words of what they are about."""
    score, gain = evidence.score, winner.gain
    these = interval(score, gain.low_together, gain.high_together)
    like = evidence.recipe_gain(winner.row["variant"])
    if like is None:
        return these
    others = interval(score, like.low_together, like.high_together)
    but = "" if like.verdict == "better" else ", so not shown for them"
    return f"{these} for these models; {others} for models like these, from other seeds{but}"


def _more_than(evidence: Evidence, winner: Winner, leader: Winner | None, of_pairs: int) -> tuple[Pieces, bool]:
    """How the best of a larger budget compares with that of a smaller one, example by example."""
    if leader is None:
        return [], True
    score = evidence.score
    apart = evidence.gain_over(winner.row["variant"], leader.row["variant"])
    if apart is None:
        return [], True
    code = ("code", leader.row["variant"])
    if apart.value > 0 and apart.p * of_pairs < ALPHA:
        more = f"{amount(score, apart.value, (apart.high - apart.low) / 2)}{unit(score)}"
        return [("text", f", {more} more than "), code], True
    if apart.high <= apart.margin:
        within = f"{amount(score, apart.margin)}{unit(score)}"
        return [("text", f", no more than {within} above "), code], False
    return [("text", ", which is not shown to be more than "), code], False


def _pairs(budgets: list[Budget]) -> int:
    """How many pairs of variants of different budgets two winners could have been."""
    sizes = [len(budget.new) for budget in budgets]
    return max(1, (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2)


def _no_more(evidence: Evidence, idle: list[Budget], leader: Winner) -> Pieces:
    """That larger budgets bring nothing: what comes nearest there, against what is cheaper."""
    rows = [row for budget in idle for row in budget.new]
    nearest = evidence.best(evidence.ok[evidence.ok["variant"].isin([row["variant"] for row in rows])])
    apart = evidence.gain_over(nearest["variant"], leader.row["variant"]) if nearest else None
    if nearest is None or apart is None:
        return [("text", f"At up to {cost_in_words(idle[-1].cost)} nothing is shown to gain more than that.")]
    is_no_more = apart.value <= 0 and apart.high <= apart.margin
    no_more = "gives no more than that" if is_no_more else "is not shown to give more than that"
    at = f"At {cost_in_words(evidence.cost_ratio(nearest))} {_the(evidence, nearest)}"
    return [("text", at), *_code(nearest), ("text", f" {no_more}.")]


def _cheaper(evidence: Evidence, budgets: list[Budget]) -> Pieces | None:
    """The cheapest variant that is as good as the reference and costs less."""
    rows = [row for budget in budgets for row in budget.new
            if row["verdict"] == "equivalent" and evidence.cost_ratio(row) < 1 - SAME_COST]  # fmt: skip
    if not rows:
        return None
    row = min(rows, key=evidence.cost_ratio)
    cost = cost_in_words(evidence.cost_ratio(row))
    told = f" is equivalent to {reference_in_words(evidence)} at {cost}."
    return [("text", _sentence(_the(evidence, row))), *_code(row), ("text", told)]


def _other_pools(evidence: Evidence) -> Pieces | None:
    """The pool whose reference is better than the main pool's by most, if any is shown to be."""
    score = evidence.score
    found: list[tuple[Gain, str, str]] = []
    for pool, name in evidence.run.record.get("references", {}).items():
        gain = evidence.pool_gain(name)
        if gain and name in evidence.by_name and gain.low_together > 0:
            found.append((gain, pool, name))
    if not found:
        return None
    gain, pool, name = max(found, key=lambda each: each[0].value)
    row = evidence.by_name[name]
    bounds = interval(score, gain.low_together, gain.high_together)
    told = gain_in_words(score, gain, reference_in_words(evidence), bounds)
    whose = f"the {in_words(evidence, row)} of {members_in_words(evidence, pool)}"
    end = f", {told}; that compares training, not combining."
    return [("text", f"A model that is trained otherwise is better: {whose}"), *_code(row), ("text", end)]


def _the(evidence: Evidence, row: dict[str, Any]) -> str:
    return f"the {in_words(evidence, row)}"


def _code(row: dict[str, Any]) -> Pieces:
    return [("text", " ("), ("code", row["variant"]), ("text", ")")]


def _notes(evidence: Evidence, winners: list[Winner | None]) -> Iterator[str]:
    reference = evidence.reference
    assert reference is not None
    score = evidence.score
    value = scored(reference[score.name], score.is_share)
    yield from _by_other_scores(evidence, nothing_better=not any(winners))
    yield (
        f"Compared by {score.title} with {reference['variant']} ({value}), chosen on held-out; "
        f"{serving_in_words(evidence)}."
    )
    yield from _how_sure(evidence)
    yield from _highest(evidence)
    yield from _in_part(evidence)


def _in_part(evidence: Evidence) -> Iterator[str]:
    """Which variants lack the score that all of the above goes by, since they are not applicable to its tasks."""
    title = evidence.score.title
    if names := [row["variant"] for row in evidence.scored_in_part if missing(row[evidence.score.name])]:
        have = "has" if len(names) == 1 else "have"
        yield (
            f"{', '.join(names)} {have} no {title}, and so no place in what is said of it: see 'Not applicable, and "
            "failed' for why, and the table for the other scores."
        )


def _how_sure(evidence: Evidence) -> Iterator[str]:
    if not any(evidence.gain(name) for name in evidence.by_name):
        return
    if not evidence.corrected:
        alone = " and verdicts" if evidence.run.record.get("schema_version", 1) == 1 else ""
        yield (
            "This run has no intervals that hold for the whole table (an earlier version made it, or its comparisons "
            f"are missing): intervals{alone} are each made as if there were no other variants, so among many some are "
            "wrong."
        )
        return
    table = evidence.run.comparisons
    own = (table["metric"] == evidence.score.name) & (table["kind"] == OWN)
    count = table[own]["variant"].nunique()
    many = f"hold for all {count} comparisons at once, since the best was picked from them" if count > 1 else (
        "are of its one comparison")  # fmt: skip
    scope = ""
    if evidence.seeds == 1:
        scope = " With one seed all is said of these models, not of others that are trained in the same way."
    yield (
        f"The 95 % intervals of the answer {many}; those of the table and of the figures are each of one difference "
        f"alone.{scope}"
    )


def _by_other_scores(evidence: Evidence, *, nothing_better: bool) -> Iterator[str]:
    """What is best by the suite's other scores, or where nothing is better by the first, by any other."""
    others = evidence.scores[1:]
    if nothing_better and not others:
        others = [column for name, column in paired().items() if name != evidence.score.name]
    of_main = evidence.ok.loc[evidence.ok["pool"] == evidence.main, "variant"]
    told: dict[str, list[str]] = {}
    for column in others:
        gains = {name: gain for name in of_main if (gain := evidence.gain(name, column))}
        better = [name for name, gain in gains.items() if gain.verdict == "better"]
        if better:
            name = max(better, key=lambda each: (gains[each].value, each))
            bounds = interval(column, gains[name].low_together, gains[name].high_together)
            told.setdefault(name, []).append(
                gain_in_words(column, gains[name], reference_in_words(evidence), bounds)
            )
    for name, words in told.items():
        yield f"By other scores {_the(evidence, evidence.by_name[name])} ({name}) is better: {'; '.join(words)}."


def _highest(evidence: Evidence) -> Iterator[str]:
    """The best of all variants, with its score corrected for having been picked."""
    score = evidence.score
    best = evidence.run.record.get("best", {}).get(score.name)
    count = int(evidence.ok[score.name].notna().sum())
    if not best or count < 2:
        return
    value, corrected, low, high = (scored(best[key], score.is_share) for key in ("value", "corrected", "low", "high"))
    others = len(best["set"]) - 1
    may = f"{counted(others)} other{'s' if others > 1 else ''} may be the best" + (" as well" if others else "")
    order = "highest" if score.sign > 0 else "lowest"
    yield (
        f"Of all {count} variants of all pools {best['variant']} has the {order} {score.title}, {value}; "
        f"corrected for having been picked on the test examples it is {corrected} ({low} to {high}), and {may} (95 %)."
    )


def _headlines(evidence: Evidence, winners: list[Winner | None]) -> Iterator[tuple[str, str]]:
    reference, score = evidence.reference, evidence.score
    assert reference is not None
    yield scored(reference[score.name], score.is_share), f"{score.title} of {reference['variant']}"
    for winner in {w.row["variant"]: w for w in winners if w}.values():
        signed = difference(score.sign * winner.gain.value, score.is_share)
        cost = evidence.cost_ratio(winner.row)
        at = "" if math.isnan(cost) else f", at {ratio(cost)} the {evidence.serving.title}"
        yield f"{signed}{unit(score)}", f"{winner.row['variant']}{at}"
    if best := evidence.run.record.get("best", {}).get(score.name):
        yield scored(best["corrected"], score.is_share), f"best of all pools, corrected for the pick: {best['variant']}"
    for found in evidence.run.correlations:
        if found["seed"] == "all" and found["pool"] == evidence.main and found["metric"] == "nll":
            yield correlation_words(found["pearson"]), f"ensemble–average correlation (NLL), n = {found['n']}"


def correlation_words(coefficient: dict[str, Any]) -> str:
    """A coefficient with its interval: "0.94 (0.87 to 0.99)"."""
    if coefficient["value"] is None:
        return "undefined"
    bounds = "" if coefficient["low"] is None else f" ({coefficient['low']:.2f} to {coefficient['high']:.2f})"
    return f"{coefficient['value']:.2f}{bounds}".replace("-", "−")
