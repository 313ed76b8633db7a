"""What no person means is refused with its figure, before anything is made of it."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.models.architectures import build
from harness.models.training import Schedule
from harness.pools.source import PoolPlan
from harness.pools.training import TrainingPlan
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.strict import yaml
from harness.suite import bounds
from harness.suite.suite import read_suite
from harness.types import Architecture
from tests.examples import examples

SUITE = """suite: tiny
task: digits
pool:
  train: {{architecture: mlp, start: shared_base, members: {members}, epochs: {epochs}, options: {options}}}
seeds: {seeds}
methods:
  - best_single
  - ties: {{density: {density}, scale: {scale}}}
"""
USUAL = {"members": 2, "epochs": 1, "seeds": [0], "density": [0.5], "scale": [1.0], "options": "{}"}


def many(count):
    return [round(0.001 + k / (2 * count), 9) for k in range(count)]


@pytest.mark.parametrize(
    ("asks", "line", "figure"),
    [
        ({"members": 1_000_000}, 3, "1,000,000 members"),
        ({"members": "9" * 18}, 3, "999,999,999,999,999,999 members"),
        ({"seeds": list(range(20_000))}, 5, "20,000 seeds"),
        ({"members": 9_000, "seeds": list(range(100))}, 5, "900,000 members over all seeds"),
        ({"density": many(299), "scale": many(299)}, 8, "89,402 variants"),
        ({"density": many(100), "scale": many(10), "seeds": list(range(500))}, 8, "500,500 variants over all seeds"),
        ({"epochs": "9" * 400}, 4, "a number of 400 digits is too long"),
        ({"epochs": 2**63}, 4, "a number of 19 digits is too long"),
        ({"options": "{hidden: 1e12}"}, 4, "'hidden' is 1,000,000,000,000.0"),
        ({"options": f"{{hidden: {2**40}}}"}, 4, "'hidden' is 1,099,511,627,776"),
    ],
)
def test_too_much_is_refused_with_its_figure_and_line(asks, line, figure, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.format(**{**USUAL, **asks}))
    with pytest.raises(BadInput, match=re.escape(figure)) as refused:
        read_suite(path)
    assert refused.value.place == f"{path}:{line}"


@pytest.mark.parametrize(("hidden", "figure"), [(10**6, "4.00 TB"), (10**7, "400.00 TB")])
def test_a_network_that_no_memory_holds_is_refused_with_its_bytes_and_its_line(hidden, figure, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.format(**{**USUAL, "options": f"{{hidden: {hidden}}}"}))
    with pytest.raises(BadInput, match=f"weights of {re.escape(figure)}") as refused:
        make_plan(read_suite(path), Options(out=tmp_path / "results"))
    assert refused.value.place == f"{path}:4"


@given(st.integers(1, 64), st.integers(-1, 1))
@examples(20)
def test_a_network_is_refused_just_where_its_weights_are_more_than_the_memory(hidden, more):
    made = Architecture("mlp", (("classes", 10), ("hidden", hidden), ("side", 8)))
    weights = sum(tensor.nbytes for tensor in build(made).state_dict().values())
    member = TrainingPlan("m0", made, Schedule(1), "data")
    pool = PoolPlan("main", "independent", (member,), None)
    if more < 0:
        with pytest.raises(BadInput, match="all memory"):
            bounds.check_weights(pool, {"classes": 10, "side": 8}, weights + more)
    else:
        bounds.check_weights(pool, {"classes": 10, "side": 8}, weights + more)


@given(st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(0, 60), max_size=3)), max_size=6), st.integers(1, 9))
def test_as_many_variants_are_counted_as_would_be_made(items, seeds):
    counted, made = bounds.Counted(range(seeds)), 0
    for sets, lengths in items:
        made += sets * len([None for _ in _product(lengths)])
        options = {f"key {k}": list(range(length)) for k, length in enumerate(lengths)} | {"plain": 0.5}
        fits = made <= bounds.VARIANTS and made * seeds <= bounds.ROWS
        if not fits:
            with pytest.raises(BadInput):
                counted.add(options, sets, "here")
            return
        counted.add(options, sets, "here")
    assert counted.variants == made


def _product(lengths):
    if not lengths:
        return [()]
    return [(k, *rest) for k in range(lengths[0]) for rest in _product(lengths[1:])]


@pytest.fixture
def odd_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**30)  # no block of it is on disk
    return {
        "pipe": (tmp_path / "pipe", "no plain file"),
        "device": ("/dev/zero", "no plain file"),
        "folder": (tmp_path, "cannot be read"),
        "large": (tmp_path / "large", "1,073,741,824 bytes"),
        "long": (tmp_path / ("a" * 300), "File name too long"),
    }


@pytest.mark.parametrize("which", ["pipe", "device", "folder", "large", "long"])
def test_a_file_that_is_none_or_is_endless_is_refused_unread(which, odd_files):
    path, problem = odd_files[which]
    with pytest.raises(BadInput, match=problem):
        yaml.read(type(odd_files["pipe"][0])(path))
