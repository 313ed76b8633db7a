"""The packages of the extra ``vision``: missing ones are named, and a torchvision without its operators imports."""

import importlib.util
import subprocess
import sys

import pytest

from harness.errors import BadInput
from harness.models.vision_imports import import_timm, import_torchvision

WITHOUT_OPERATORS = """
import torch

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    raise AssertionError

@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    raise AssertionError

ready = True
"""
IMPORTED = """
import sys
sys.path.insert(0, sys.argv[1])
try:
    import torchvision
except RuntimeError as error:
    assert "torchvision::nms does not exist" in str(error)
else:
    raise AssertionError("nothing is wrong with it")
from harness.models.vision_imports import import_torchvision
assert import_torchvision() is import_torchvision()
import torchvision
assert torchvision.ready
"""


def test_a_torchvision_whose_operators_cannot_load_is_imported_all_the_same(tmp_path):
    """In a process of its own, for what is declared stays."""
    (tmp_path / "torchvision.py").write_text(WITHOUT_OPERATORS)
    command = [sys.executable, "-c", IMPORTED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_fault_of_torchvision_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('another fault')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(RuntimeError, match="another fault"):
        import_torchvision()


def test_what_is_missing_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"^suite.yaml:3: the package timm is missing.*stockpot\[vision\]"):
        import_timm("suite.yaml:3")
