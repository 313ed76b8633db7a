"""What a model of a folder ends in: the class of transformers that reads it, and how it is named as a member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Head:
    """One kind of output layer that transformers puts on its models."""

    name: str
    """Of the architecture that members with it have."""
    auto: str
    """The class of transformers that reads them."""
    mapping: str
    """Where transformers lists the kinds of model that have it."""
    words: str
    pipeline: str
    """The pipeline of transformers that uses such a model."""
    labelled: bool = True
    """Whether it has a row for each label of the task, and so an order of these."""
    raw: bool = True
    """Whether its models read raw examples, each with its own tokenizer or image processor."""

    @property
    def reader(self) -> Any:
        """The class of transformers."""
        import transformers

        return getattr(transformers, self.auto)

    @property
    def kinds(self) -> Mapping[str, Any]:
        """The kinds of model (``model_type``) that transformers has with it."""
        from transformers.models.auto import modeling_auto

        known: Mapping[str, Any] = getattr(modeling_auto, self.mapping)
        return known


CAUSAL = Head(
    "causal_lm",
    "AutoModelForCausalLM",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "causal language model",
    "text-generation",
    labelled=False,
    raw=False,
)
MASKED = Head(
    "masked_lm",
    "AutoModelForMaskedLM",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "masked language model",
    "fill-mask",
    labelled=False,
)
SEQUENCE = Head(
    "sequence_classifier",
    "AutoModelForSequenceClassification",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "text classifier",
    "text-classification",
)
IMAGE = Head(
    "image_classifier",
    "AutoModelForImageClassification",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "image classifier",
    "image-classification",
)
HEADS = {head.name: head for head in (CAUSAL, MASKED, SEQUENCE, IMAGE)}
READ_TEXTS = (SEQUENCE, MASKED)
"""Those of models that read raw texts."""
