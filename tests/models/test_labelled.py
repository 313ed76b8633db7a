"""Labels by their names: the order in which a folder has them changes nothing, and other labels are refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    LlamaForCausalLM,
    ViTForMaskedImageModeling,
)

import harness.kinds  # noqa: F401 (which says how their networks are run)
from harness.errors import BadInput
from harness.models.label_names import order_of
from harness.models.pretrained import ZEROS, layout, load_pretrained
from tests.examples import examples
from tests.models.classifier_folders import (
    FAMILIES,
    IMAGES,
    LABELS,
    TEXTS,
    batch_of,
    module_of,
    picture,
    plan,
    read_as,
    save,
    save_reader,
    text,
)
from tests.models.test_classifiers import part_of

SOME = {family: [text("a film"), text("great !")] for family in TEXTS}
SOME |= {family: [picture(0), picture(1)] for family in IMAGES}


def permuted(folder, target, order, family, names=LABELS):
    """A copy of a folder in which row k of the head is what row ``order[k]`` was, and the names go along."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    rows = layout(folder, read_as(family)).head.rows
    stored = load_file(folder / "model.safetensors")
    assert rows
    assert rows.keys() <= stored.keys()
    for name, dim in rows.items():
        stored[name] = stored[name].index_select(dim, torch.tensor(order))
    save_file(stored, target / "model.safetensors", {"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    settings["id2label"] = {str(k): names[row] for k, row in enumerate(order)}
    settings["label2id"] = {name: int(k) for k, name in settings["id2label"].items()}
    (target / "config.json").write_text(json.dumps(settings))
    return target


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("folders")
    return {family: save(place / family, family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
@examples(2)
@given(order=st.permutations(range(3)))
def test_another_order_of_the_labels_changes_no_score_and_no_weight(folders, tmp_path_factory, family, order):
    place = tmp_path_factory.mktemp("permuted")
    other = permuted(folders[family], place / "other", order, family)
    ours, theirs = plan(folders[family], family), plan(other, family)
    assert ours.architecture == theirs.architecture
    one, two = ours.model.weights(), theirs.model.weights()
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    batch = batch_of(SOME[family], place)
    assert torch.equal(part_of(folders[family], family).log_probs(batch), part_of(other, family).log_probs(batch))


@examples(40)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=6, unique=True), st.randoms())
def test_the_order_puts_each_name_at_its_labels_place(names, random):
    labels = random.sample(names, len(names))
    found = order_of(names, labels, "folder")
    assert [names[row] for row in found] == labels


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["Bad", "GOOD"], ["bad", "good"]),
        (["LABEL_0", "LABEL_1"], ["0", "1"]),
        (["bad", "Bad"], ["Bad", "bad"]),
    ],
)
def test_names_are_matched_exactly_then_but_for_case_and_unnamed_rows_by_number(names, labels):
    found = order_of(names, labels, "folder")
    assert [names[row].casefold() for row in found] in ([each.casefold() for each in labels], ["label_0", "label_1"])
    assert found == ((1, 0) if names[0] == "bad" and labels[0] == "Bad" else (0, 1))


@pytest.mark.parametrize(
    ("names", "labels", "words"),
    [
        (["a", "b", "c"], ["a", "b"], "it has 3 labels .*, the task 2"),
        (["a", "b"], ["a", "d"], "'b' is none of these"),
        (["LABEL_0", "LABEL_1"], ["bad", "good"], "its labels have no names"),
        (["LABEL_0", "LABEL_1"], ["1", "2"], "its labels have no names"),
        (["a", "A"], ["A", "b"], "'a' is none of these"),
        (["A", "a"], ["a", "AA"], "'A' is none of these"),
    ],
)
def test_other_labels_are_refused(names, labels, words):
    with pytest.raises(BadInput, match=words):
        order_of(names, labels, "folder")


def renamed(folder, **settings):
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **settings}))
    return folder


def unnamed(folder, count=3):
    return renamed(folder, id2label={str(k): f"LABEL_{k}" for k in range(count)},
                   label2id={f"LABEL_{k}": k for k in range(count)})  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_labels_without_names_are_named_by_the_suite(folders, tmp_path, family):
    folder = unnamed(save(tmp_path / "unnamed", family))
    with pytest.raises(BadInput, match="its labels have no names") as refused:
        plan(folder, family)
    assert "'labels' beside the members" in refused.value.hint
    plain = part_of(folder, family, labels=("0", "1", "2"))
    batch = batch_of(SOME[family], tmp_path)
    given_ = plan(folder, family, names=("good", "none", "bad"))
    assert given_.architecture == plan(folders[family], family).architecture
    found = part_of(folder, family, names=("good", "none", "bad")).log_probs(batch)
    assert torch.equal(found, plain.log_probs(batch)[:, [2, 0, 1]])
    with pytest.raises(BadInput, match="'labels' names 2, and it has 3"):
        plan(folder, family, names=("good", "bad"))


@pytest.mark.parametrize(
    ("settings", "labels", "words"),
    [
        ({"problem_type": "multi_label_classification"}, LABELS, "it gives any number of labels at once, not one"),
        ({"problem_type": "regression"}, LABELS, "it gives a number, not one label"),
        ({"problem_type": "single_label_classification"}, LABELS, None),
        ({}, LABELS[:1], "it gives a number, not one label"),
        ({}, LABELS[:2], r"it has 2 labels \(bad, good\), the task 3"),
    ],
)
def test_what_gives_no_probability_of_each_label_is_refused(tmp_path, settings, labels, words):
    folder = renamed(save(tmp_path / "bert", "bert", labels), **settings)
    if words is None:
        assert plan(folder, "bert").architecture
        return
    with pytest.raises(BadInput, match=words) as refused:
        plan(folder, "bert")
    assert "\n" not in refused.value.problem


# Bases without a head for the labels.


def bases(place, family):
    """Folders that members of a family may be tuned from, by what they are."""
    torch.manual_seed(5)
    config = module_of(family).config
    others = {"bert": BertForMaskedLM, "llama": LlamaForCausalLM, "vit": ViTForMaskedImageModeling}
    made = {"of two labels": module_of(family, ("no", "yes"))}
    if family in others:
        made["without a head"] = others[family](config)
    found = {"of other names": unnamed(save(place / "other names", family))}
    for name, module in made.items():
        found[name] = place / name
        module.save_pretrained(found[name])
        save_reader(found[name], family)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_base_the_body_is_taken_and_a_head_for_other_labels_is_zeros_or_drawn_by_seed(tmp_path, family):
    auto = AutoModelForSequenceClassification if family in TEXTS else AutoModelForImageClassification
    member = plan(save(tmp_path / "member", family), family)
    for name, folder in bases(tmp_path, family).items():
        if (family, name) != ("bert", "without a head"):  # which is a member that gives text
            with pytest.raises(BadInput, match=r"labels|no head"):
                plan(folder, family)
        zeros, drawn, again, other = (plan(folder, family, fresh=seed) for seed in (ZEROS, 1, 1, 2))
        assert zeros.architecture == drawn.architecture == member.architecture
        assert len({each.digests for each in (zeros, drawn, other)}) == 3
        assert drawn.digests == again.digests
        assert zeros.body == drawn.body == other.body
        stored = auto.from_pretrained(folder).state_dict()
        made = zeros.model.path, zeros.model.read_as
        drawn_names = layout(*made).head.drawn
        assert drawn_names
        weights, of_module = zeros.model.weights(), load_pretrained(*made).state_dict()
        for each in weights:
            assert torch.equal(weights[each], of_module[each])
            assert torch.equal(weights[each], torch.zeros_like(weights[each]) if each in drawn_names else stored[each])
        one, same, two = (load_pretrained(p.model.path, p.model.read_as).state_dict() for p in (drawn, again, other))
        assert all(torch.equal(one[each], same[each]) for each in one)
        assert all(torch.equal(one[each], two[each]) for each in one.keys() - drawn_names)
        matrices = [each for each in drawn_names if one[each].ndim > 1]
        assert matrices
        assert all(one[each].any() and not torch.equal(one[each], two[each]) for each in matrices)
        notes = " ".join(layout(*made).notes)
        assert "it has no head for these labels" in notes
        assert "one of zeros stands for it" in notes
        spread = {each: float(auto.from_config(module_of(family).config).state_dict()[each].std()) for each in matrices}
        for each, usual in spread.items():  # drawn as transformers draws them
            assert 0.5 * usual < float(one[each].std()) < 2 * usual


def test_a_head_that_is_for_the_labels_is_kept_by_a_base(folders):
    for seed in (ZEROS, 3):
        assert not layout(folders["bert"], read_as("bert", fresh=seed)).head.drawn
