"""Merges of folders for which there is no room in memory: put in a file and run layer by layer, the same to the bit."""

import math

import pytest
import torch

from harness.merging import spilled
from harness.merging.scaled import ScaledTaskVector, StreamedTaskVector
from harness.models.room import set_room
from harness.models.weights import load_module, without_ties
from harness.registry import METHODS
from tests.methods.classifier_pools import pool
from tests.methods.test_classifier_folders import apply, on_test, refused

FAMILIES = ("bert", "llama", "resnet")
MERGES = [method.name for method in METHODS if method.family == "weights"]

@pytest.fixture
def no_room(monkeypatch):
    monkeypatch.setattr(spilled, "UNASKED", 0)
    yield lambda: set_room(0)
    set_room(None)


def kept(combination, folder):
    folder.mkdir()
    combination.save(folder)
    return (folder / "model.safetensors").read_bytes()


def without_times(details):
    return {name: value for name, value in details.items() if "seconds" not in name}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", MERGES)
def test_a_merge_is_the_same_whether_there_is_room_for_it_or_not(name, family, no_room, tmp_path):
    if name in refused(family):
        pytest.skip("does not apply")
    few = [each for each in METHODS.get(name).small if each.get("scale") != "heldout_per_layer"]  # hundreds of models
    for number, parameters in enumerate(few if family == "llama" else few[:1]):
        set_room(math.inf)
        whole = apply(name, family, parameters)
        no_room()
        found = apply(name, family, parameters)
        streams = [each for each in found.module.parameters() if each.is_meta]
        assert bool(streams) == (family != "resnet")
        assert torch.equal(on_test(found, family), on_test(whole, family))
        assert without_times(found.details) == without_times(whole.details)
        assert kept(found, tmp_path / f"{number}") == kept(whole, tmp_path / f"{number} whole")
        assert all(each.is_meta for each in streams)


def test_each_layers_scale_is_the_same_whether_there_is_room_for_the_model_or_not():
    base, *members = pool("llama").base, *pool("llama").members
    vector = {name: members[0].weights[name] - base.weights[name] for name in base.weights}
    held = ScaledTaskVector(load_module(base), base.weights, vector, [])
    streamed = StreamedTaskVector(base, vector, torch.device("cpu"))
    assert streamed.layers == held.layers
    scales = {layer: number / len(held.layers) for number, layer in enumerate(held.layers[1:])}
    ours, theirs = (without_ties(each.at_each(scales)) for each in (streamed, held))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
