"""How much work jobs are, and how it grows with the members, variants and examples of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.run import capacity
from harness.run.plan import Plan, PlannedJob
from harness.run.stages.build import Build
from harness.run.stages.prepare import Prepare
from harness.run.stages.setting import documents_of

FLOAT = 4
"""Bytes of a number: all is computed in float32."""


@dataclass(frozen=True)
class Work:
    """What jobs will do. Counts are over all pools and seeds; examples are inputs of one seed.

    What methods try on held-out while they choose, and what training takes, is in the seconds only. A model whose
    scores are of documents is run on these, however often a document asks.
    """

    members: int
    """M: models that are made or read, and run on held-out and test once, for all variants."""
    variants: int
    """V: those that are built."""
    own: int
    """W: of these, the models of their own, such as averages and students: each is run itself, on held-out too for its
    temperature."""
    merged: int
    """U: members that these are made of, added up."""
    combined: int
    """R: members whose predictions the other variants combine, added up."""
    heldout: int
    """h: held-out examples."""
    test: int
    """n: test examples."""
    documents: int | None
    """d: documents that models are scored on, where these are not the test examples."""
    runs: bool
    """Whether models are run at all; else all is looked up."""
    weight_bytes: int | None
    """w: of a model, the largest where they differ; None where that is not known."""
    prediction_bytes: int
    """p: of what one model says of one example."""
    member_seconds: float
    """a: expected seconds of a member, the mean."""
    variant_seconds: float
    """b: expected seconds of building, scoring and measuring a variant, the mean."""
    other_seconds: float
    """c: expected seconds of all else, such as a study."""

    @property
    def forward_passes(self) -> int:
        """Examples that models are run on, added up."""
        if not self.runs:
            return 0
        models, inputs = self.members + self.own, self.heldout + self.test
        return models * inputs if self.documents is None else self.members * inputs + models * self.documents

    @property
    def bytes_read(self) -> int:
        """Weights, and predictions where variants combine them; what a process keeps is read once, so at most."""
        weights = (self.members + self.merged) * (self.weight_bytes or 0)
        return weights + self.combined * (self.heldout + self.test) * self.prediction_bytes

    @property
    def seconds(self) -> float:
        """Expected, on one worker."""
        return self.members * self.member_seconds + self.variants * self.variant_seconds + self.other_seconds


FORWARD_PASSES = {True: "M (h + n) + (M + W) d", False: "(M + W) (h + n)"}
"""``Work.forward_passes``, by whether documents are scored that are not the test examples."""
BYTES_READ = {True: "(M + U) w + R (h + n) p", False: "R (h + n) p"}
"""``Work.bytes_read``, by whether models are run."""
SECONDS = "M a + V b + c"


def work_of(plan: Plan, jobs: Sequence[PlannedJob]) -> Work:
    """The work of some jobs of a plan."""
    stages = [planned.stage for planned in jobs]
    prepared = [stage for stage in stages if isinstance(stage, Prepare)]
    variants = [stage.variant for stage in stages if isinstance(stage, Build)]
    own = [variant for variant in variants if not variant.runs_members]
    members = sum(len(stage.member.digests) for stage in prepared)
    kind, task = plan.setting.kind, plan.task
    per_member = [planned.job.cost for planned in jobs if isinstance(planned.stage, Prepare)]
    studies = [planned.job.cost for planned in jobs if planned.stage.group == "study"]
    rest = sum(planned.job.cost for planned in jobs) - sum(per_member) - sum(studies)
    shape = dict(task.shape)
    labels = shape.get("classes") or shape.get("vocab") or documents_of(plan.setting).classes
    return Work(
        members=members,
        variants=len(variants),
        own=len(own),
        merged=sum(len(variant.used) for variant in own),
        combined=sum(len(variant.used) for variant in variants if variant.runs_members),
        heldout=len(task.heldout.inputs),
        test=len(task.test.inputs),
        documents=None if kind.inputs_are_scored else len(documents_of(plan.setting).ids),
        runs=kind.why_no_costs is None,
        weight_bytes=_weight_bytes(plan) if kind.why_no_costs is None else None,
        prediction_bytes=FLOAT * labels * max(1, len(task.test) // max(1, len(task.test.inputs))),
        member_seconds=sum(per_member) / members if members else 0.0,
        variant_seconds=rest / len(variants) if variants else 0.0,
        other_seconds=sum(studies) + (0.0 if variants else rest),
    )


def _weight_bytes(plan: Plan) -> int | None:
    """Of the largest architecture of the pools; None where none can be looked at before it is there."""
    pools = plan.pools[plan.seeds[0]].values()
    architectures = dict.fromkeys(member.architecture for pool in pools for member in pool.members)
    return max((need.weights for each in architectures if (need := capacity.needed(plan, each))), default=None)
