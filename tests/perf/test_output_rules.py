"""Forty output-space variants of eight members against the members' own predictions."""

import itertools

import torch

from harness.evaluate.predictions import predict
from harness.models.architectures import build
from harness.systems.fitting import fit_gate, fit_linear, fit_log_linear, uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear, LogLinear
from harness.types import Architecture, Member, Split

MNIST = Architecture("small_cnn", (("classes", 10), ("side", 28)))


def test_forty_variants(in_turn):
    torch.manual_seed(0)
    members = [Member(f"m{k}", MNIST, build(MNIST).state_dict(), "", 0, {}, f"m{k}") for k in range(8)]
    parts = [MemberPart(member) for member in members]
    labels = torch.randint(10, (2500,))
    split = Split("test", torch.randn(2500, 1, 28, 28), labels, [""] * 2500, "")

    def members_alone():
        return torch.stack([predict(part.log_probs, split) for part in parts])

    stacked = members_alone()
    pairs = list(itertools.combinations(range(8), 2))

    def variants():
        found = [Linear(uniform(2))(stacked[list(pair)]) for pair in pairs[:19]]
        found += [LogLinear(uniform(2))(stacked[list(pair)]) for pair in pairs[:18]]
        found += [Linear(fit_linear(stacked, labels))(stacked), LogLinear(fit_log_linear(stacked, labels))(stacked)]
        fit_gate(stacked, labels, "linear")
        return found

    def members_and_variants():
        members_alone()
        variants()

    what = "8 members alone, over 8 members and 40 output-space variants fitted and combined (0.8 is 1.25x)"
    in_turn(what, members_and_variants, members_alone, target=">= 0.8")
