"""The law of evidence: whatever the tables of a run say of scores, its own examples and documents give."""

import gc

from harness.evaluate.decisions import OWN
from harness.gate.proven import Proven
from harness.results.comparable import run_faults
from harness.results.evidence import Missing, read_tables
from harness.results.manifest import MANIFEST


def unproven(folder):
    """Lines: what a gate would not take of a finished run's folder, of all that it might ask; none of a whole run."""
    gc.freeze()  # statsmodels collects garbage at every correction: of all that is imported it takes half a second
    try:
        return _unproven(folder)
    finally:
        gc.unfreeze()


def _unproven(folder):
    run = read_tables(folder)
    assert (run.folder / MANIFEST).is_file()
    side, lines, computed = Proven(run, "run"), list(run_faults(run)), set()
    ok = {(v, s) for v, s in run.variants.query("status == 'ok'")[["variant", "seed"]].itertuples(index=False)}
    for variant, seed, metric in run.scores[["variant", "seed", "metric"]].itertuples(index=False, name=None):
        if (variant, seed) in ok and (variant, "all") in ok:
            try:
                side.score(variant, seed, metric)
            except Missing as problem:
                lines.append(str(problem))
            if side.is_computed(variant, metric):
                computed.add(metric)
    for row in run.comparisons[run.comparisons["kind"] == OWN].to_dict("records"):
        try:
            side.comparison(row["variant"], row["seed"], row["metric"], row["scope"])
        except Missing as problem:
            lines.append(str(problem))
    for metric in run.record["best"]:
        for variant in {variant for variant, seed in ok if seed == "all"}:
            side.may_be_best(variant, metric)
    assert {"accuracy", *run.record["best"]} <= computed
    return lines
