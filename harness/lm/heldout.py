"""What systems say of the held-out examples that thresholds and routers are fitted on: as they are scored at test.

Of most kinds of task these are the held-out inputs. Windows of text have no classes to decide by: there they are
documents with choices, of tasks that the suite names (``tasks.text.TextSplit``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from harness.evaluate.predictions import predict
from harness.systems.parts import ModelPart
from harness.tasks.text import TextSplit, TextTask
from harness.types import Combination, Criterion, Ingredients, NotApplicable, Part, Split, Unscored

WITHOUT = "it is fitted on held-out examples, and windows of text are none: name tasks with choices under task: heldout"


def documents_of(heldout: Split) -> TextTask | None:
    """The task whose documents methods may ask about; None of a split whose inputs are the examples."""
    return heldout.documents if isinstance(heldout, TextSplit) else None


@dataclass(frozen=True)
class OnHeldout:
    """What systems say of the held-out examples."""

    log_probs: list[Tensor]
    """[N, C] of each."""
    labels: Tensor
    """[N], the right classes."""
    criterion: Criterion
    """What choices go by: of documents accuracy, for the probabilities of their choices are far too certain (those of
    the suite domains have an NLL of 4.4 on four choices)."""


def said_of_heldout(systems: Sequence[Combination | Part], ingredients: Ingredients) -> OnHeldout:
    """What each system says of the held-out examples.

    Args:
        systems: what tells its answers from those of its parts (``Combination.replays``), and models.
        ingredients: of the method, which declares held-out.

    Raises:
        NotApplicable: for windows of text without documents; where a system has no scores on these.
    """
    heldout = ingredients.heldout
    if documents := documents_of(heldout):
        return OnHeldout(_choices(systems, documents), documents.documents.labels, "accuracy")
    if len(heldout.labels) != len(heldout.inputs):
        raise NotApplicable(WITHOUT)
    parts = {part.digest: part for system in systems for part in _parts(system)}
    said = {name: _said(part, ingredients) for name, part in parts.items()}
    answers = [
        said[system.digest] if isinstance(system, Part) else system.replay([said[p.digest] for p in system.parts()])[0]
        for system in systems
    ]
    return OnHeldout(answers, heldout.labels, heldout.criterion)


def _parts(system: Combination | Part) -> Sequence[Part]:
    return [system] if isinstance(system, Part) else system.parts()


def _said(part: Part, ingredients: Ingredients) -> Tensor:
    """Of a member what is known already, of a model that was made here by running it."""
    if isinstance(part, ModelPart):
        return predict(part.log_probs, ingredients.heldout)
    return ingredients.predictions([part], ingredients.heldout)[0]


def _choices(systems: Sequence[Combination | Part], documents: TextTask) -> list[Tensor]:
    """Over the choices of every document, all systems in one pass."""
    from harness.lm.asking import Asked  # lm-eval takes seconds to import, and other kinds do without it
    from harness.lm.stages import choices_of

    asked = Asked(documents)
    planned = [asked.plan(system, str(number)) for number, system in enumerate(systems)]
    asked.run()
    try:
        said = [asked.said_alone(system, plan) for system, plan in zip(systems, planned, strict=True)]
    except Unscored as reason:
        raise NotApplicable(f"on held-out documents: {reason}") from None
    return [choices_of(documents.questions, each) for each in said]
