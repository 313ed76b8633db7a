"""What a suite says under ``cost``: a switch for every cost that is declared, a budget and a price."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any

import pydantic
from pydantic import Field

from harness.display.formats import read_bytes
from harness.errors import BadInput
from harness.registry import COSTS
from harness.strict.fields import Positive, Strict


class CostSpec(Strict):
    """Which costs are measured beyond those that can be counted."""

    memory_budget: Annotated[int, pydantic.BeforeValidator(read_bytes)] | None = None
    """What batches and ensembles should fit in, such as 24GB; by default all memory of the device."""
    price_per_gpu_hour: Positive | None = None
    """In any currency, for the money that a million examples cost on a GPU."""

    def asks(self, cost: str) -> bool:
        """Whether a cost is to be measured; where the device has no meter for it, that takes no time."""
        return bool(getattr(self, cost))

    def without(self, costs: Iterable[str]) -> CostSpec:
        """The same without some costs."""
        return self.model_copy(update=dict.fromkeys(costs, False))

    @pydantic.model_serializer(mode="wrap")
    def _without_plug_ins(self, whole: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All keys, but for costs of plug-ins where they are as usual: installing one changes no suite's digest."""
        usual = {cost.name: cost.usual for cost in COSTS if not cost.module.startswith("harness.")}
        return {key: value for key, value in whole(self).items() if key not in usual or value != usual[key]}


def cost_spec() -> type[CostSpec]:
    """The model with a switch for each declared cost; it is made anew only where other costs are declared."""
    return _cost_spec(tuple((cost.name, cost.usual, ", ".join(each.name for each in cost.columns)) for cost in COSTS))


@cache
def _cost_spec(costs: tuple[tuple[str, bool, str], ...]) -> type[CostSpec]:
    if taken := [name for name, *_ in costs if hasattr(CostSpec, name) or name in CostSpec.model_fields]:
        hint = "mend or uninstall the plug-in"
        raise BadInput(f"a cost cannot be called '{taken[0]}'", place=COSTS.get(taken[0]).module, hint=hint)
    fields: dict[str, Any] = {
        name: (bool, Field(usual, description=f"whether to measure {columns}")) for name, usual, columns in costs
    }
    return pydantic.create_model("CostSpec", __base__=CostSpec, __doc__=CostSpec.__doc__, **fields)
