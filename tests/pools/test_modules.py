"""Pools of networks that a user's function builds: they say what the network says that is run by hand."""

import io
import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast, ViTImageProcessor

from harness.checks import pools
from harness.checks.tasks import tried
from harness.errors import BadInput
from harness.evaluate.predictions import predict, predictions_key
from harness.keys import file_digest
from harness.models.architectures import build
from harness.models.heads import IMAGE, SEQUENCE
from harness.models.own_networks import family_for
from harness.models.raw import rows_of, write_blob
from harness.models.readers import reader_in
from harness.models.weights import save_network
from harness.pools.modules import ModulePool
from harness.pools.pool import load_pool, member_digests
from harness.registry import KINDS, METHODS, SOURCES
from harness.store import Store
from harness.suite.suite import read_suite
from harness.systems.parts import MemberPart
from harness.tasks.labelled import LabelledTask
from harness.types import Architecture, NotApplicable, Split
from tests.pools.planted_module import NET, SPEC, twin, write_code, write_pool
from tests.small_gguf import trained_tokenizer

MODULES = SOURCES.get("module")


@pytest.fixture
def folder(tmp_path):
    write_pool(tmp_path)
    return tmp_path


def planned(folder, task=None, check=True, **changes):
    spec = MODULES.beside(ModulePool.model_validate({**SPEC, **changes}), folder)
    plan = MODULES.plan("main", spec, task or tried("digits").task, 0)
    for member in plan.everyone if check else ():
        member.check(task or tried("digits").task, "main")
    return plan


def loaded(folder, **changes):
    return load_pool(planned(folder, **changes), Store(folder / "store"))


def said(member, split):
    return predict(MemberPart(member).log_probs, split)


def by_hand(network, inputs):
    with torch.inference_mode():
        return torch.log_softmax(network.eval()(inputs), dim=-1)


# What members say


def test_members_say_what_their_networks_say(folder):
    pool, networks, test = loaded(folder), write_pool(folder), tried("digits").task.test
    for name, member in zip(networks, (pool.base, *pool.members), strict=True):
        torch.testing.assert_close(said(member, test), by_hand(networks[name], test.inputs), rtol=0, atol=1e-6)
    assert {member.start for member in pool.members} == {pool.base.digest} == {pool.base.start}
    assert pool.kind == "fine_tunes"
    alone = loaded(folder, base=None)
    assert alone.kind == "independent"
    assert len({member.start for member in alone.members}) == 2


def test_half_precision_is_widened(folder):
    network = twin(5).bfloat16()
    save_file(network.state_dict(), folder / "half.safetensors")
    (member,) = loaded(folder, base=None, members=["half.safetensors"]).members
    assert {tensor.dtype for tensor in member.weights.values()} == {torch.bfloat16, torch.int64}
    test = tried("digits").task.test
    torch.testing.assert_close(said(member, test), by_hand(network.float(), test.inputs), rtol=0, atol=1e-6)


def raw_task(kind, contents, folder):
    """Three labels; all splits are the same examples."""
    places = write_blob(contents, folder / "examples.bin")
    inputs = rows_of(folder / "examples.bin", file_digest(folder / "examples.bin"), places)
    labels = torch.arange(len(contents)) % 3
    ids = [str(row) for row in range(len(contents))]
    splits = [Split(name, inputs, labels, ids, name, batch=4, kind=kind) for name in ("train", "heldout", "test")]
    return LabelledTask(kind, "raw", "", "", 3, {}, *splits, "digest", {}, labels=("a", "b", "c"))


class Words(nn.Module):
    """The mean of the words' embeddings, padding left out."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(400, 6), nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask):
        seen = attention_mask.unsqueeze(-1)
        return self.out((self.words(input_ids) * seen).sum(1) / seen.sum(1))


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        return self.out(self.conv(images).relu().mean((2, 3)))


BODIES = """
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

class Words(nn.Module):
    def __init__(self, **wrapped):
        super().__init__()
        self.words, self.out = nn.Embedding(400, 6), nn.Linear(6, 3)
    def forward(self, input_ids, attention_mask):
        seen = attention_mask.unsqueeze(-1)
        return self.out((self.words(input_ids) * seen).sum(1) / seen.sum(1))

class Everything(Words):
    def forward(self, **tokens):
        assert set(tokens) >= {"input_ids", "attention_mask"}
        logits = super().forward(tokens["input_ids"], tokens["attention_mask"])
        return SequenceClassifierOutput(logits=logits)

class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
    def forward(self, images):
        return self.out(self.conv(images).relu().mean((2, 3)))

class Named(Pixels):
    def forward(self, images):
        return SequenceClassifierOutput(logits=super().forward(images))
"""


@pytest.mark.parametrize("function", ["Words", "Everything"])
def test_texts_reach_a_network_as_the_tokens_of_the_folder_that_reads(tmp_path, function):
    words = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(), eos_token="<|end|>", model_max_length=9)
    words.save_pretrained(tmp_path / "words")
    texts = ["one", "1859 the cook", "", "recipes were written in 1860 and twelve more in 1861", "x y", "cook"]
    task = raw_task("texts", [json.dumps([text]).encode() for text in texts], tmp_path)
    (tmp_path / "own.py").write_text(BODIES)
    torch.manual_seed(0)
    save_file((network := Words()).state_dict(), tmp_path / "w.safetensors")
    given = {"build": f"own.py:{function}", "options": {}, "base": None, "members": ["w.safetensors"]}
    plan = planned(tmp_path, task, **given, reads="words")
    (member,) = load_pool(plan, Store(tmp_path / "store")).members
    tokens = [words(text or "<|end|>", truncation=True, return_tensors="pt") for text in texts]
    with torch.inference_mode():
        logits = torch.cat([network(each["input_ids"], each["attention_mask"]) for each in tokens])
    torch.testing.assert_close(said(member, task.test), logits.log_softmax(-1), rtol=0, atol=1e-6)
    assert dict(member.architecture.options)["reader"] == reader_in(tmp_path / "words", SEQUENCE)
    assert dict(member.architecture.options)["shape"] == (("classes", 3),)
    with pytest.raises(BadInput, match=r"does not say what reads the examples of 'raw'.*reads: a folder with"):
        planned(tmp_path, task, **given)
    with pytest.raises(BadInput, match="nowhere: there is no such folder"):
        planned(tmp_path, task, **given, reads="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: .*tokenizer"):
        planned(tmp_path, task, **given, reads="empty")


@pytest.mark.parametrize("function", ["Pixels", "Named"])
def test_images_reach_a_network_as_the_folder_that_reads_prepares_them(tmp_path, function):
    processor = ViTImageProcessor(size={"height": 12, "width": 12})
    processor.save_pretrained(tmp_path / "eyes")
    images, contents = [], []
    for seed in range(5):
        noise = torch.randint(0, 256, (20, 15, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        images.append(Image.fromarray(noise.numpy()))
        written = io.BytesIO()
        images[-1].save(written, "PNG")
        contents.append(written.getvalue())
    task = raw_task("image_files", contents, tmp_path)
    (tmp_path / "own.py").write_text(BODIES)
    torch.manual_seed(0)
    save_file((network := Pixels()).state_dict(), tmp_path / "w.safetensors")
    given = {"build": f"own.py:{function}", "options": {}, "base": None, "members": ["w.safetensors"]}
    (member,) = load_pool(planned(tmp_path, task, **given, reads="eyes"), Store(tmp_path / "store")).members
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(said(member, task.test), by_hand(network, pixels), rtol=0, atol=1e-6)
    assert dict(member.architecture.options)["reader"] == reader_in(tmp_path / "eyes", IMAGE)


# What counts in keys


def prediction_keys(plan):
    test = tried("digits").task.test
    return [predictions_key(digest, test, "cpu") for digest in member_digests(plan)]


@pytest.mark.parametrize(
    ("change", "others"),
    [
        (lambda folder: write_code(folder, net=NET + "# a reason\n"), 0),
        (lambda folder: write_code(folder, net=NET.replace("Dropout(0.2)", "Dropout(0.3)")), 2),
        (lambda folder: (folder / "nets/layers.py").write_text("from torch import nn\nBlock = nn.Linear\n"), 2),
        (lambda folder: save_file(twin(9).state_dict(), folder / "two.safetensors"), 1),
        (lambda folder: (folder / "two.safetensors").touch(), 0),
    ],
)
def test_an_edited_network_and_other_weights_are_predicted_anew_and_nothing_else(folder, change, others):
    before = prediction_keys(planned(folder, check=False))
    change(folder)
    after = prediction_keys(planned(folder, check=False))
    assert sum(one != other for one, other in zip(before, after, strict=True)) == others


def test_options_count_and_where_it_all_lies_does_not(folder, tmp_path_factory):
    plan = planned(folder)
    moved = shutil.copytree(folder, tmp_path_factory.mktemp("moved") / "pool")
    assert prediction_keys(planned(moved)) == prediction_keys(plan)
    for options in ({"width": 2}, {}):  # which is the function's own width, said or not
        other = planned(folder, check=False, options=options)
        assert not set(prediction_keys(other)) & set(prediction_keys(plan))


def test_planning_runs_nothing_and_checking_a_member_does(tmp_path):
    write_pool(tmp_path, tmp_path / "ran")
    plan = planned(tmp_path, check=False)
    assert member_digests(plan)
    assert prediction_keys(plan)
    assert [member.describe()["how"] for member in plan.members]
    assert not (tmp_path / "ran").exists()
    plan.members[0].check(tried("digits").task, "main")
    assert (tmp_path / "ran").exists()


# Merging


def test_a_soup_is_the_mean_of_the_weights_with_statistics_measured_anew(folder):
    pool, networks = loaded(folder), write_pool(folder)
    soup = built_on("uniform_soup", pool)
    train, test = tried("digits").task.train, tried("digits").task.test
    states = [networks[name].state_dict() for name in ("one", "two")]
    mean = twin(0)
    mean.load_state_dict({name: (states[0][name].double() + states[1][name]) / 2 for name in states[0]})
    with torch.no_grad():
        seen = mean.conv(train.inputs)
    mean.norm.running_mean = seen.mean((0, 2, 3))
    mean.norm.running_var = torch.stack(
        [batch.var((0, 2, 3)) * len(batch) for batch in seen.split(250)]
    ).sum(0) / len(seen)  # fmt: skip
    found = predict(soup.log_probs, test)
    torch.testing.assert_close(found, by_hand(mean, test.inputs), rtol=0, atol=1e-5)


def built_on(name, pool, **parameters):
    task, method = tried("digits").task, METHODS.get(name)
    given = pools.ingredients(pool, tuple(method.needs), train_=task.train, heldout_=task.heldout)
    return method.apply(given, method.validate(parameters))


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp", "fisher", "regmean", "dare", "model_stock"])
def test_merges_of_copies_are_the_member(folder, method):
    shutil.copy(folder / "one.safetensors", folder / "two.safetensors")
    pool = loaded(folder, base=None if method in ("slerp", "fisher", "regmean") else "one.safetensors")
    pool = replace(pool, base=pool.base or pool.members[0])
    merged = built_on(method, pool).module.state_dict()
    for name, tensor in load_file(folder / "one.safetensors").items():
        if "norm.running" not in name and "tracked" not in name:  # measured anew
            torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-5)


def test_networks_of_other_options_are_members_and_are_not_merged(folder):
    save_file(twin(3, width=3).state_dict(), folder / "narrow.safetensors")
    pool = loaded(folder, members=["one.safetensors", {"weights": "narrow.safetensors", "options": {"width": 3}}])
    with pytest.raises(NotApplicable, match="different architectures: m0 and m1: width 4 and 3"):
        built_on("uniform_soup", pool)
    test = tried("digits").task.test
    found = predict(built_on("linear", pool).log_probs, test)
    mean = torch.stack([said(member, test).exp() for member in pool.members]).mean(0).log()
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-5)


def test_students_have_its_architecture_or_half_the_width(folder):
    pool = loaded(folder)
    same, half = (built_on("distill", pool, epochs=1, size=size) for size in ("same", "half"))
    assert same.architecture == pool.members[0].architecture
    assert (same.module.conv.weight.shape[0], half.module.conv.weight.shape[0]) == (4, 2)
    again = built_on("distill", pool, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(same.module.parameters(), again.module.parameters(), strict=True))
    write_code(folder, net=NET.replace("def build(side, classes, width=2)", "def build(side, classes, channels=4)")
               .replace("Net(side, classes, width)", "Net(side, classes, channels)"))  # fmt: skip
    narrow = loaded(folder, options={})
    with pytest.raises(NotApplicable, match="no student of half the size: 'net:build' takes no number as width"):
        built_on("distill", narrow, epochs=1, size="half")
    with pytest.raises(NotApplicable, match=r"no hidden layer that can be split"):
        built_on("moe", narrow)


def test_dropout_of_a_users_network_stays_on_for_its_passes(folder):
    found = built_on("mc_dropout", loaded(folder), passes=2)
    test = tried("digits").task.test.inputs[:20]
    with torch.inference_mode():
        one, two, again = (part.log_probs(test) for part in (*found.parts(), found.parts()[0]))
    assert not torch.equal(one, two)
    assert torch.equal(one, again)


# Faults

SUITE = """suite: own
task: digits
pool:
  module: {build: "nets/net.py:build", options: {width: 4}, members: [one.safetensors]}
methods: [best_single]
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nets/net.py:build", "nets/net.py", "suite.yaml:4: 'nets/net.py' names no function; write package.module:"),
        ("nets/net.py:build", "nets.net", "suite.yaml:4: 'nets.net' names no function"),
        ("nets/net.py:build", "nets/net.py:1", "suite.yaml:4: 'nets/net.py:1' names no function"),
        ("nets/net.py:build", "nets/net:build", "suite.yaml:4: 'nets/net:build' names no function"),
        ("{width: 4}", "{reader: 4}", "suite.yaml:4: 'reader' cannot be an option"),
        ("[one.safetensors]", "[{weights: a, options: {build: x}}]", "suite.yaml:4: 'build' cannot be an option"),
        ("[one.safetensors]", "[]", "suite.yaml:4:"),
        ("{width: 4}", "{width: {deep: 4}}", "suite.yaml:4:"),
        ("members", "membres", "suite.yaml:4: unknown key 'membres'; did you mean 'members'?"),
    ],
)
def test_a_faulty_suite_is_refused_in_its_line(tmp_path, old, new, words):
    assert old in SUITE
    (tmp_path / "suite.yaml").write_text(SUITE.replace(old, new, 1))
    with pytest.raises(BadInput) as caught:
        read_suite(tmp_path / "suite.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": "nets/nett.py:build"}, "nets/nett.py: there is no such file, which 'nets/nett.py:build' is in"),
        ({"build": "nets/net.py:biuld"}, "nets/net.py: there is no function 'biuld'; did you mean 'build'?"),
        ({"options": {"widht": 4}}, "'net:build' takes no option 'widht'; did you mean 'width'?"),
        ({"options": {"width": 3}}, "base.safetensors: the weights do not fit the network: "),
        ({"options": {"classes": 3}}, "'classes' is no option: 'net:build' is given that of the task"),
        ({"options": {"width": "four"}}, "nets/net.py:10: 'net:build' fails: TypeError: "),
        ({"members": ["nowhere.safetensors"]}, "nowhere.safetensors: there is no such file"),
        ({"members": ["nets"]}, "nets: the folder has no architecture.json; name a safetensors file, or a folder that"),
        ({"reads": "nets"}, "nets: the examples of 'digits' are tensors, which nothing has to read: drop 'reads'"),
    ],
)
def test_a_pool_that_cannot_be_run_is_refused_in_a_line(folder, changes, words):
    with pytest.raises(BadInput) as caught:
        planned(folder, **changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_runs_no_modules_is_refused(folder):
    task = tried("digits").task
    text = replace(task, test=replace(task.test, kind="text"))
    with pytest.raises(BadInput, match=r"which the task 'digits' is not for; they are for .*: .*image"):
        planned(folder, text)


def test_a_folder_of_one_of_our_networks_is_no_module_and_one_of_a_users_is_no_folder(folder):
    (folder / "zoo").mkdir()
    mlp = Architecture("mlp", (("classes", 10), ("side", 8)))
    save_network(mlp, build(mlp), folder / "zoo")
    with pytest.raises(BadInput, match=r"zoo: it is a 'mlp', which no function of yours builds; name it under hf"):
        planned(folder, members=["zoo"])


def test_every_kind_that_runs_a_users_network_says_so_under_a_name_of_its_own():
    families = [family for kind in KINDS if (family := family_for(kind))]
    assert len(set(families)) == len(families)
    assert {kind.name for kind in KINDS if family_for(kind)} >= {"images", "tabular", "texts", "image_files"}
