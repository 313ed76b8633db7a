"""The choice of a path: named or measured, once for a size, and what it says of the others."""

import time
from dataclasses import replace

import pytest
import torch

from harness.errors import BadInput
from harness.moe import MixtureOfExperts, ModuleExperts, PerceptronExperts, SoftmaxTopK, SwiGLUExperts
from harness.moe import choose as choosing
from harness.moe.choose import Choice, choose, measure
from harness.moe.dispatch.dispatch import Dispatch
from harness.registry import DISPATCHES
from tests.moe.cases import Twice, choices, routing


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    monkeypatch.setattr(choosing, "_KNOWN", {})


def given(rows=8, experts=None, dtype=torch.float32):
    experts = experts or SwiGLUExperts(4, 16, 32).to(dtype)
    return experts, torch.randn(rows, 16).to(dtype), routing(choices(rows, 4, 2), 4, dtype)


@pytest.fixture
def with_path(monkeypatch):
    """Declares a path that takes some seconds."""

    def declare(name, seconds, unavailable=lambda experts, x: None):
        def run(experts, x, routing):
            calls.append(torch.is_grad_enabled())
            time.sleep(seconds)
            return DISPATCHES.get("dense").run(experts, x, routing)

        calls = []
        monkeypatch.setattr(DISPATCHES, "_known", DISPATCHES.all())
        DISPATCHES.add(Dispatch(name, "of a test", run, unavailable, False, __name__))
        return calls

    return declare


def test_every_path_is_measured_or_refused_and_the_fastest_taken():
    choice = choose("auto", *given())
    assert set(choice.milliseconds) | set(choice.refused) == set(DISPATCHES.all())
    assert choice.milliseconds[choice.path] == min(choice.milliseconds.values())
    assert choice.refused == {}


def test_what_cannot_run_is_refused_with_its_reason():
    choice = measure(*given(dtype=torch.bfloat16))
    assert set(choice.refused) == {"sparse", "sparse_blocks"}
    modules = ModuleExperts([Twice(16, 3) for _ in range(4)], 16, 3)
    choice = measure(*given(experts=modules))
    assert set(choice.refused) == {"grouped", "sparse", "sparse_blocks"}
    assert all("modules of their own" in why for why in choice.refused.values())


def test_a_path_that_breaks_on_this_size_is_refused_and_the_others_go_on(monkeypatch):
    def short_of_memory(experts, x, routing):
        raise torch.OutOfMemoryError("memory is short\nby far")

    monkeypatch.setattr(DISPATCHES, "_known", DISPATCHES.all())
    for name in ("dense", "sorted"):
        DISPATCHES._known[name] = replace(DISPATCHES.get(name), run=short_of_memory)
    choice = measure(*given())
    assert choice.refused == {"dense": "memory is short", "sorted": "memory is short"}
    for name in DISPATCHES.all():
        DISPATCHES._known[name] = replace(DISPATCHES.get(name), run=short_of_memory)
    with pytest.raises(RuntimeError, match="dense: memory is short; grouped"):
        measure(*given())


def test_all_experts_on_too_many_rows_are_not_tried(monkeypatch):
    monkeypatch.setattr(choosing, "TOO_MANY", 4 * 8 * 64 - 1)
    choice = measure(*given())
    assert choice.refused == {"dense": "all experts on all rows are 2,048 numbers at once"}
    monkeypatch.setattr(choosing, "TOO_MANY", 4 * 8 * 64)
    assert measure(*given()).refused == {}


def test_a_slow_path_is_not_taken_and_hardly_measured(with_path):
    calls = with_path("slow", 0.2)
    choice = choose("auto", *given())
    assert choice.path != "slow"
    assert choice.milliseconds["slow"] >= 200
    assert len(calls) == 2


def test_a_path_that_is_slow_for_long_is_run_once(with_path, monkeypatch):
    monkeypatch.setattr(choosing, "LONG", 100.0)
    calls = with_path("slow", 0.2)
    assert choose("auto", *given()).milliseconds["slow"] >= 200
    assert len(calls) == 1


def test_a_measurement_is_made_once_for_a_size(with_path):
    calls = with_path("another", 0.0)
    layer = MixtureOfExperts(SoftmaxTopK(16, 4, 2), SwiGLUExperts(4, 16, 32)).eval()
    with torch.no_grad():
        layer(torch.randn(8, 16))
        first, choice = len(calls), layer.choice
        layer(torch.randn(5, 16))  # as many rows up to the next power of two
        assert layer.choice is choice
        measured = [one.path for one in choosing.choices()]
        assert measured == [choice.path]
        for rows in (9, 33):
            layer(torch.randn(rows, 16))
        assert len(choosing.choices()) == 3
    assert len(calls) >= first + 4
    layer(torch.randn(8, 16))  # with gradients it is another measurement
    assert len(choosing.choices()) == 4


def test_with_gradients_the_backward_pass_is_measured_too(with_path):
    calls = with_path("another", 0.0)
    experts, x, made = given()
    measure(experts, x, made)
    assert all(calls)
    del calls[:]
    with torch.no_grad():
        measure(experts, x, made)
    assert not any(calls)
    assert all(parameter.grad is None for parameter in experts.parameters())


def test_a_measurement_leaves_generators_and_gradients_alone():
    layer = MixtureOfExperts(SoftmaxTopK(16, 4, 2), SwiGLUExperts(4, 16, 32)).train()
    before = torch.random.get_rng_state()
    x = torch.randn(8, 16).requires_grad_()
    torch.random.set_rng_state(before)
    layer(x).sum().backward()
    torch.testing.assert_close(torch.random.get_rng_state(), before)
    found = [x.grad, *(parameter.grad for parameter in layer.parameters())]
    x.grad = None
    layer.zero_grad()
    layer.dispatch = layer.choice.path
    layer(x).sum().backward()
    for one, other in zip(found, [x.grad, *(parameter.grad for parameter in layer.parameters())], strict=True):
        assert torch.equal(one, other)


def test_a_named_path_is_taken_unmeasured():
    choice = choose("index", *given())
    assert choice == Choice("index")
    assert str(choice) == "index (named)"
    assert choosing.choices() == []


def test_a_named_path_that_cannot_run_says_why():
    with pytest.raises(BadInput, match=r"cannot be dispatched by 'sparse': .* CSR .* torch.bfloat16 on cpu .*; 'auto'"):
        choose("sparse", *given(dtype=torch.bfloat16))
    odd = PerceptronExperts(4, 16, 7, 16)
    with pytest.raises(BadInput, match="'grouped': a row of 7 numbers is no multiple of 16 bytes"):
        choose("grouped", *given(experts=odd))
    with pytest.raises(BadInput, match="'sparse_blocks': its sizes have no common block of 16"):
        choose("sparse_blocks", *given(experts=odd))


def test_a_choice_says_its_time_and_those_of_the_others():
    choice = Choice("a", {"a": 1.234, "b": 20.0}, {"c": "no such thing"})
    assert str(choice) == "a 1.23 ms (b 20 ms, c not: no such thing)"
    assert str(Choice("a", {"a": 1.0})) == "a 1 ms"
