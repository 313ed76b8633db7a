"""What models will need, against what they then take: live tensors counted, and the kernel's own figure."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.cost import forecast
from harness.cost.forecast import Need
from harness.cost.memory import _reset_peak
from harness.models.architectures import build
from harness.models.image_networks import NETWORKS
from harness.types import Architecture
from tests.cost.fresh import printed
from tests.examples import examples

linux = pytest.mark.skipif(not _reset_peak(), reason="this kernel does not let a process forget its peak")


need = partial(forecast.need, device=torch.device("cpu"))


def architecture(name, **options):
    return Architecture(name, tuple(sorted(options.items())))


CNN = architecture("small_cnn", side=28, classes=10)
LLAMA = architecture("tiny_llama", vocab=300, hidden=48, layers=2)
WINDOWS = torch.zeros(4, 33, dtype=torch.int64)


class Wide(torch.nn.Module):
    """Two layers whose needs can be written down: [B, 10] -> [B, 1000] -> [B, 20]."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(10, 1000), torch.nn.Linear(1000, 20)
        self.register_buffer("seen", torch.zeros(7))

    def forward(self, batch):
        return self.second(self.first(batch))


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setitem(NETWORKS, "wide", Wide)
    return architecture("wide")


def test_needs_that_can_be_written_down(wide):
    found = need(wide, torch.zeros(50, 10))
    assert found.parameters == 10 * 1000 + 1000 + 1000 * 20 + 20
    assert found.weights == 4 * (found.parameters + 7)
    assert found.loading == 4 * 1000 * 20
    hidden, logits = 4 * 1000, 4 * 20
    assert found.one == hidden + logits  # the second layer's output is made while the first's is still held
    # of two, there is room for both predictions when the second is made
    assert found.two == hidden + 3 * logits
    assert found.more == logits


@pytest.mark.parametrize(("made", "inputs"), [(CNN, torch.zeros(16, 1, 28, 28)), (LLAMA, WINDOWS)], ids=str)
def test_nothing_is_allocated_and_the_count_is_that_of_the_real_model(made, inputs):
    module = build(made)
    found = need(made, inputs)
    assert found.parameters == sum(p.numel() for p in module.parameters())  # tied weights are one
    held = {*module.parameters(), *module.buffers()}
    assert found.weights == sum(t.numel() * t.element_size() for t in held)
    twice = need(made, inputs.repeat(2, *[1] * (inputs.dim() - 1)))
    assert twice.one == pytest.approx(found.one, rel=0.01)  # in proportion to the batch
    assert twice.more == pytest.approx(found.more, rel=0.01)


def test_a_model_far_too_large_for_this_machine_is_no_trouble():
    found = need(architecture("tiny_llama", vocab=128_000, hidden=65_536, layers=1, heads=64), WINDOWS)
    assert found.weights > 100e9


needs = st.builds(
    Need,
    parameters=st.just(1),
    weights=st.integers(10**6, 10**9),
    loading=st.integers(0, 10**6),
    one=st.floats(1, 1e6),
    two=st.floats(1e6, 2e6),
    more=st.floats(1, 1e6),
)


@given(needs, st.integers(1, 20), st.integers(1, 500), st.floats(0, 1e11))
@examples(200)
def test_the_largest_fits_and_one_more_does_not(one, models, batch, room):
    largest = one.largest_batch(models, room)
    if largest:
        assert one.bytes(models, largest) <= room + 1
    assert one.bytes(models, largest + 1) > room - 1 - abs(room) * 1e-9
    members = one.largest_ensemble(batch, room)
    if members:
        assert one.bytes(members, batch) <= room + 1
    assert one.bytes(members + 1, batch) > room - 1 - abs(room) * 1e-9


REAL = """
import sys, torch
from harness.systems.systems import OutputCombination
from harness.systems.rules import Linear
from harness.cost.forecast import need
from harness.cost.memory import peak_memory
from harness.models import forward
from harness.models.architectures import build
from harness.types import Architecture, Part

torch.set_num_threads(1)
CASES = {
    "images": (Architecture("small_cnn", (("classes", 10), ("side", 28))), torch.zeros(1, 1, 28, 28)),
    "text": (Architecture("tiny_llama", (("vocab", 2000),)), torch.zeros(1, 65, dtype=torch.int64)),
}
architecture, one = CASES[sys.argv[1]]
models, device = int(sys.argv[2]), torch.device(sys.argv[3])
found = need(architecture, one.repeat(8, *[1] * (one.dim() - 1)), device)
room = found.bytes(models, 1) + 64e6
inputs = one.repeat(found.largest_batch(models, room), *[1] * (one.dim() - 1)).to(device)

class Here(Part):
    name = digest = "here"
    def __init__(self):
        self.held = build(architecture).to(device).eval()
    @property
    def module(self):
        return self.held
    def log_probs(self, batch):
        return forward.log_probs(self.module, batch)

def work():
    rule = Linear(torch.full((models,), 1 / models, device=device))
    system = OutputCombination([Here() for _ in range(models)], rule)
    with torch.inference_mode():
        system.log_probs(inputs)

print(peak_memory(work, device, warm_up=work).working_bytes / room)
"""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@linux
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "models"), [("images", 1), ("images", 3), ("text", 1), ("text", 3)])
def test_the_largest_batch_really_takes_its_room_and_no_more(kind, models, device):
    """In a fresh process: an ensemble on the largest batch that was to fit, of what it was to fit in."""
    assert 0.85 < float(printed(REAL, kind, str(models), device)) < 1.08
