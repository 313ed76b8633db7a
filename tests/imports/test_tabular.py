"""AutoGluon's artifacts and TabArena's folders: every number comes back, under the split that the source has."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import BadInput
from harness.imports import Asked, choose_format, read_given
from harness.imports.autogluon import write
from harness.imports.format import Given
from harness.registry import FORMATS
from tests.imports.sources import simulation_artifact, write_tabarena

LAYOUTS = ("label.csv.zip", "labels.dat", "tasks.dat")
SPLITS = {"val": "heldout", "test": "test"}


def imported(path, **asked):
    return read_given([Given(path)], choose_format([Given(path)], None), Asked(**asked))


def both_classes(values):
    return np.stack([1 - values.astype(float), values], axis=-1) if values.ndim == 1 else values


def check_split(found, split, predictions, labels, names, rows=None):
    """Rows of one split: [N, C] or [N] by model, positions of labels, names of classes, and of rows where known."""
    mine = found.questions["split"] == SPLITS[split]
    assert found.questions["label"][mine].tolist() == [names[label] for label in labels]
    if rows is not None:
        assert found.questions.index[mine].tolist() == [f"{split}-{row}" for row in rows]
    for model, values in predictions.items():
        np.testing.assert_allclose(found.members[model].loc[mine, names], both_classes(values), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_an_artifact_comes_back_as_it_was(tmp_path, classes):
    artifact = simulation_artifact(classes=classes)
    write(artifact, tmp_path / "made")
    found = imported(tmp_path / "made")
    for split in SPLITS:
        of = {model: frame.to_numpy() for model, frame in artifact[f"pred_proba_dict_{split}"].items()}
        labels = artifact[f"y_{split}"]
        check_split(found, split, of, labels, artifact["ordered_class_labels"], labels.index)


def test_an_artifact_without_test_rows_says_nothing_of_splits(tmp_path):
    artifact = simulation_artifact()
    del artifact["pred_proba_dict_test"], artifact["y_test"]
    write(artifact, tmp_path)
    assert "split" not in imported(tmp_path).questions


def test_a_label_that_training_did_not_know_is_left_out_and_counted(tmp_path):
    artifact = simulation_artifact()
    artifact["y_test"] = artifact["y_test"].astype(float)
    artifact["y_test"].iloc[4] = np.nan
    write(artifact, tmp_path)
    found = imported(tmp_path)
    assert len(found.questions) == 49
    assert found.dropped == ["1 rows whose label is none of the 3 classes"]


def test_an_ensemble_of_autogluons_own_is_pointed_out(tmp_path):
    artifact = simulation_artifact()
    for split in SPLITS:
        of = artifact[f"pred_proba_dict_{split}"]
        of["WeightedEnsemble_L2"] = of["LightGBM"]
    write(artifact, tmp_path)
    assert "WeightedEnsemble_L2" in imported(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "regression"}, "regression has no class probabilities"),
        ({"y_val": simulation_artifact(seed=1)["y_val"]}, "rows of 'RandomForest_BAG_L1' are not those of y_val"),
    ],
)
def test_what_is_no_artifact_of_a_classifier_is_refused_where_it_is_written(tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        write(simulation_artifact() | change, tmp_path)
    with pytest.raises(BadInput, match="no simulation_artifact"):
        write({"dataset": {0: simulation_artifact()}}, tmp_path)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fold_comes_back_from_each_layout(tmp_path, layout, classes):
    said, labels = write_tabarena(tmp_path, layout, classes=classes)
    found = imported(tmp_path)
    names = [str(position) for position in range(classes)]
    for split in SPLITS:
        of = dict(zip(found.members, said[split], strict=True))
        rows = labels[split].index if layout == "label.csv.zip" else range(len(labels[split]))
        check_split(found, split, of, labels[split], names, rows)


def test_numbers_of_float16_are_divided_by_their_sums_and_that_is_said(tmp_path):
    said, labels = write_tabarena(tmp_path, "labels.dat", dtype="float16")
    found = imported(tmp_path)
    assert "divided by their sums" in found.notes[0]
    values = said["test"].astype(float)
    expected = dict(zip(found.members, values / values.sum(axis=-1, keepdims=True), strict=True))
    check_split(found, "test", expected, labels["test"], list("012"))


def test_of_several_folds_one_is_named(tmp_path):
    write_tabarena(tmp_path, "tasks.dat")
    said, labels = write_tabarena(tmp_path, "labels.dat", seed=1, dataset="wine", fold=2)
    with pytest.raises(BadInput, match="adult/0, wine/2"):
        imported(tmp_path)
    with pytest.raises(BadInput, match="did you mean 'wine/2'"):
        imported(tmp_path, tasks=("wine/3",))
    found = imported(tmp_path, tasks=("wine/2",))
    check_split(found, "val", dict(zip(found.members, said["val"], strict=True)), labels["val"], list("012"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def unlink(path):
    path.unlink()


def regression(path):
    facts = json.loads(path.read_text())
    for split in SPLITS:
        facts[f"pred_{split}_shape"] = [facts[f"pred_{split}_shape"][0], 3 * facts[f"pred_{split}_shape"][1]]
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("layout", "file", "spoil", "message"),
    [
        ("labels.dat", "0/pred-test.dat", cut, r"176 bytes are no float32 array of shape \[3, 15, 3\]|536 bytes"),
        ("labels.dat", "0/labels.dat", cut, "fewer labels than the header says"),
        ("tasks.dat", "tasks.dat", cut, "fewer labels than the header says"),
        ("label.csv.zip", "0/label-val.csv.zip", cut, "the labels cannot be read"),
        ("label.csv.zip", "0/label-val.csv.zip", unlink, "the file is missing"),
        ("labels.dat", "0/pred-test.dat", unlink, "the file is missing"),
        ("labels.dat", "0/metadata.json", unlink, "there is no metadata.json"),
        ("labels.dat", "0/metadata.json", cut, "no JSON"),
        ("labels.dat", "0/metadata.json", regression, "the val labels are no classes"),
    ],
)
def test_a_fold_that_is_not_whole_is_refused(tmp_path, layout, file, spoil, message):
    write_tabarena(tmp_path, layout)
    spoil(tmp_path / "adult" / file)
    with pytest.raises(BadInput, match=message):
        read_given([Given(tmp_path)], FORMATS.get("tabarena"), Asked())


def test_probabilities_that_do_not_sum_to_one_are_refused(tmp_path):
    artifact = simulation_artifact()
    artifact["pred_proba_dict_val"]["LightGBM"].iloc[2] = [0.5, 0.5, 0.5]
    write(artifact, tmp_path)
    with pytest.raises(BadInput, match=r"'LightGBM' has probabilities that do not sum to 1: 1 rows, first 'val-\d+'"):
        imported(tmp_path)
    artifact["pred_proba_dict_val"]["LightGBM"].iloc[2] = [np.nan, 0.5, 0.5]
    write(artifact, tmp_path)
    with pytest.raises(BadInput, match="values that are no numbers"):
        imported(tmp_path)


def test_rows_twice_are_told_apart_by_their_place(tmp_path):
    artifact = simulation_artifact()
    index = pd.Index([7] * 20)
    artifact["y_val"] = artifact["y_val"].set_axis(index)
    for model, frame in artifact["pred_proba_dict_val"].items():
        artifact["pred_proba_dict_val"][model] = frame.set_axis(index)
    write(artifact, tmp_path)
    assert imported(tmp_path).questions.index[:20].tolist() == [f"val-{row}" for row in range(20)]


def test_right_and_wrong_alone_are_those_of_the_probabilities(tmp_path):
    write(simulation_artifact(), tmp_path)
    whole, outcomes = imported(tmp_path), imported(tmp_path, form="correct")
    assert (outcomes.form, outcomes.classes, "label" in outcomes.questions) == ("correct", (), False)
    for model in whole.members:
        assert outcomes.right(model).tolist() == whole.right(model).tolist()
