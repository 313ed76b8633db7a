"""Finished runs are read: those of this version and of the one before, and no others."""

import pandas as pd
import pytest

from harness.errors import BadInput
from harness.results.columns import COMPARISON_COLUMNS, READ_VERSIONS, SCHEMA_VERSION
from harness.results.manifest import write_manifest
from harness.results.run import read_run
from tests.gate.planted import coins, planted, saved

ROW = dict.fromkeys(COMPARISON_COLUMNS, 0.0) | {"variant": "soup", "against": "ref", "seed": "all"}


def stored(folder, **record):
    return saved(planted({"ref": coins(0.8), "soup": coins(0.9)}, **record), folder)


def test_a_run_of_version_1_has_no_comparisons_and_went_by_accuracy(tmp_path):
    found = read_run(stored(tmp_path / "run", schema_version=1))
    assert list(found.comparisons.columns) == list(COMPARISON_COLUMNS)
    assert len(found.comparisons) == 0
    assert found.scores_of_suite == ["accuracy"]
    assert len(found.alone("soup", "mine").comparisons) == 0


def test_a_run_of_this_version_has_its_comparisons_and_scores(tmp_path):
    folder = stored(tmp_path / "run", schema_version=SCHEMA_VERSION, scores=["nll", "accuracy"])
    pd.DataFrame([ROW, ROW | {"variant": "mix"}]).to_parquet(folder / "comparisons.parquet")
    write_manifest(folder)
    found = read_run(folder)
    assert found.comparisons["variant"].tolist() == ["soup", "mix"]
    assert found.scores_of_suite == ["nll", "accuracy"]
    assert found.alone("soup", "mine").comparisons.to_dict("records") == [ROW | {"variant": "mine"}]


@pytest.mark.parametrize("version", [3, 0, None, "2"])
def test_a_run_of_another_version_is_refused_in_one_line(tmp_path, version):
    folder = stored(tmp_path / "run", schema_version=version)
    with pytest.raises(BadInput) as refused:
        read_run(folder)
    assert str(refused.value) == f"{folder}: results of schema version {version}; this stockpot reads 1 and 2"
    assert READ_VERSIONS == (1, SCHEMA_VERSION)
