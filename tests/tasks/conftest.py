"""Data files of the tests are read into a cache of their own, and lm-eval's own tasks are indexed once."""

import functools
import pickle
from pathlib import Path

import datasets
import lm_eval.tasks
import pytest
from lm_eval.tasks._index import TaskIndex

OWN = Path(lm_eval.tasks.__file__).parent
build = TaskIndex.build


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@functools.cache
def _index_of_own() -> bytes:
    return pickle.dumps(build([OWN]))


@pytest.fixture(autouse=True)
def _own_tasks_indexed_once(monkeypatch):
    """Seconds, else, for every test that asks for one of them; what comes after them in the index overwrites them."""

    def remembered(paths):
        first, *others = paths
        return {**pickle.loads(_index_of_own()), **build(others)} if first == OWN else build([first, *others])

    monkeypatch.setattr(TaskIndex, "build", staticmethod(remembered))
