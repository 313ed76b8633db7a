"""Files of predictions: every form and kind of file says the same, joined by id and by class."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import BadInput
from harness.models.lookup import Lookup, PredictedWeights, save_predictions
from harness.models.prediction_file import Content, read_predictions
from harness.models.prediction_join import TOLERANCE, join
from harness.types import NotApplicable
from tests.pools.planted_predictions import CLASSES, IDS, LABELS, logits, probabilities, wide

FINITE = arrays(np.float64, (7, 4), elements=st.floats(-30, 30))
NAMES = ["w", "x", "y", "z"]


def said(path, form=None):
    return join(read_predictions(path), IDS, CLASSES, "probabilities", form)


WRITERS = {
    "npz of probabilities": ("m.npz", lambda p: np.savez(p, ids=IDS, classes=CLASSES, probabilities=probabilities(1))),
    "npz of logits": ("m.npz", lambda p: np.savez(p, ids=np.array(IDS)[::-1], classes=CLASSES, logits=logits(1)[::-1])),
    "npz of log-probabilities": (
        "m.npz", lambda p: np.savez(p, ids=IDS, classes=CLASSES, log_probabilities=np.log(probabilities(1)))),
    "npz that is recognised": (
        "m.npz", lambda p: np.savez(p, ids=IDS, classes=CLASSES, predictions=np.log(probabilities(1)))),
    "wide parquet": ("m.parquet", lambda p: wide(1).sample(frac=1, random_state=0).to_parquet(p)),
    "wide csv": ("m.csv", lambda p: wide(1)[["cat", "id", "ape", "bee"]].to_csv(p, index=False)),
    "csv with a byte order mark": ("m.csv", lambda p: wide(1).to_csv(p, index=False, encoding="utf-8-sig")),
    "long csv": ("m.csv", lambda p: wide(1).melt("id", CLASSES, "class", "probability").to_csv(p, index=False)),
    "long parquet of categories": (
        "m.parquet", lambda p: wide(1).melt("id", CLASSES, "class", "probability").astype(
            {"id": "category", "class": "category"}).sample(frac=1, random_state=1).to_parquet(p, index=False)),
    "long parquet of logits": (
        "m.parquet", lambda p: pd.DataFrame(logits(1), columns=CLASSES).assign(id=IDS).melt(
            "id", CLASSES, "class", "logit").to_parquet(p, index=False)),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_every_form_says_the_same(writer, tmp_path):
    name, write = WRITERS[writer]
    write(tmp_path / name)
    if writer == "wide parquet":  # its index, which pandas names, is no class
        with pytest.raises(BadInput, match="__index_level_0__"):
            said(tmp_path / name)
        wide(1).to_parquet(tmp_path / name, index=False)
    found = said(tmp_path / name).log_probs
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.log(probabilities(1)), atol=1e-6)


@given(FINITE)
def test_logits_and_what_they_mean_are_one(values):
    """Logits, their log-probabilities and their probabilities give the same table, and so does a softmax in float64."""
    exact = torch.log_softmax(torch.from_numpy(values), dim=1)
    ids = [str(i) for i in range(len(values))]
    forms = {"logits": values, "log_probabilities": exact.numpy(), "probabilities": exact.exp().numpy()}
    for form, numbers in forms.items():
        content = Content("here", ids, "probabilities", numbers, NAMES, form)
        found = join(content, ids, NAMES, "probabilities").log_probs
        torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=1e-6)


@given(FINITE, st.permutations(range(7)), st.permutations(range(4)))
def test_neither_the_order_of_rows_nor_that_of_classes_counts(values, rows, columns):
    ids = [str(i) for i in range(7)]
    plain = join(Content("here", ids, "probabilities", values, NAMES, "logits"), ids, NAMES, "probabilities")
    mixed = Content("here", [ids[r] for r in rows], "probabilities", values[rows][:, columns],
                    [NAMES[c] for c in columns], "logits")  # fmt: skip
    torch.testing.assert_close(join(mixed, ids, NAMES, "probabilities").log_probs, plain.log_probs)


@given(FINITE)
def test_a_form_is_recognised_or_not_guessed(values):
    """Without a form: probabilities and their logs are told apart, and logits are never taken for either."""
    ids = [str(i) for i in range(7)]
    exact = torch.log_softmax(torch.from_numpy(values), dim=1)

    def recognised(numbers):
        return join(Content("here", ids, "probabilities", numbers, NAMES), ids, NAMES, "probabilities").log_probs

    torch.testing.assert_close(recognised(exact.numpy()).double(), exact, atol=2e-5, rtol=1e-6)
    torch.testing.assert_close(recognised(exact.exp().numpy()).double(), exact, atol=2e-5, rtol=1e-6)
    with pytest.raises(BadInput):
        recognised(values + np.abs(values).max() + 2)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_rounded_probabilities_are_normalised_within_the_tolerance_alone(share):
    values = np.array([[0.25, 0.75 + share * TOLERANCE]])
    content = Content("here", ["a"], "probabilities", values, ["x", "y"], "probabilities")
    if share > 1:
        with pytest.raises(BadInput, match=r"of the id 'a' the probabilities sum to 1\.002"):
            join(content, ["a"], ["x", "y"], "probabilities")
        return
    found = join(content, ["a"], ["x", "y"], "probabilities").log_probs.double().exp()
    torch.testing.assert_close(found, torch.from_numpy(values / values.sum()), atol=1e-7, rtol=0)


def test_a_floor_leaves_no_class_below_it_and_the_order_as_it_was():
    content = Content("here", ["a"], "probabilities", np.array([[0.0, 0.3, 0.7]]), list("xyz"), "probabilities")
    found = join(content, ["a"], list("xyz"), "probabilities", floor=0.01).log_probs.double().exp()
    torch.testing.assert_close(found, torch.tensor([[0.01, 0.3, 0.7]], dtype=torch.float64) / 1.01)


@pytest.mark.parametrize("ids", [np.arange(3), np.array(["0", "1", "2"]), np.array([b"0", b"1", b"2"])])
def test_ids_are_joined_by_their_text(ids, tmp_path):
    np.savez(tmp_path / "m.npz", ids=ids, answers=[1, 0, 1])
    found = join(read_predictions(tmp_path / "m.npz"), ["2", "1", "0"], ["0", "1"], "answers")
    assert found.log_probs.argmax(dim=1).tolist() == [1, 0, 1]


def test_a_float_is_another_id_than_a_whole_number(tmp_path):
    """7.0 is not 7: nobody knows whether an id was rounded on its way."""
    np.savez(tmp_path / "m.npz", ids=np.arange(3.0), answers=[1, 0, 1])
    with pytest.raises(BadInput, match=r"'7.0' is not '7'"):
        join(read_predictions(tmp_path / "m.npz"), ["0", "1", "2"], ["0", "1"], "answers")


def test_unnamed_classes_are_taken_where_the_task_numbers_its_own(tmp_path):
    np.savez(tmp_path / "m.npz", ids=IDS, logits=logits(0))
    found = join(read_predictions(tmp_path / "m.npz"), IDS, ["0", "1", "2"], "probabilities").log_probs
    assert (found.argmax(dim=1).numpy() == logits(0).argmax(axis=1)).all()
    with pytest.raises(BadInput, match="does not name its 3 classes"):
        join(read_predictions(tmp_path / "m.npz"), IDS, ["0", "2", "1"], "probabilities")


@pytest.mark.parametrize("kind", ["answer", "correct"])
@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_answers_have_all_the_probability(kind, ending, tmp_path):
    """Of right and wrong the classes are wrong and right, in this order."""
    given_, path = logits(2).argmax(axis=1), tmp_path / f"m.{ending}"
    values = np.array(CLASSES)[given_] if kind == "answer" else (given_ == LABELS).astype(int)
    if ending == "npz":
        np.savez(path, ids=IDS, **{"answers" if kind == "answer" else "correct": values})
    else:
        table = pd.DataFrame({"id": IDS, kind: values})
        table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path, index=False)
    says, classes = ("answers", CLASSES) if kind == "answer" else ("correctness", ["wrong", "right"])
    found = join(read_predictions(path), IDS, classes, says)
    assert found.says == says
    wanted = given_ if kind == "answer" else values
    assert (found.log_probs.argmax(dim=1).numpy() == wanted).all()
    assert sorted(found.log_probs.unique().tolist()) == [-np.inf, 0.0]


def test_a_lookup_says_what_was_kept_and_has_no_weights(tmp_path):
    table = torch.log_softmax(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    save_predictions(table, {"ms": torch.arange(5.0).double()}, tmp_path / "m.safetensors")
    weights = PredictedWeights("m", tmp_path / "m.safetensors")
    module = weights.module()
    assert isinstance(module, Lookup)
    rows = torch.tensor([4, 0, 4])
    assert torch.equal(module(rows), table[rows])
    assert weights.costs()["ms"].tolist() == [0, 1, 2, 3, 4]
    for touch in (len, list, dict, lambda weights: weights["x"], lambda weights: "x" in weights):
        with pytest.raises(NotApplicable, match="m is known by its predictions only"):
            touch(weights)
