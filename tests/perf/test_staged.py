"""A cascade against the calls that it makes: its stages run by hand on as many examples, in batches as large."""

import pytest
import torch

from harness.models.architectures import build
from harness.systems.acceptance import Confidence
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination
from harness.types import Architecture, Member

BATCH, BATCHES = 250, 8


@pytest.mark.parametrize("width", [2, 16], ids=["networks of microseconds", "networks of a tenth of a millisecond"])
def test_a_cascade_takes_what_its_calls_take(in_turn, width):
    torch.manual_seed(0)
    network = Architecture("small_cnn", (("classes", 10), ("side", 28), ("width", width)))
    parts = [MemberPart(Member(f"m{k}", network, build(network).state_dict(), "", 0, {}, f"m{k}")) for k in range(4)]
    batches = torch.randn(BATCH * BATCHES, 1, 28, 28).split(BATCH)
    stages = [OutputCombination(chosen, Linear(uniform(len(chosen)))) for chosen in (parts[:1], parts)]
    with torch.inference_mode():
        certainties = torch.cat([parts[0].log_probs(batch).max(dim=-1).values.exp() for batch in batches])
        system = Staged(stages, [Confidence(float(certainties.quantile(0.25)))])
        later = [batch[: int(calls[:, 1].sum())] for batch in batches for _, calls in [system.run(batch)]]

        def cascade():
            return [system.run(batch) for batch in batches]

        def calls_by_hand():
            for batch, rest in zip(batches, later, strict=True):
                parts[0].log_probs(batch)
                for part in parts[1:]:
                    part.log_probs(rest)

        what = f"the calls of a cascade run by hand, over the cascade (small_cnn of width {width})"
        in_turn(what, cascade, calls_by_hand, rounds=15, target="1 where networks are dear")
