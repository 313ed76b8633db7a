"""What ls prints of each sort of declaration: its name at the margin, all that it declares below."""

from dataclasses import replace
from types import SimpleNamespace

import pydantic
import pytest

from harness import registry
from harness.cli import declared
from harness.engines.engine import Engine
from harness.registry import COSTS, DISPATCHES
from harness.results.metric import Column, Metric
from tests.cli.command import call

LOSS = Column("loss", "what is lost", "lower", unit="nats", most=3.0)
PLAIN = Column("share", "how much")
NO_CLOCK = "no clock"


class Spec(pydantic.BaseModel):
    """Members from a shelf."""

    shelf: str
    count: int = 2


class Thread(Engine):
    """Jobs in threads.

    More of it.
    """

    name = "thread"


EXAMPLES = {
    "metrics": (
        Metric(LOSS, lambda outcomes: 0.0, None, None, "somewhere"),
        ["loss", "    what is lost; lower is better; 0 to 3; in nats"],
    ),
    "costs": (
        replace(COSTS.get("latency"), name="wear", columns=(PLAIN, LOSS), seconds=1.5, unavailable=lambda _: NO_CLOCK),
        [
            "wear  (about 1.5 s; measured unless a suite says no)",
            "    share: how much; neither way is better",
            "    loss: what is lost; lower is better; 0 to 3; in nats",
            "    not here: no clock",
        ],
    ),
    "kinds": (
        SimpleNamespace(name="sounds", models="a network for sounds", key="wav", tasks={"b": "", "a": ""}, networks={}),
        ["sounds  (its models: a network for sounds)", "    a suite says 'task: {wav: ...}'", "    tasks: a, b"],
    ),
    "sources": (
        SimpleNamespace(name="shelf", spec=Spec),
        ["shelf", "    Members from a shelf.", "    shelf: str; required", "    count: int; default 2"],
    ),
    "dispatches": (replace(DISPATCHES.get("dense"), name="wormhole", summary="At once."), ["wormhole", "    At once."]),
    "engines": (Thread, ["thread", "    Jobs in threads."]),
}


@pytest.mark.parametrize("sort", EXAMPLES)
def test_a_declaration_is_listed_with_what_it_declares(capsys, monkeypatch, sort):
    example, lines = EXAMPLES[sort]
    known = registry.Registry("example", "harness.engines", "stockpot.nothing")
    known.__dict__["_found"] = True
    known.add(example)
    monkeypatch.setattr(registry, declared.SORTS[sort].registry, known)
    code, out, _ = call(capsys, "ls", sort)
    assert code == 0
    assert out.splitlines() == lines


def test_every_registry_has_a_verb():
    registries = {name for name, value in vars(registry).items() if isinstance(value, registry.Registry)}
    assert {sort.registry for sort in declared.SORTS.values()} == registries


def test_every_engine_and_method_that_there_is_is_listed_by_name(capsys):
    for sort in ("engines", "methods"):
        _, out, _ = call(capsys, "ls", sort)
        listed = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
        assert listed == list(getattr(registry, declared.SORTS[sort].registry).all())
