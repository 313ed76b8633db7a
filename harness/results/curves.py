"""The shape of curves.json: quality against cost of every way to spend compute on the main pool's models."""

from __future__ import annotations

VERSION = 1

NUMBER = "{value, low, high: 95 % interval over examples, of these models, why: there is no value or no interval}"
"""How a number is written that may be without a value or an interval, which are null then."""

CURVES_FIELDS = {
    "version": "of this file",
    "score": "the suite's score that decides: a column of variants.csv",
    "cost": "{name, title: what serving is counted in}: all costs here are in units of the reference's",
    "reference": "{variant, score}",
    "examples": "that scores are means of, over all seeds; clusters of them where these count as one",
    "budgets": "[low, high]: the range of costs of every AIQ, from the reference's to that of the dearest ensemble",
    "families": "[{name: of evaluate.ways, of a variant with a dial, or of what was added; way: of "
    "evaluate.ways, or the name; points: [{name: a variant, or a setting of one; cost, "
    "score, low, high, gain: NUMBER, over the reference, paired by example}], aiq: NUMBER, the mean height of the hull "
    "of these points and the reference over the budgets, gain: NUMBER, the same less the reference's score, paired by "
    "example; apgr: NUMBER, cpt: {PGR: NUMBER, the least share of calls}, of systems of two models, else null}]",
    "hull": "[[cost, score]]: the corners of the non-decreasing convex hull of all points",
    "random": "{from: name, to: name, points: [[cost, score], [cost, score]]}: choosing at random between the "
    "reference and the dearest ensemble; null without one",
    "oracle": "{models, cost, score, gain: over the reference, luck_corrected, luck_corrected_gain, all NUMBER, why}: "
    "over the single models, in accuracy whatever the score; why there is none, else null",
    "equal_compute": "{budgets, ways: [{name, words, cells: [one for each budget, or null: {variant, cost, candidates: "
    "how many variants it was picked from on test, gain: over the reference, corrected: for the pick, low, high: 95 %, "
    "of all variants of the run at once, verdict}]}], pairs: [{one, other, gain: of one over the other, low, high: "
    "95 %, of all pairs of candidates at once}]}; null where nothing is compared",
}
"""The fields of curves.json. Scores have their own direction; gains are above 0 where that is better, whatever the
score. Without a cost of serving, or scores of examples, there is no such file."""
