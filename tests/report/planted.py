"""Runs made up for tests of claims: variants with planted outcomes, whose names say their pools and parameters."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from harness.report.claims import claims
from harness.report.evidence import Evidence
from harness.results.run import Run

SEEDS, EXAMPLES = 3, 1200
DEFAULTS = {
    "linear": {"weights": "uniform"},
    "log_linear": {"weights": "uniform"},
    "bagging": {"combine": "mean"},
    "mc_dropout": {"member": "best", "passes": 30},
    "task_arithmetic": {"coefficients": "add", "scale": "heldout"},
    "distill": {"size": "same"},
    "moe": {"routing": "sparse"},
}
KINDS = {"main": "fine_tunes", "independent": "independent", "bagged": "bootstrap", "run": "checkpoints"}


def right(share, seed):
    """Random outcomes [seeds, examples], of which this share is right."""
    return np.random.default_rng(seed).random((SEEDS, EXAMPLES)) < share


def exchanged(outcome, share):
    """As many right as before, but this share of the examples went wrong and as many came right."""
    result = outcome.copy()
    for row in result:
        count = int(share * len(row))
        gained, lost = np.flatnonzero(~row)[:count], np.flatnonzero(row)[:count]
        row[gained], row[lost] = True, False
    return result


BASE = right(0.7, 1)
BETTER, WORSE = BASE | right(0.5, 2), BASE & right(0.6, 3)
CLOSE = exchanged(BASE, 0.1)
"""As good as the base, as far as these few examples can tell."""

MEMBERS = [right(0.7, seed) for seed in (7, 8, 9)]
MEAN = np.mean(MEMBERS, axis=0)


def members(*outcomes, pool="main"):
    """The rows of a pool's members."""
    prefix = "" if pool == "main" else f"{pool}:"
    return {f"{prefix}member/index={k}": outcome for k, outcome in enumerate(outcomes)}


def planted(outcomes, *, pools=None, details=None, correlations=(), scores=("accuracy",), flops=None, ids=None):
    """A run with these outcomes of its variants: right or wrong [seeds, examples], or (right, NLL).

    ``pools`` have kinds by name and as many members as rows of them, if not said otherwise. ``ids``: for each seed the
    examples that it was tested on, of a run whose seeds have splits of their own.
    """
    rows, tables, found = [], [], {}
    for name, given in outcomes.items():
        correct, nll = given if isinstance(given, tuple) else (given, np.where(given, 0.1, 2.0))
        prefix, _, short = name.rpartition(":")
        method, _, words = short.partition("/")
        pool = prefix or "main"
        pairs = dict(pair.split("=") for pair in words.split(",") if pair)
        params = {key: int(value) if value.isdigit() else value for key, value in pairs.items() if key != "members"}
        row = {"variant": name, "method": method, "pool": pool, "seed": "all", "status": "ok", "family": "output"}
        row |= {"params": json.dumps(DEFAULTS.get(method, {}) | params), "ece": 0.01}
        rows.append(row | {"flops_per_example": (flops or {}).get(name, 100.0)})
        found.setdefault(pool, {"kind": KINDS.get(pool, "fine_tunes"), "members": 0, "architectures": ["mlp"]})
        found[pool]["members"] += method == "member"
        for seed, columns in enumerate(zip(np.asarray(correct, bool), nll, strict=True)):
            table = {"variant": name, "seed": seed, "label": 0, "prediction": 0, "confidence": 0.9}
            names = ids[seed] if ids else range(len(columns[0]))
            tables.append(pd.DataFrame({**table, "example_id": names, "correct": columns[0], "nll": columns[1]}))
    for name, changes in (pools or {}).items():
        found.setdefault(name, {"kind": KINDS.get(name, "fine_tunes"), "architectures": ["mlp"]}).update(changes)
    record = {"reference": {"variant": "best_single"}, "seeds": list(range(SEEDS)), "task": {"name": "planted"}}
    record |= {"pools": found, "scores": list(scores)}
    if ids:
        record["task"]["split"] = "per_seed"
    run = Run(Path("nowhere"), record)
    tables = {"variants": pd.DataFrame(rows), "examples": pd.concat(tables), "document_measures": None}
    vars(run).update(tables, correlations=list(correlations), details=details or {})
    return Evidence(run)


def claim(sentence, evidence):
    """What a run says of one claim."""
    (found,) = [c for c in claims(evidence) if c.claim == sentence]
    return found
