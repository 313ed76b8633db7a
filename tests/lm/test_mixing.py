"""All systems at once give what each rule gives when it is called, zeros, ties and all."""

import math

import pytest
import torch

from harness.errors import BadInput
from harness.lm import mixing
from harness.lm.mixing import Mixer, System, check_systems
from harness.systems.rules import Contrast, Gated, Linear, LogLinear, Tempered, Vote
from harness.types import NotApplicable

INF = math.inf
GATE = torch.tensor([0.5, -0.3, 0.8])


def weights(*values):
    return torch.tensor(values)


SYSTEMS = [
    System("single", (1,), Linear(weights(1.0))),
    System("all on one", (0, 1, 2), Linear(weights(0.0, 1.0, 0.0))),
    System("all on one, product", (2, 0), LogLinear(weights(1.0, 0.0))),
    System("linear", (0, 1, 2), Linear(weights(0.2, 0.3, 0.5))),
    System("linear of two", (2, 1), Linear(weights(0.9, 0.1))),
    System("linear, one twice", (1, 0, 1), Linear(weights(0.3, 0.4, 0.3))),
    System("product", (0, 1, 2), LogLinear(weights(0.2, 0.3, 0.5))),
    System("product of one, sharpened", (0,), LogLinear(weights(2.0))),
    System("product, one out", (0, 1, 2), LogLinear(weights(0.6, 0.0, 0.4))),
    System("product, one against", (1, 2, 0), LogLinear(weights(1.2, 0.7, -0.9))),
    System("product, for and against itself", (1, 0, 1), LogLinear(weights(0.8, 1.0, -0.8))),
    System("gate", (0, 1, 2), Gated(weights(0.3, -0.2, 0.1), GATE, "linear")),
    System("gate of two", (2, 0), Gated(weights(0.3, -0.2), -GATE, "linear")),
    System("gate, product", (0, 1, 2), Gated(weights(0.0, 0.5, 0.1), GATE, "log_linear")),
    System("vote", (2, 1, 0), Vote()),
    System("cooler", (0, 2), Tempered(Linear(weights(0.5, 0.5)), 1.7)),
    System("contrast", (1, 2, 0), Contrast(0.7, "none", 0.1)),
    System("contrastive", (0, 1, 2), Contrast(0.7, "contrastive", 0.1)),
    System("dexperts", (2, 1, 0), Contrast(-0.4, "dexperts", 0.9)),
]


def random_logits(rows=23, vocabulary=17, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return list(scale * torch.randn(3, rows, vocabulary, generator=generator))


def every_pair(logits):
    """Each row read by each token."""
    rows, vocabulary = logits[0].shape
    return torch.arange(rows).repeat_interleave(vocabulary), torch.arange(vocabulary).repeat(rows)


def called(systems, logits, slots, targets):
    """The plain reading: each rule on the stack of its members' full distributions."""
    log_probs, first = [], []
    for system in systems:
        stacked = torch.stack([torch.log_softmax(logits[k].float(), dim=-1) for k in system.members])
        result = system.rule(stacked)
        log_probs.append(result[slots, targets])
        first.append(result.argmax(dim=-1)[slots] == targets)
    return torch.stack(log_probs), torch.stack(first)


def assert_as_called(logits, systems=SYSTEMS):
    slots, targets = every_pair(logits)
    found, first = Mixer(systems, len(logits))(logits, slots, targets)
    expected, expected_first = called(systems, logits, slots, targets)
    assert found.dtype == torch.float32
    assert not found.isnan().any()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert torch.equal(first, expected_first)


@pytest.mark.parametrize("bytes_", [1, 1000, 1 << 21])
def test_every_system_gives_what_its_rule_gives(bytes_, monkeypatch):
    monkeypatch.setitem(mixing.BLOCK_BYTES, "cpu", bytes_)
    assert_as_called(random_logits())


def test_zeros_mean_what_they_mean_to_the_rules():
    logits = random_logits(seed=1)
    generator = torch.Generator().manual_seed(1)
    for each in logits:
        each[torch.rand(each.shape, generator=generator) < 0.3] = -INF
        each[:, 0] = torch.where(each.isneginf().all(dim=-1), 0.0, each[:, 0])
    logits[0][3], logits[1][3], logits[2][3] = -INF, -INF, -INF  # a row on whose tokens nobody agrees
    logits[0][3, 2], logits[1][3, 5], logits[2][3, 7] = 0.0, 0.0, 0.0
    assert_as_called(logits)


def test_the_less_than_a_float_can_say_is_not_lost():
    """Probabilities below 1e-38 are still different, for a negative weight too."""
    assert_as_called(random_logits(seed=2, scale=60.0))


def test_linear_numbers_and_single_members_are_the_rules_own_bit_for_bit():
    logits = random_logits(seed=3)
    slots, targets = every_pair(logits)
    systems = [system for system in SYSTEMS if isinstance(system.rule, Linear)] + SYSTEMS[2:3]
    found, _ = Mixer(systems, 3)(logits, slots, targets)
    assert torch.equal(found, called(systems, logits, slots, targets)[0])


def test_of_tokens_that_tie_the_first_is_the_choice():
    logits = [torch.tensor([[1.0, 2.0, 0.0, 2.0]]).expand(2, -1).clone() for _ in range(3)]
    first = Mixer(SYSTEMS, 3)(logits, *every_pair(logits))[1]
    assert torch.equal(first, torch.tensor([False, True, False, False] * 2).expand(len(SYSTEMS), -1))


def test_half_precision_is_read_in_single():
    logits = [each.bfloat16() for each in random_logits(seed=4)]
    assert_as_called(logits)


@pytest.mark.parametrize("value", [math.nan, INF])
def test_what_is_not_finite_is_named(value):
    logits = random_logits()
    logits[1][5, 3] = value
    with pytest.raises(NotApplicable, match="model 1 gives logits that are not finite"):
        Mixer(SYSTEMS, 3)(logits, torch.tensor([0, 22]), torch.tensor([1, 2]))
    logits[1][5] = -INF
    with pytest.raises(NotApplicable, match="model 1"):
        Mixer(SYSTEMS, 3)(logits, torch.tensor([0, 22]), torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("system", "problem"),
    [
        (System("a", (0, 3), Linear(weights(0.5, 0.5))), r"members \(0, 3\) of 3 models"),
        (System("a", (), Vote()), "members"),
        (System("a", (0, 1), Linear(weights(1.0))), "1 weights for 2 members"),
        (System("a", (0, 1), Gated(weights(0.0), GATE, "linear")), "1 bias for 2 members"),
        (System("a", (0, 1), Contrast(0.5, "none", 0)), "does not combine 2 members"),
        (System("b", (0,), Vote()), "two systems have this name"),
    ],
)
def test_a_system_that_cannot_be_is_named(system, problem):
    with pytest.raises(BadInput, match=problem):
        check_systems([system, System("b", (0,), Vote())], 3)
