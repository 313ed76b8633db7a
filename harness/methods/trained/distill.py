"""Ensemble distillation: one student learns the members' mean probabilities."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from harness.combinations import SingleModel, member_parts
from harness.combining import mix_linear, temper
from harness.fitting import uniform
from harness.models.architectures import build, half_size
from harness.models.training import Schedule, train
from harness.registry import method
from harness.types import Ingredients


@method(
    "distill",
    family="trained",
    summary="A student trained on (1-alpha) CE + alpha T^2 KL(mean of the members || student), same or half size.",
    paper="Hinton et al. 2015, arXiv:1503.02531",
    needs={"members", "train"},
    small=({"epochs": 1}, {"epochs": 1, "size": "half", "alpha": 1.0}),
)
def distill(
    ingredients: Ingredients,
    *,
    temperature: Annotated[float, Field(gt=0)] = 2.0,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9,
    size: Literal["same", "half"] = "same",
    epochs: Annotated[int, Field(ge=1)] = 12,
    lr: Annotated[float, Field(gt=0)] = 2e-3,
) -> SingleModel:
    """The student has the first member's architecture (names in order) and starts from a fresh initialisation.

    The teacher's probabilities on the training split are computed once, from the members' cached predictions.
    """
    train_split = ingredients.train
    labels = train_split.labels.to(ingredients.device)
    stacked = ingredients.stacked(member_parts(ingredients), train_split)
    teacher = mix_linear(temper(stacked, temperature), uniform(len(stacked))).to(ingredients.device)
    first = min(ingredients.members, key=lambda member: member.name)
    architecture = half_size(first.architecture) if size == "half" else first.architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ingredients.seed)
        student = build(architecture).to(ingredients.device)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return distillation_loss(logits, labels[rows], teacher[rows], temperature, alpha)

    log = train(student, train_split, Schedule(epochs, lr), seed=ingredients.seed, loss=loss)
    details: dict[str, Any] = {"student": str(architecture), "examples_seen": log.examples}
    return SingleModel(architecture, student, details)


def distillation_loss(logits: Tensor, labels: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """``(1-a) CE + a T^2 KL(teacher || softmax(z/T))``, mean over rows.

    Args:
        logits: the student's [B, C].
        labels: [B].
        teacher: log-probabilities [B, C], already at this temperature.
        temperature: T; the factor T^2 keeps the gradient's scale, which the softening divides by T^2.
        alpha: the share of the teacher.
    """
    student = torch.log_softmax(logits / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - alpha) * functional.cross_entropy(logits, labels) + alpha * temperature**2 * divergence
