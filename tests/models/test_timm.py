"""Models of timm, which transformers reads by their config.json: the same laws, where timm is installed."""

import json

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import harness.kinds  # noqa: F401 (which says how their networks are run)
from harness.errors import BadInput
from harness.models.heads import IMAGE
from harness.models.pretrained import ReadAs, layout
from harness.models.vision_imports import import_timm
from harness.pools.folder_plan import plan_folder
from harness.systems.parts import MemberPart
from harness.types import Member
from tests.models.classifier_folders import LABELS, batch_of, picture

CONFIG = {
    "architecture": "resnet10t", "num_classes": 3, "label_names": list(LABELS),
    "pretrained_cfg": {"input_size": [3, 32, 32], "pool_size": [1, 1], "crop_pct": 0.95, "interpolation": "bicubic",
                       "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.2], "num_classes": 3, "classifier": "fc",
                       "first_conv": "conv1.0", "fixed_input_size": False},
}  # fmt: skip


def save(folder, seed=0, labels=LABELS):
    pytest.importorskip("timm")
    timm = import_timm()
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    module = timm.create_model("resnet10t", num_classes=len(labels))
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, folder / "model.safetensors")
    settings = {**CONFIG, "num_classes": len(labels), "label_names": list(labels)}
    settings["pretrained_cfg"] = {**CONFIG["pretrained_cfg"], "num_classes": len(labels)}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_without_timm_its_models_are_refused_in_one_line(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="the package timm is missing") as refused:
        plan_folder("m", str(folder), read_as=ReadAs(IMAGE, LABELS))
    assert "stockpot[vision]" in refused.value.hint


def test_a_model_of_timm_scores_as_in_transformers(tmp_path):
    folder = save(tmp_path / "model")
    planned = plan_folder("m", str(folder), read_as=ReadAs(IMAGE, ("good", "bad", "none")))
    part = MemberPart(Member("m", planned.architecture, planned.model.weights(), "start", 0, {}, planned.digests[0]))
    contents = [picture(k, (40 + k, 30)) for k in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    pipe = pipeline("image-classification", str(folder), device="cpu")
    with torch.inference_mode():
        found = part.log_probs(batch_of(contents, tmp_path))
    for number, row in enumerate(found):
        said = {each["label"]: each["score"] for each in pipe(str(tmp_path / f"{number}.png"), top_k=None)}
        expected = torch.tensor([said[label] for label in ("good", "bad", "none")]).log()
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)
    assert AutoImageProcessor.from_pretrained(folder)
    assert AutoModelForImageClassification.from_pretrained(folder)


def test_a_base_of_timm_for_other_labels_lends_its_body(tmp_path):
    folder = save(tmp_path / "base", labels=("no", "yes"))
    found = layout(folder, ReadAs(IMAGE, LABELS, fresh=-1))
    assert found.head.drawn == {"timm_model.fc.weight", "timm_model.fc.bias"}


def test_an_exported_model_of_timm_is_one_again(tmp_path):
    from harness.publish import export

    folder = save(tmp_path / "model", labels=("good", "bad", "none"))
    planned = plan_folder("m", str(folder), read_as=ReadAs(IMAGE, LABELS))
    member = Member("m", planned.architecture, planned.model.weights(), "start", 0, {}, planned.digests[0])
    module = MemberPart(member).module
    (tmp_path / "out").mkdir()
    export._write(module, folder, torch.float32, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architecture"] == "resnet10t"
    assert settings["label_names"] == list(LABELS)
    batch = batch_of([picture(k) for k in range(2)], tmp_path)
    assert export._same(export._read(tmp_path / "out", planned.architecture), module, batch)
