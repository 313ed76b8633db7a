"""Ensemble distillation: one student learns the members' mean probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import BadInput
from harness.merging.guards import check_mergeable, warnings_of
from harness.methods.method import method
from harness.methods.weights.uniform_soup import mean_of
from harness.models import causal_lm, configuration
from harness.models.architectures import build, half_size
from harness.models.training import train, usual_schedule
from harness.models.weights import load_module
from harness.systems.fitting import uniform
from harness.systems.rules import mix_linear, temper
from harness.systems.systems import SingleModel, member_parts
from harness.types import Architecture, Ingredients, Member, NotApplicable, check_tokens

HALVINGS = {"same": 0, "half": 1, "quarter": 2}
"""How often the width of every layer is halved."""
IN_WORDS = {"same": "", "half": " of half the size", "quarter": " of a quarter of the size"}


@method(
    "distill",
    family="trained",
    summary="A student trained on (1-alpha) CE + alpha T^2 KL(mean of the members || student), same or smaller size.",
    paper="Hinton et al. 2015, arXiv:1503.02531",
    words="student{size} taught by {alpha}",
    told={"size": IN_WORDS, "alpha": {0: "labels alone", None: "{members}"}},
    needs={"members", "base", "train"},
    small=(
        {"epochs": 1},
        {"epochs": 1, "size": "half", "alpha": 1.0},
        {"epochs": 1, "size": "quarter", "alpha": 0.0},
        {"epochs": 1, "start": "base"},
        {"epochs": 1, "start": "soup"},
    ),
)
def distill(
    ingredients: Ingredients,
    *,
    temperature: Annotated[float, Field(gt=0)] = 2.0,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9,
    size: Literal["same", "half", "quarter"] = "same",
    start: Literal["fresh", "base", "soup"] = "fresh",
    epochs: Annotated[int, Field(ge=1)] = 12,
    lr: Annotated[float, Field(gt=0)] | None = None,
) -> SingleModel:
    """The student has the first member's architecture (names in order) and starts from a fresh initialisation.

    ``size: half`` halves the width of every layer, ``quarter`` does so twice. ``start: base`` starts the student from
    the pool's base instead, ``soup`` from the mean of the members' weights, as ``uniform_soup`` has it. ``alpha: 0``
    learns from the labels only, which is what a teacher is to be measured against.

    By default the rate is 2e-3, and that of fine-tuning where the student starts from pretrained classifiers.

    The teacher's probabilities of inputs with one label each are computed once, from the members' cached predictions;
    those of windows, which have one of a whole vocabulary for every token, batch by batch as they are needed.
    """
    train_split = ingredients.train
    first = min(ingredients.members, key=_name)
    taught = (*ingredients.members, ingredients.base) if start == "base" else ingredients.members
    if len(sizes := {causal_lm.vocabulary_of(member.architecture) for member in taught}) > 1:
        raise NotApplicable(f"the models have vocabularies of {sizes} tokens: a student learns that of one")
    if start != "fresh" and size != "same":
        raise NotApplicable(f"a student{IN_WORDS[size]} cannot start from the {start}, which is of the whole size")
    architecture = _sized(first.architecture, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ingredients.seed)
        student, details = _student(ingredients, architecture, start)
    teacher, told = _teacher(ingredients, temperature)
    labels = train_split.labels.to(ingredients.device).view(len(train_split.inputs), -1)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return distillation_loss(logits, labels[rows].flatten(), teacher(rows), temperature, alpha)

    usual = usual_schedule(train_split, epochs)
    head = configuration.head_of(architecture)
    is_tuned = start != "fresh" and head is not None and head.labelled
    schedule = replace(usual, lr=lr or (usual.lr if is_tuned else 2e-3))
    log = train(student, train_split, schedule, seed=ingredients.seed, loss=loss if alpha else None)
    details |= {"student": str(architecture), "examples_seen": log.examples, **told}
    return SingleModel(architecture, student, details)


def _student(ingredients: Ingredients, architecture: Architecture, start: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network as training finds it, and what a reader of its scores should know of that as ``details``."""
    if start == "soup":
        members = sorted(ingredients.members, key=_name)
        check_mergeable(members)
        return mean_of(members, ingredients), warnings_of(members)
    student = load_module(ingredients.base) if start == "base" else build(architecture)
    return student.to(ingredients.device), {}


def _name(member: Member) -> str:
    return member.name


def _sized(architecture: Architecture, size: str) -> Architecture:
    try:
        for _ in range(HALVINGS[size]):
            architecture = half_size(architecture)
    except BadInput as fault:
        raise NotApplicable(f"no student{IN_WORDS[size]}: {fault.problem}") from None
    return architecture


def _teacher(ingredients: Ingredients, temperature: float) -> tuple[Callable[[Tensor], Tensor], dict[str, float]]:
    """From rows of the training inputs to the members' mean log-probabilities of their labels, at this temperature.

    Of inputs with one label each also ``details``: on what share of them the mean is right, and how sure it is. A
    teacher that has learned its training inputs by heart says of them little more than their labels do.
    """
    parts, split = member_parts(ingredients), ingredients.train
    weights = uniform(len(parts))
    if len(split.labels) == len(split.inputs):
        stacked = ingredients.stacked(parts, split)
        known = mix_linear(temper(stacked, temperature), weights).to(ingredients.device)
        sure, answers = mix_linear(stacked, weights).max(dim=-1)
        right = (answers == split.labels.to(answers)).double().mean()
        told = {"teacher_right": float(right), "teacher_confidence": float(sure.exp().double().mean())}
        return lambda rows: known[rows], told
    check_tokens(parts, split)

    def predict(rows: Tensor) -> Tensor:
        windows = split.inputs[rows.cpu()].to(ingredients.device)
        with torch.no_grad():
            stacked = torch.stack([part.log_probs(windows) for part in parts])
        return mix_linear(temper(stacked, temperature), weights)

    return predict, {}


def distillation_loss(logits: Tensor, labels: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """``(1-a) CE + a T^2 KL(teacher || softmax(z/T))``, mean over rows.

    Args:
        logits: the student's [B, C].
        labels: [B].
        teacher: log-probabilities [B, C], already at this temperature; a label that it excludes adds nothing.
        temperature: T; the factor T^2 keeps the gradient's scale, which the softening divides by T^2.
        alpha: the share of the teacher.
    """
    student = torch.log_softmax(logits / temperature, dim=-1)
    terms = functional.kl_div(student, teacher, reduction="none", log_target=True)
    divergence = terms.masked_fill(teacher.isneginf(), 0.0).sum() / len(terms)  # 0 log 0 is 0
    return (1 - alpha) * functional.cross_entropy(logits, labels) + alpha * temperature**2 * divergence
