"""Heads on pretrained image networks: folded standardisation, weights in timm's order, folders that timm loads."""

import importlib.util
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from harness.tasks.archives import EFFICIENTNET_LITE, FASHION_MNIST
from tests.suites.script import load_script

if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torchvision") is None:
    pytest.skip("the extra vision is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def script():
    return load_script("vision", EFFICIENTNET_LITE[0], FASHION_MNIST)


def test_a_folded_head_says_what_scikit_learn_says_on_standardised_features(script):
    rng = np.random.default_rng(0)
    features = rng.normal(2.0, [1.0, 5.0, 0.5], size=(300, 3))
    labels = (features @ [1.0, 0.2, -2.0] + rng.normal(size=300) > 1.4).astype(int) + (features[:, 1] > 5)
    weights, biases = script.fit_head(features, labels, 0.1, seed=4)
    rows = np.random.default_rng(4).integers(300, size=300)
    scaler = StandardScaler().fit(features)
    scaler.scale_ += 1e-3
    oracle = LogisticRegression(C=0.1, max_iter=300).fit(scaler.transform(features)[rows], labels[rows])
    assert np.allclose(features @ weights.T + biases, oracle.decision_function(scaler.transform(features)))


def test_a_member_that_timm_loads_says_what_its_head_says_of_its_features(script, tmp_path):
    timm, network = script.timm, script.load_backbone(0)
    images = script.make_splits()["heldout"]["image"][:8]
    features = script.features_of(network, images)
    weights = np.random.default_rng(0).normal(size=(features.shape[1], len(script.CLASSES))).T / 30
    biases = np.arange(len(script.CLASSES)) / 10
    script.write_member(network, weights, biases, tmp_path)
    member = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(member))
    batch = torch.stack([prepare(Image.open(io.BytesIO(content)).convert("RGB")) for content in images])
    with torch.no_grad():
        logits = member(batch).numpy()
    assert np.allclose(logits, features @ weights.T + biases, atol=1e-4)
    assert member.pretrained_cfg["label_names"] == list(script.CLASSES)
