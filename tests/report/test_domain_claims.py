"""Claims about domain experts, on planted bits per byte: the estimate is the one planted, and so is the verdict."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.report.domain_claims import domain_claims
from harness.report.evidence import Evidence
from harness.report.parts import parts_of
from harness.results.run import Run

BASE = "task_arithmetic/members=0,scale=0"
DOMAINS = ("python", "scripture", "speeches")
NEGATED = "task_arithmetic/coefficients=negate,members=0,scale=1"
ANTI = "expert_anti_expert/a=0.5,anti=2,expert=0,on=base"
PLANTED = {
    # bits per byte beyond the base's, in the order of DOMAINS
    BASE: (0.0, 0.0, 0.0),
    "member/index=0": (-0.3, 0.1, 0.2),
    "member/index=1": (0.1, -0.3, 0.2),
    "member/index=2": (0.2, 0.1, -0.3),
    "linear/weights=contextual": (-0.2, -0.2, -0.2),
    "linear/weights=learned": (-0.1, -0.1, -0.1),
    "task_arithmetic": (-0.05, -0.02, -0.05),
    NEGATED: (0.5, 0.1, 0.1),
    ANTI: (-0.2, 0.0, 0.4),
    "ties/scale=heldout": (-0.04, -0.01, -0.04),
}
METHODS = {"single": ("member",), "output": ("linear", "expert_anti_expert"), "weights": ("task_arithmetic", "ties")}


def parameters(name):
    method = name.partition("/")[0]
    known = {"task_arithmetic": {"coefficients": "add", "scale": "heldout"}, "ties": {"scale": "heldout"}}
    special = {
        BASE: {"scale": 0.0},
        NEGATED: {"coefficients": "negate", "scale": 1.0},
        ANTI: {"on": "base", "expert": 0, "anti": 2, "a": 0.5},
    }
    return json.dumps(known.get(method, {}) | special.get(name, {}))


def evidence(seeds=2, documents=40, without=(), **changes):
    """A run in which each passage of a domain has its own level, and every variant is off by what is planted."""
    random = np.random.default_rng(0)
    level = {d: random.normal(2.5, 0.5, documents) for d in DOMAINS}
    planted = {name: shifts for name, shifts in (PLANTED | changes).items() if name not in without}
    rows, tables = [], []
    for name, shifts in planted.items():
        method = name.partition("/")[0]
        family = next(f for f, methods in METHODS.items() if method in methods)
        rows.append({"variant": name, "method": method, "family": family, "pool": "main", "seed": "all", "status": "ok",
                     "params": parameters(name)})  # fmt: skip
        for seed in range(seeds):
            for domain, shift in zip(DOMAINS, shifts, strict=True):
                value = level[domain] + shift + random.normal(0, 0.01, documents)
                tables.append(pd.DataFrame({"variant": name, "seed": seed, "metric": f"bits_per_byte/bytes_{domain}",
                                            "document": range(documents), "value": value}))  # fmt: skip
    members = [{"name": "base", "groups": []}, *({"name": f"m{i}", "groups": [d]} for i, d in enumerate(DOMAINS))]
    record = {
        "seeds": list(range(seeds)),
        "pools": {"main": {"members": 3, "seeds": {"0": {"members": members}}}},
        "reference": {"variant": BASE},
    }
    run = Run(Path("nowhere"), record)
    examples = pd.DataFrame(
        {"variant": name, "seed": s, "label": 0, "prediction": 0, "confidence": 1.0, "correct": True, "nll": 0.0}
        for name in planted
        for s in range(seeds)
    )
    for key, table in (("variants", pd.DataFrame(rows)), ("document_measures", pd.concat(tables)),
                       ("examples", examples), ("details", {})):  # fmt: skip
        run.__dict__[key] = table
    return Evidence(run)


def found(words, **changes):
    planted = evidence(**changes)
    (parts,) = parts_of(planted.run)
    return next(claim for claim in domain_claims(planted, parts) if words in claim.claim)


@pytest.mark.parametrize(
    ("words", "estimate", "verdict"),
    [
        ("gains at home", np.mean([-0.3 - 0.15, -0.3 - 0.15, -0.3 - 0.15]), "held"),
        ("compose", -0.02, "held"),
        ("negated", 0.5 - 0.1, "held"),
        ("anti-expert", -0.2 - 0.4, "held"),
        ("TIES", np.mean([0.01, 0.01, 0.01]), "not held"),
        ("token-wise", -0.1, "held"),
    ],
)
def test_the_estimate_is_what_was_planted(words, estimate, verdict):
    claim = found(words)
    assert claim.estimate == pytest.approx(estimate, abs=0.005)
    assert claim.low <= claim.estimate <= claim.high
    assert claim.verdict == verdict
    assert claim.unit == "bits per byte"


def test_what_goes_the_other_way_is_not_held():
    assert found("gains at home", **{f"member/index={i}": (0.2, 0.2, 0.2) for i in range(3)}).verdict == "undecided"
    assert found("negated", **{NEGATED: (0.0, 0.3, 0.3)}).verdict == "not held"
    assert found("compose", task_arithmetic=(-0.1, 0.05, -0.1)).verdict == "not held"
    assert found("token-wise", **{"linear/weights=contextual": (0.0, 0.0, 0.0)}).verdict == "not held"


@pytest.mark.parametrize(("words", "name"), [("compose", "task_arithmetic"), ("token-wise", "linear/weights=learned"),
                                             ("negated", NEGATED), ("anti-expert", ANTI), ("home", BASE)])  # fmt: skip
def test_a_claim_without_its_variant_is_not_tested(words, name):
    claim = found(words, without=(name,))
    assert claim.verdict == "not tested"
    assert claim.estimate is None
    assert "needs results of" in claim.note
