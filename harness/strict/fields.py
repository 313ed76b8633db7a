"""Field types that the strict models of suites and policies share."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from harness.strict.model import STRICT

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


Positive = Annotated[float, Field(gt=0)]


Count = Annotated[int, Field(ge=1)]


class Strict(pydantic.BaseModel):
    """Takes exactly what its fields say, and no other keys."""

    model_config = STRICT
