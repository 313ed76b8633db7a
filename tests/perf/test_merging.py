"""Merging state dicts against mergekit's own function on the same ones, in memory: no file is read by either."""

import functools
import warnings

import pytest
import torch

from harness.merging.arithmetic import weighted_sum
from harness.merging.slerp import slerp
from harness.merging.sparsify import drop, trim, uniform_draws
from harness.merging.task_vectors import TaskVectors, apply_task_vector, merge_task_vectors
from harness.merging.ties import MERGEKIT, SUM

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mergekit.merge_methods.api import merge_state_dicts as merge

MEMBERS = 4


@functools.cache
def models():
    """A base and four fine-tunes of 12 M parameters in layers of 1,024 x 1,024, bfloat16, 70 % of each left alone."""
    generator = torch.Generator().manual_seed(0)
    base = {f"layer{k}.weight": torch.randn(1024, 1024, generator=generator).bfloat16() for k in range(12)}
    tuned = []
    for _ in range(MEMBERS):
        changes = (torch.randn(1024, 1024, generator=generator) * 0.02 for _ in base)
        some = (torch.rand(1024, 1024, generator=generator) < 0.3 for _ in base)
        tuned.append({n: t + (c * s).bfloat16() for (n, t), c, s in zip(base.items(), changes, some, strict=True)})
    return base, tuned


def sparse(sparsify, dialect):
    base, tuned = models()
    merged = merge_task_vectors(TaskVectors(base, tuned), sparsify, dialect, [0.5] * MEMBERS)
    return apply_task_vector(base, merged.tensors, 1.0)


def dare(tensor, member, name):
    return drop(tensor, 0.2, uniform_draws(tensor.shape, 0, str(member), name))


OURS = {
    "linear": lambda: weighted_sum(models()[1], [1 / MEMBERS] * MEMBERS),
    "slerp": lambda: slerp(models()[0], models()[1][0], 0.3),
    "task_arithmetic": lambda: sparse(lambda tensor, member, name: tensor, SUM),
    "ties": lambda: sparse(lambda tensor, member, name: trim(tensor, 0.2), MERGEKIT),
    "dare_linear": lambda: sparse(dare, SUM),
}
PARAMETERS = {"ties": {"density": 0.2}, "dare_linear": {"density": 0.2}}


def theirs(name):
    """Computed in float32, as ours is: left to itself mergekit rounds the task vectors to bfloat16."""
    base, tuned = models()
    merge_state_dicts = functools.partial(merge, dtype=torch.float32, out_dtype=torch.bfloat16)
    if name == "linear":
        return merge_state_dicts(tuned, name, parameters={"weight": [1 / MEMBERS] * MEMBERS})
    if name == "slerp":
        return merge_state_dicts([base, tuned[0]], name, base=0, parameters={"t": 0.3})
    parameters = {"weight": [0.5] * MEMBERS, **PARAMETERS.get(name, {})}
    return merge_state_dicts([base, *tuned], name, base=0, parameters=parameters)


@pytest.mark.parametrize("name", OURS)
def test_merging(in_turn, name):
    what = f"{name} of {'2' if name == 'slerp' else MEMBERS} models of 12 M in bfloat16, against mergekit 0.1.5"
    in_turn(what, OURS[name], lambda: theirs(name), rounds=3)
    if name in ("linear", "slerp", "task_arithmetic"):
        ours, peers = OURS[name](), theirs(name)
        differ = sum(int((ours[n] != peers[n]).sum()) for n in peers) / sum(peers[n].numel() for n in peers)
        assert differ < 1e-3, f"{differ:.1e} of the weights differ in a last digit"
