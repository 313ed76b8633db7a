"""Every method on classifiers in folders of every family: it applies, or says why not; merges equal mergekit's."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from torch import nn

from harness.checks.pools import built
from harness.errors import BadInput
from harness.evaluate.predictions import predict
from harness.merging.permutations import interchangeable, reordered
from harness.models import forward
from harness.models.architectures import build, half_size
from harness.models.configuration import config_of, head_of, like, reader_of, settings_of
from harness.models.raw import contents
from harness.models.readers import pixels_of
from harness.models.weights import load_module, module_with
from harness.registry import METHODS
from harness.systems.dropout import StochasticNetwork, has_dropout
from harness.systems.parts import MemberPart
from harness.types import Architecture, NotApplicable, Pool
from tests.examples import PROFILE
from tests.methods.classifier_pools import as_kind, folders, pool, splits
from tests.models.classifier_folders import FAMILIES

NO_EXPERTS = dict.fromkeys(
    ("moe", "expert_merge", "upcycle", "recipe"),
    "(sequence|image)_classifier has no hidden layer that can be split into experts here",
)
WHY_NOT = {
    **NO_EXPERTS,
    "align_average": "which units of a '(bert|distilbert|roberta|modernbert|vit|convnext|resnet)' can change places is",
    "mc_dropout": "has no dropout",
    "self_consistency": "it answers in writing",
    "refine": "is a classifier: it has no text to revise",
}
"""Methods that do not apply to some families, and the reason."""
DROPS = ("bert", "distilbert", "roberta")
"""Families whose usual configuration has dropout."""


def refused(family):
    applies = {"align_average": ["llama"], "mc_dropout": DROPS, "self_consistency": [], "refine": []}
    applies |= {name: [] for name in NO_EXPERTS}
    return {name for name, families in applies.items() if family not in families}


def apply(name, family, parameters, seed=5, given=None):
    method, of = METHODS.get(name), splits(family)
    given = given or pool(family)
    if method.pool != "any":
        given = as_kind(given, method.pool)
    return built(method, parameters, given, train_=of["train"], heldout_=of["heldout"], seed=seed)


def on_test(combination, family):
    return predict(combination.log_probs, splits(family)["test"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS.all())
def test_every_method_applies_to_every_family_or_says_why_not(name, family):
    for parameters in METHODS.get(name).small[: 1 if PROFILE == "fixed" else None]:
        if name in refused(family):
            with pytest.raises(NotApplicable, match=WHY_NOT[name]):
                on_test(apply(name, family, parameters), family)
            continue
        found = on_test(apply(name, family, parameters), family)
        assert found.shape == (len(splits(family)["test"]), 3)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(len(found)))


# Merges.


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
@pytest.mark.parametrize(
    ("name", "ours", "theirs", "count"),
    [
        ("uniform_soup", {}, {"merge_method": "linear", "parameters": {"weight": 1.0}}, 3),
        ("task_arithmetic", {"coefficients": [0.3, 0.3, 0.3], "scale": 1.0},
         {"merge_method": "task_arithmetic", "parameters": {"weight": 0.3}}, 3),
        ("ties", {"density": 0.4, "dialect": "mergekit", "weights": [1.0, 1.0, 1.0]},
         {"merge_method": "ties", "parameters": {"weight": 1.0, "density": 0.4, "normalize": True}}, 3),
        ("slerp", {"t": 0.3}, {"merge_method": "slerp", "parameters": {"t": 0.3}}, 2),
    ],
    ids=["linear", "task_arithmetic", "ties", "slerp"],
)
def test_a_merge_of_folders_is_mergekits(family, name, ours, theirs, count, tmp_path):
    base, *members = map(str, folders(family))
    models = members[:count]
    settings = {**theirs, "dtype": "float32", "models": [{"model": model} for model in models]}
    if theirs["merge_method"] != "linear":
        settings["base_model"] = models[0] if theirs["merge_method"] == "slerp" else base
    options = MergeOptions(copy_tokenizer=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(settings), str(tmp_path), options)
    expected, found = load_file(tmp_path / "model.safetensors"), apply(name, family, ours).module.state_dict()
    assert expected.keys() == found.keys()
    for each in expected:
        torch.testing.assert_close(found[each], expected[each], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_without_a_head_for_the_labels_counts_as_zeros_and_merges_say_so(family):
    headless, whole = pool(family, 2, True), pool(family, 2)
    drawn = headless.base.weights._layout.head.drawn
    coefficients = {"coefficients": [0.5, 0.25], "scale": 1.0}
    found, usual = (apply("task_arithmetic", family, coefficients, given=of) for of in (headless, whole))
    for name, tensor in found.module.state_dict().items():
        if name in drawn:
            one, two = (member.weights[name] for member in headless.members)
            torch.testing.assert_close(tensor, 0.5 * one + 0.25 * two)
        elif "running" not in name and "num_batches" not in name:
            assert torch.equal(tensor, usual.module.state_dict()[name])
    words = "the base has no head for the task's labels"
    assert any(words in each for each in found.details["warnings"])
    assert "warnings" not in usual.details
    assert any(words in each for each in apply("uniform_soup", family, {}, given=headless).details["warnings"])


def test_members_that_read_examples_differently_are_not_merged():
    one, two = pool("bert").members[0], pool("bert").members[1]
    reader = replace(reader_of(two.architecture), digest="of another tokenizer")
    options = tuple((key, reader if key == "reader" else value) for key, value in two.architecture.options)
    other = replace(two, architecture=Architecture(two.architecture.name, options))
    with pytest.raises(NotApplicable, match="m0 and m1: they read examples with different tokenizers"):
        apply("uniform_soup", "bert", {}, given=Pool("main", "fine_tunes", (one, other)))


def test_a_merge_of_resnets_has_the_statistics_of_its_own_inputs():
    """Layer by layer in float64: mean and variance over the training images of what each BatchNorm layer is given."""
    module = apply("uniform_soup", "resnet", {}).module
    module64, given = deepcopy(module).double(), {}
    layers = {name: layer for name, layer in module64.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    for name, layer in layers.items():
        layer.train()
        layer.register_forward_pre_hook(lambda _, inputs, name=name: given.update({name: inputs[0]}))
    train = splits("resnet")["train"]
    with torch.no_grad():
        reader = reader_of(pool("resnet").members[0].architecture)
        module64(pixel_values=pixels_of(contents(train.inputs), reader).double())
    assert len(layers) == len(given) == 8
    for name, inputs in given.items():
        found = module.get_submodule(name)
        axes = (0, 2, 3)
        torch.testing.assert_close(found.running_mean.double(), inputs.mean(axes), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.running_var.double(), inputs.var(axes), rtol=1e-4, atol=1e-5)


def test_aligning_reorders_the_units_of_a_llama_that_classifies_and_changes_no_score():
    member = pool("llama").members[0]
    module = load_module(member)
    layers = interchangeable(module)
    weights = dict(member.weights)
    generator = torch.Generator().manual_seed(0)
    for units in layers:
        groups = torch.randperm(units.size // units.group, generator=generator)
        weights = reordered(weights, units, (groups.unsqueeze(1) * units.group + torch.arange(units.group)).flatten())
    assert not torch.equal(weights["score.weight"], member.weights["score.weight"])
    test = splits("llama")["test"].inputs
    other = module_with(member.architecture, weights)
    torch.testing.assert_close(forward.log_probs(other, test), forward.log_probs(module, test), rtol=0, atol=1e-5)


# Students and dropout.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_half_the_size_has_half_the_widths_and_starts_as_transformers_starts_it(family):
    first = pool(family).members[0].architecture
    half = half_size(first)
    whole, small = (config_of(settings_of(each)) for each in (first, half))
    if hasattr(whole, "hidden_size"):
        assert small.hidden_size * 2 == whole.hidden_size
        assert small.num_hidden_layers == whole.num_hidden_layers
    else:
        assert [2 * each for each in small.hidden_sizes] == list(whole.hidden_sizes)
    assert reader_of(half) == reader_of(first)
    torch.manual_seed(3)
    ours = build(half).state_dict()
    torch.manual_seed(3)
    theirs = head_of(half).reader.from_config(small).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    found = apply("distill", family, {"epochs": 1, "size": "half"})
    assert on_test(found, family).isfinite().all()


def test_where_a_configuration_allows_no_half_a_student_is_refused():
    for settings, words in (({"num_attention_heads": 1}, "num_attention_heads is 1, which has no half"),
                            ({"hidden_size": 18, "num_attention_heads": 6}, "no half|cannot|can be built|multiple")):
        first = pool("bert").members[0].architecture
        changed = like(first, type(config_of(settings_of(first)))(**{**settings_of(first), **settings}))
        with pytest.raises(BadInput, match=words):
            half_size(half_size(changed))


def test_a_student_of_the_same_size_learns_what_its_teachers_say():
    family = "distilbert"
    target = predict_mean(family)
    apart = []
    for epochs in (1, 60):
        student = apply("distill", family, {"epochs": epochs, "alpha": 1.0, "lr": 5e-3})
        apart.append(float((predict(student.log_probs, splits(family)["train"]).exp() - target).abs().mean()))
    assert apart[1] < 0.5 * apart[0]


def predict_mean(family):
    parts = [MemberPart(member) for member in pool(family).members]
    return torch.stack([predict(part.log_probs, splits(family)["train"]).exp() for part in parts]).mean(0)


@pytest.mark.parametrize("family", DROPS)
def test_dropout_reaches_attention_too(family):
    """With the rates of all other layers at 0 the passes still differ, and with those of attention at 0 they agree."""
    key = "attention_dropout" if family == "distilbert" else "attention_probs_dropout_prob"
    module = load_module(pool(family).members[0])
    batch = splits(family)["test"].inputs
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    assert not has_dropout(module)
    attention = [part for part in module.modules() if type(part).__name__.endswith("SelfAttention")]
    assert attention, key
    for part in attention:
        part.dropout.p = 0.5
    one, two, again = (forward.log_probs(StochasticNetwork(module, seed), batch) for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, two, atol=1e-4)
    assert not any(part.training for part in module.modules())
