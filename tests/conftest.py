"""What holds for every test process: one thread, for tensors are small and each core has a process; which examples."""

import gc
import logging
import os
from types import SimpleNamespace

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch and numpy start theirs
    os.environ.setdefault(_variable, "1")

import pytest  # noqa: E402
from torch.utils import collect_env  # noqa: E402

from harness.models.vision_imports import mend_torchvision  # noqa: E402

mend_torchvision()  # before any test imports transformers
os.fsync = lambda descriptor: None  # no test cuts the power, and a busy disk would take a tenth of their time
collect_env.get_pretty_env_info = lambda: "not asked"  # lm-eval starts a dozen programs for it at every evaluation

import tests.examples  # noqa: E402, F401 (for tests that name no number)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file whose fixtures take longest goes first: at the end, workers would share its tests and each make them."""
    items.sort(key=lambda item: item.path.name != "test_plugins.py")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect no garbage among what is imported, now or later: libraries ask for whole collections, at every call some.

    Two thirds as much time again would go to walking through libraries and tests while they come in, which all stay.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)  # as the command does
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _moments(request):
    """Runs in this process time their variants for a moment: what times say is tested on planted ones.

    Where a test says that memory has run out, or measures it here, no garbage is looked for: it takes half a second
    among all tests. What memory says is tested in processes of their own.
    """
    from harness import exhausted
    from harness.cost import latency, memory

    with pytest.MonkeyPatch.context() as patch:
        for module in (exhausted, memory):
            patch.setattr(module, "gc", SimpleNamespace(collect=lambda: 0))
        if not request.config.getoption("benchmark_only"):  # make perf
            patch.setattr(latency, "SECONDS_ALONE", 0.02)
            patch.setattr(latency, "SECONDS_FULL", 0.02)
        yield


@pytest.fixture(scope="module")
def few_windows():
    """For runs of language models in this process: to tokenise as much text as methods are fitted on takes seconds."""
    from harness.tasks import text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "WINDOWS", {"train": 12, "heldout": 3, "test": 2})
        yield


@pytest.fixture(scope="module")
def undrawn():
    """For tests of what reports say: figures are made, and not drawn, which takes more than all the rest of a page."""
    from harness.report import document

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "render", lambda figure: {"svg": b"<svg/>", "png": b""})
        yield


@pytest.fixture(scope="module", name="in_this_process")
def _in_this_process():
    """For tests of what runs leave, not of the processes that made it."""
    from tests.inline import in_this_process

    with in_this_process():
        yield


@pytest.fixture
def page_faults(monkeypatch):
    """The cost of a plug-in, which is installed while the test runs."""
    from harness.registry import COSTS
    from tests.cost.plug_in import declare

    monkeypatch.setattr(COSTS, "_known", dict(COSTS.all()))
    declare()
    return COSTS.get("page_faults")


@pytest.fixture
def logged():
    """The messages of warnings, as they are logged; pytest's own plugin for it takes a millisecond of every test."""
    messages: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    handler = Kept(logging.WARNING)
    logging.getLogger().addHandler(handler)
    yield messages
    logging.getLogger().removeHandler(handler)
