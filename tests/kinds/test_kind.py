"""Laws of every kind of task that is registered."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.keys import code_version
from harness.models import forward
from harness.models.architectures import build, check_options, code_of, kind_of, trainable
from harness.models.weights import load_module
from harness.registry import KINDS
from harness.systems.dropout import StochasticNetwork
from harness.types import Architecture, Member

SHAPES = {
    "images": {"side": 8, "classes": 3},
    "tabular": {"features": 4, "classes": 3},
    "text": {"vocab": 40, "hidden": 16, "heads": 2, "layers": 1},
}
BATCHES = {"images": torch.randn(5, 1, 8, 8), "tabular": torch.randn(5, 4), "text": torch.randint(40, (5, 7))}
ROWS = {"images": (5, 3), "tabular": (5, 3), "text": (5 * 6, 40)}
NETWORKS = [(kind, name) for kind in SHAPES for name in KINDS.get(kind).networks]


def architecture(kind, name):
    return Architecture(name, tuple(sorted(SHAPES[kind].items())))


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_its_networks_are_run_on_a_batch_as_it_says_whatever_wraps_them(kind, name):
    of = architecture(kind, name)
    module, batch = build(of).eval(), BATCHES[kind]
    found = forward.logits(module, batch)
    assert found.shape == ROWS[kind]
    assert torch.equal(found, KINDS.get(kind).logits(module, batch))
    member = Member("m", of, module.state_dict(), "s", 0, {}, "m")
    assert torch.equal(forward.logits(load_module(member), batch), found)
    assert forward.logits(StochasticNetwork(module, 1), batch).shape == ROWS[kind]


def test_a_network_of_no_kind_is_called_on_the_batch_whatever_its_type():
    integers = torch.arange(6).view(2, 3)
    embedding = nn.EmbeddingBag(6, 4)
    assert torch.equal(forward.logits(embedding, integers), embedding(integers))
    assert torch.equal(forward.logits(StochasticNetwork(embedding, 1), integers), embedding(integers))


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_every_network_is_of_the_one_kind_that_declares_it(kind, name):
    assert name in trainable()
    assert kind_of(Architecture(name)) == kind
    check_options(architecture(kind, name))
    assert set(code_of(Architecture(name))) <= set(KINDS.get(kind).code)


@pytest.mark.parametrize("kind", SHAPES)
def test_what_keys_name_is_code_that_is_there_and_no_code_of_reading_or_scoring_tasks(kind):
    for entry in KINDS.get(kind).code:
        module, _, name = entry.partition(":")
        assert name
        assert code_version(module)
        assert module.startswith("harness.models.")


def test_an_architecture_that_no_kind_builds_is_of_none():
    assert kind_of(Architecture("elsewhere")) is None
    assert code_of(Architecture("elsewhere")) == ()


FILES = {"train": "a.csv", "heldout": "b.csv", "test": "c.csv"}
ASKED = {"lm_eval": ["q"], "texts": FILES, "images": FILES, "table": FILES}
"""What a suite may say of tasks of each kind that has a key."""


def test_references_travel_to_workers():
    for kind in KINDS:
        given = next(iter(kind.tasks), None) or kind.spec.model_validate({kind.key: ASKED[kind.key]})
        reference = kind.refer(given, "suite", Path("folder"), "base")
        again = pickle.loads(pickle.dumps(reference))
        assert again == reference
        assert hash(again) == hash(reference)
        assert again.kind == kind.name
