"""What a model's folder names is read where it lies in it, and nothing else is read or imported for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.models import confined
from harness.models.checkpoint import read_config
from harness.models.heads import IMAGE


@given(st.lists(st.sampled_from(["in", "out", "in/deep", "..", "a"]), min_size=1, max_size=3), st.booleans())
def test_a_link_is_taken_exactly_where_it_ends_in_the_folder(tmp_path_factory, names, circle):
    folder = tmp_path_factory.mktemp("model")
    (folder / "in" / "deep").mkdir(parents=True)
    target = folder.joinpath(*names)
    (folder / "link").symlink_to(folder / "link" if circle else target)
    inside = not circle and target.resolve().is_relative_to(folder)
    assert confined.lies_in(folder / "link", folder) == inside
    if inside:
        confined.check_confined(folder)
    else:
        with pytest.raises(BadInput, match="'link' is a link that leads out of the folder"):
            confined.check_confined(folder)


@pytest.mark.parametrize(
    "said",
    [
        {"architecture": "hf-hub:someone/model"},
        {"architecture": "hf_hub:someone/model"},
        {"architecture": "local-dir:/tmp/model"},
        {"architecture": "someone/model"},
        {"architecture": None},
        {"architecture": "resnet18", "model_args": {"checkpoint_path": "pickle.pth"}},
        {"architecture": "resnet18", "model_args": {"pretrained": True}},
        {"architecture": "resnet18", "model_args": {"pretrained_cfg": {"url": "http://x"}}},
        {"architecture": "resnet18", "model_args": {"pretrained_cfg_overlay": {"file": "pickle.pth"}}},
    ],
)
def test_a_configuration_of_timm_names_a_network_and_no_weights(said, tmp_path):
    """Whether or not timm is installed: it is not asked."""
    timm = {"model_type": "timm_wrapper", "pretrained_cfg": {}, "num_classes": 2}
    (tmp_path / "config.json").write_text(json.dumps(timm | said))
    with pytest.raises(BadInput, match=r"config\.json (names no network of timm's|asks timm to load other weights)"):
        read_config(tmp_path, IMAGE)


@pytest.mark.parametrize("options", [None, {}, {"depth": 3, "img_size": 224}])
def test_a_network_of_timm_is_named_with_its_sizes(options):
    confined.check_timm({"architecture": "vit_base_patch16_224.augreg", "model_args": options}, "folder")
