"""Adapters on classifiers are what PEFT runs, in the task's order of labels, and bring the head that a base lacks."""

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification

from harness.errors import BadInput
from harness.models import forward
from harness.models.heads import IMAGE, SEQUENCE
from harness.models.pretrained import ReadAs
from harness.models.weights import load_module, module_with
from harness.pools.folders import HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.store import Store
from tests.models.tiny_classifiers import IMAGES, SETTINGS, classifier, examples, save_reader

OWN, TASK = ("ham", "spam", "eggs"), ("eggs", "ham", "spam")
ORDER = [2, 0, 1]
"""Of each label of the task, its row in the folder's own order."""
TARGETS = {"bert": ["query", "value"], "distilbert": ["q_lin", "v_lin"], "vit": ["q_proj", "fc1"],
           "resnet": ["convolution"]}  # fmt: skip
SAVED = {"resnet": ["classifier.1"]}


def auto(kind):
    return AutoModelForImageClassification if kind in IMAGES else AutoModelForSequenceClassification


def lora(kind, **settings):
    given = {"r": 3, "target_modules": TARGETS[kind], "modules_to_save": SAVED.get(kind, ["classifier"])}
    return peft.LoraConfig(**{**given, "task_type": None if kind in IMAGES else "SEQ_CLS", **settings})


def put(folder, base, kind, config, seed=1, **loading):
    """A trained-looking adapter in a folder."""
    torch.manual_seed(seed)
    module = peft.get_peft_model(auto(kind).from_pretrained(base, **loading), config)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    module.save_pretrained(folder)
    return folder


def pool_of(kind, base, *members, labels=TASK, names=()):
    read_as = ReadAs(IMAGE if kind in IMAGES else SEQUENCE, labels=labels, names=names)
    planned = plan_folders("main", HfPool(base=str(base), members=[str(member) for member in members]), read_as)
    return load_pool(planned, Store(base.parent))


def logits(module, like, batch):
    """Of any model of transformers, which reads examples as the member ``like`` does."""
    with torch.inference_mode():
        marked = forward.as_read_by(getattr(like, forward.MARK), module.eval(), forward.reader_of(like))
        return forward.logits(marked, batch)


VARIANTS = {
    "plain": {},
    "patterns": {"rank_pattern": {"1.*": 2}, "alpha_pattern": {"0.*": 5}, "use_rslora": True},
    "DoRA": {"use_dora": True},
    "all biases": {"bias": "all"},
    "biases of what is adapted": {"bias": "lora_only"},
    "all linear": {"target_modules": "all-linear", "exclude_modules": ["pre_classifier"]},
}
"""(PEFT saves whatever ends in "classifier", and cannot have factors for it as well.)"""


ALL = [(kind, name) for kind in SETTINGS for name in VARIANTS if (kind, name) != ("resnet", "all linear")]
"""(A ResNet's one linear layer is its head, which is saved.)"""


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_member_is_pefts_model_with_its_labels_in_the_tasks_order(kind, name, tmp_path):
    base = classifier(kind, tmp_path / "base", OWN)
    folder = put(tmp_path / "adapter", base, kind, lora(kind, **VARIANTS[name]))
    batch, (member,) = examples(kind, tmp_path), pool_of(kind, base, folder).members
    theirs = peft.PeftModel.from_pretrained(auto(kind).from_pretrained(base), folder)
    ours = load_module(member)
    unmerged = logits(theirs.get_base_model(), ours, batch)[:, ORDER]
    merged = logits(theirs.merge_and_unload(), ours, batch)[:, ORDER]
    plain = logits(auto(kind).from_pretrained(base), ours, batch)[:, ORDER]
    tolerance = 1e-5 * float(unmerged.abs().max())
    assert (unmerged - plain).abs().max() > 1000 * tolerance
    for module in (ours, module_with(member.architecture, member.weights)):
        found = logits(module, ours, batch)
        torch.testing.assert_close(found, unmerged, rtol=0, atol=tolerance)
        torch.testing.assert_close(found, merged, rtol=0, atol=tolerance)


OTHERS = {
    "ia3": peft.IA3Config(target_modules=["value", "output.dense"], feedforward_modules=["output.dense"]),
    "loha": peft.LoHaConfig(target_modules=["value"]),
    "lokr": peft.LoKrConfig(target_modules=["value"]),
    "oft": peft.OFTConfig(target_modules=["value"], oft_block_size=8),
    "vera": peft.VeraConfig(target_modules=["value"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_adapters_on_weights_of_a_classifier(name, tmp_path):
    base = classifier("bert", tmp_path / "base", OWN)
    folder = put(tmp_path / "adapter", base, "bert", OTHERS[name])
    batch, (member,) = examples("bert", tmp_path), pool_of("bert", base, folder).members
    theirs = peft.PeftModel.from_pretrained(auto("bert").from_pretrained(base), folder)
    ours = load_module(member)
    expected = logits(theirs.get_base_model(), ours, batch)[:, ORDER]
    torch.testing.assert_close(logits(ours, ours, batch), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def headless(tmp_path):
    """A base without a head, and an adapter that was trained on it with one that was drawn."""
    classifier("bert", tmp_path / "whole", OWN)
    AutoModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "base")
    save_reader("bert", tmp_path / "base")
    put(tmp_path / "adapter", tmp_path / "base", "bert", lora("bert"), num_labels=3)
    return tmp_path


def test_the_head_is_the_adapters_where_its_base_has_none_and_the_pool_names_its_labels(headless):
    base, folder = headless / "base", headless / "adapter"
    batch, (member,) = examples("bert", headless), pool_of("bert", base, folder, names=OWN).members
    theirs = peft.PeftModel.from_pretrained(auto("bert").from_pretrained(base, num_labels=3), folder)
    ours = load_module(member)
    expected = logits(theirs.get_base_model(), ours, batch)[:, ORDER]
    torch.testing.assert_close(logits(ours, ours, batch), expected, rtol=0, atol=1e-5)
    numbered = load_module(pool_of("bert", base, folder, labels=("0", "1", "2")).members[0])
    torch.testing.assert_close(logits(numbered, ours, batch)[:, ORDER], expected, rtol=0, atol=1e-5)


def test_an_order_of_labels_that_nobody_names_is_not_guessed(headless):
    with pytest.raises(BadInput, match="its labels have no names, and the task's are eggs, ham, spam; 'labels' beside"):
        pool_of("bert", headless / "base", headless / "adapter")


def test_an_adapter_that_lacks_the_head_that_its_base_lacks_is_refused(headless):
    config = peft.LoraConfig(r=2, target_modules=["query", "classifier"])
    folder = put(headless / "none", headless / "base", "bert", config, num_labels=3)
    with pytest.raises(BadInput, match=r"neither the adapter nor its base has 'classifier\.bias'") as caught:
        pool_of("bert", headless / "base", folder, names=OWN)
    assert "\n" not in str(caught.value)


def test_an_adapter_for_other_labels_is_refused(headless):
    folder = put(headless / "five", headless / "base", "bert", lora("bert"), num_labels=5)
    with pytest.raises(BadInput, match="size mismatch"):
        pool_of("bert", headless / "base", folder, names=OWN)
    with pytest.raises(BadInput, match="the task's are eggs, ham, toast"):
        pool_of("bert", headless / "whole", headless / "adapter", labels=("eggs", "ham", "toast"))


def test_adapters_that_add_inputs_to_a_classifier_are_refused(tmp_path):
    base = classifier("bert", tmp_path / "base", OWN)
    folder = put(tmp_path / "adapter", base, "bert", peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3))
    with pytest.raises(BadInput, match="adds inputs, not weights"):
        pool_of("bert", base, folder)


def test_an_adapter_that_changes_nothing_is_named(tmp_path):
    """Though its head is saved in another order than the task's."""
    base = classifier("vit", tmp_path / "base", OWN)
    folder = put(tmp_path / "adapter", base, "vit", lora("vit"))
    for name, words in (("as saved", []), ("zeroed", ["changes nothing"])):
        file = folder / "adapter_model.safetensors"
        if name == "zeroed":
            head = auto("vit").from_pretrained(base).classifier.state_dict()
            stored = load_file(file)
            stored = {k: head[k.rpartition(".")[2]] if "classifier" in k else v * 0 for k, v in stored.items()}
            save_file(stored, file, {"format": "pt"})
        plan = plan_folders("main", HfPool(base=str(base), members=[str(folder)]), ReadAs(IMAGE, labels=TASK))
        model = plan.members[0].model
        notes = model.examine(model.weights().module())
        assert [word for word in ["changes nothing"] if any(word in note for note in notes)] == words
