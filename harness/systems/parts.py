"""The models that combinations run: members of a pool, and models that a method made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.models import forward
from harness.models.causal_lm import vocabulary_of
from harness.models.classifiers import run_tokens, texts_of
from harness.models.readers import tokens_of
from harness.models.streamed import member_to_run
from harness.says import LACKS
from harness.types import (
    Member,
    NotApplicable,
    Part,
)

CPU = torch.device("cpu")


class MemberPart(Part):
    """A member as it is, dropout off; its module is loaded when it is first run."""

    def __init__(self, member: Member, device: torch.device = CPU) -> None:
        self.member, self.device = member, device
        self.name, self.digest, self.tokenizer = member.name, member.digest, member.tokenizer
        self.says = member.says
        self.vocabulary = vocabulary_of(member.architecture)
        self._module: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        if self._module is None:
            self._module = member_to_run(self.member, self.device)
        return self._module

    def log_probs(self, batch: Tensor) -> Tensor:
        if self.says == "text":
            raise NotApplicable(f"member {self.name} {LACKS['text']}")
        return forward.log_probs(self.network, batch)

    def reference(self) -> dict[str, Any]:
        """What finds this part again in a pool."""
        return {"member": self.digest}


class MaskedPart(MemberPart):
    """A member that is a masked language model: a system asks it for texts."""

    def run_once(self, batch: Tensor) -> None:
        texts = [[text] for of_example in texts_of(batch) for text in of_example]
        reader = forward.reader_of(self.module)
        for _ in run_tokens(self.module, tokens_of(texts, reader), reader):
            pass


class ModelPart(Part):
    """A model that a method made, held in memory."""

    def __init__(self, name: str, module: nn.Module, identity: str) -> None:
        self.name, self._module, self.digest = name, module, identity

    @property
    def module(self) -> nn.Module:
        return self._module

    def log_probs(self, batch: Tensor) -> Tensor:
        return forward.log_probs(self._module, batch)
