"""The rules by which tensors of several models become one, with their parameters: mergekit's names and defaults.

What each rule computes is in ``definitions``; this module is read without torch. Source: mergekit 0.1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

REQUIRED: Any = object()
"""The default of a parameter that has none."""

Scope = Literal["shared", "source", "fine_tune"]
"""Whether a parameter is one for a tensor, one for each source, or one for each source but the base."""

Base = Literal["required", "optional", "ignored"]

Lone = Literal["refuse", "copy", "copy_base", "base_or_skip"]
"""What becomes of a tensor that architectures may lack where one source alone has it: refused; copied from whichever;
copied from the base alone; copied from the base, and left out where another has it."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a rule."""

    name: str
    kind: type
    scope: Scope
    default: Any = REQUIRED


@dataclass(frozen=True)
class Rule:
    """What a rule takes."""

    name: str
    summary: str
    paper: str
    parameters: tuple[Parameter, ...] = ()
    base: Base = "required"
    fewest: int = 1
    """Sources, the base among them where there is one."""
    most: int | None = None
    fewest_fine_tunes: int = 0
    most_fine_tunes: int | None = None
    lone: Lone = "refuse"
    random: bool = False
    """Whether it draws at random."""


def _task_vectors(
    *, normalize: bool = False, rescale: bool = False, more: tuple[Parameter, ...] = ()
) -> tuple[Parameter, ...]:
    return (
        Parameter("weight", float, "fine_tune"),
        Parameter("density", float, "fine_tune", 1.0),
        *more,
        Parameter("normalize", bool, "shared", normalize),
        Parameter("rescale", bool, "shared", rescale),
        Parameter("lambda", float, "shared", 1.0),
        Parameter("int8_mask", bool, "shared", False),  # how mergekit stores masks, which changes no result
    )


_GAMMA = (Parameter("gamma", float, "fine_tune", 0.01),)
_EPSILON = (Parameter("epsilon", float, "fine_tune", 0.15),)
_T = (Parameter("t", float, "shared"),)

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "linear",
            "the weighted mean of the models; their weighted sum with normalize: false",
            "arXiv:2203.05482",
            (Parameter("weight", float, "source"), Parameter("normalize", bool, "shared", True)),
            base="ignored",
        ),
        Rule(
            "slerp",
            "a point on the arc from the base to the other model",
            "Shoemake 1985",
            _T,
            fewest=2,
            most=2,
            lone="copy",
        ),
        Rule(
            "nuslerp",
            "a point on the arc between two models, or between their task vectors where there is a base",
            "mergekit",
            (
                Parameter("weight", float, "fine_tune"),
                Parameter("nuslerp_row_wise", bool, "shared", False),
                Parameter("nuslerp_flatten", bool, "shared", True),
            ),
            base="optional",
            fewest_fine_tunes=2,
            most_fine_tunes=2,
            lone="copy",
        ),
        Rule("task_arithmetic", "the base and a weighted sum of task vectors", "arXiv:2212.04089", _task_vectors()),
        Rule(
            "ties",
            "task vectors trimmed to their largest entries; those that agree in sign are averaged",
            "arXiv:2306.01708",
            _task_vectors(normalize=True),
        ),
        Rule(
            "dare_linear",
            "task vectors from which entries are dropped at random, summed",
            "arXiv:2311.03099",
            _task_vectors(rescale=True),
            random=True,
        ),
        Rule(
            "dare_ties",
            "task vectors from which entries are dropped at random, with the election of signs of TIES",
            "arXiv:2311.03099",
            _task_vectors(rescale=True),
            random=True,
        ),
        Rule(
            "della",
            "task vectors from which entries are dropped at random, small ones likelier, with an election of signs",
            "arXiv:2406.11617",
            _task_vectors(normalize=True, rescale=True, more=_EPSILON),
            random=True,
        ),
        Rule(
            "della_linear",
            "task vectors from which entries are dropped at random, small ones likelier, summed",
            "arXiv:2406.11617",
            _task_vectors(rescale=True, more=_EPSILON),
            random=True,
        ),
        Rule(
            "breadcrumbs",
            "task vectors without their largest and their smallest entries, summed",
            "arXiv:2312.06795",
            _task_vectors(more=_GAMMA),
        ),
        Rule(
            "breadcrumbs_ties",
            "task vectors without their largest and their smallest entries, with the election of signs of TIES",
            "arXiv:2312.06795",
            _task_vectors(more=_GAMMA),
        ),
        Rule(
            "model_stock",
            "between the base and the mean of the models, as far as the angles between their task vectors say",
            "arXiv:2403.19522",
            (Parameter("filter_wise", bool, "shared", False),),
            fewest=3,
            lone="base_or_skip",
        ),
        Rule(
            "karcher",
            "the mean of the models' directions on the sphere, with the mean of their norms",
            "arXiv:2603.04972",
            (Parameter("max_iter", int, "shared", 10), Parameter("tol", float, "shared", 1e-5)),
            base="ignored",
        ),
        Rule(
            "sce",
            "where task vectors vary most: weighted by their energy, those that disagree in sign left out",
            "arXiv:2408.07990",
            (Parameter("select_topk", float, "shared", 1.0), Parameter("int8_mask", bool, "shared", False)),
        ),
        Rule(
            "arcee_fusion",
            "the other model's weights where the change and the shift of its rows' softmax are large, else the base's",
            "mergekit",
            fewest=2,
            most=2,
            lone="copy",
        ),
        Rule(
            "nearswap",
            "the other model's weights where they are near the base's, and towards the base's where they are not",
            "mergekit",
            _T,
            fewest=2,
            most=2,
            lone="copy_base",
        ),
        Rule(
            "passthrough",
            "one model's tensors as they are, or times a scale",
            "mergekit",
            (Parameter("scale", float, "source", None),),
            base="ignored",
            most=1,
        ),
    )
}
"""All rules by name."""
