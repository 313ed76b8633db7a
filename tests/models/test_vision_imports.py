"""The packages of the extra ``vision``: missing ones are named, and a torchvision without its operators imports."""

import importlib.util
import subprocess
import sys

import pytest

from harness.errors import BadInput
from harness.models.vision_imports import import_timm

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
BROKEN = "raise RuntimeError('another fault')"


def run(folder, statement):
    command = f"import sys; sys.path.insert(0, {str(folder)!r}); {statement}"
    return subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)


def test_a_torchvision_whose_operators_cannot_load_is_imported_all_the_same(tmp_path):
    (tmp_path / "torchvision.py").write_text(WITHOUT_OPERATORS)
    assert "torchvision::nms does not exist" in run(tmp_path, "import torchvision").stderr
    done = run(
        tmp_path,
        "from harness.models.vision_imports import import_torchvision as get; "
        "assert get() is get(); import torchvision; assert torchvision.ready",
    )
    assert done.returncode == 0, done.stderr


def test_another_fault_of_torchvision_is_not_hidden(tmp_path):
    (tmp_path / "torchvision.py").write_text(BROKEN)
    done = run(tmp_path, "from harness.models.vision_imports import import_torchvision as get; get()")
    assert done.stderr.rstrip().endswith("RuntimeError: another fault")


def test_what_is_missing_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"^suite.yaml:3: the package timm is missing.*stockpot\[vision\]"):
        import_timm("suite.yaml:3")
