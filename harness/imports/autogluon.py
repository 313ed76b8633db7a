"""AutoGluon's ``TabularPredictor.simulation_artifact()``: a dict that users pickle, which is not read here.

Where AutoGluon and the predictor are, two lines make a folder that can be imported::

    from harness.imports.autogluon import write
    write(predictor.simulation_artifact(test_data=test), "my_artifact")

The keys and what they hold are those of autogluon.tabular.TabularPredictor.simulation_artifact (read in 1.6.3): labels
are positions of ``ordered_class_labels``, and predictions of two classes are [N], the probability of the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from harness.errors import BadInput
from harness.imports.format import Asked, Format, Given
from harness.imports.imported import Imported
from harness.imports.tabular import Part, tabular
from harness.registry import FORMATS
from harness.strict.sizes import check_zip

FILE = "autogluon.npz"
SPLITS = ("val", "test")
ENSEMBLE = "WeightedEnsemble"
"""How AutoGluon calls its own ensembles of the other models."""


def write(artifact: Mapping[str, Any], folder: str | Path) -> Path:
    """Write what ``simulation_artifact()`` gives into a folder, without a pickle.

    Args:
        artifact: of a classifier; without test data there are only validation rows, and an import splits these.
        folder: made where it does not exist.

    Returns:
        The file that was written.
    """
    if "pred_proba_dict_val" not in artifact or "y_val" not in artifact:
        raise BadInput("this is no simulation_artifact() of one predictor", place="autogluon",
                       hint="its keys are pred_proba_dict_val, y_val, ...")  # fmt: skip
    if artifact["problem_type"] not in ("binary", "multiclass"):
        raise BadInput(f"a predictor for {artifact['problem_type']} has no class probabilities", place="autogluon")
    models = list(artifact["pred_proba_dict_val"])
    arrays: dict[str, Any] = {
        "models": np.array(models, dtype=np.str_),
        "classes": np.array([str(name) for name in artifact["ordered_class_labels"]], dtype=np.str_),
    }
    for split in SPLITS:
        if f"pred_proba_dict_{split}" not in artifact:
            continue
        labels = pd.Series(artifact[f"y_{split}"])
        predictions = artifact[f"pred_proba_dict_{split}"]
        for model in models:
            index = getattr(predictions[model], "index", labels.index)
            if not index.equals(labels.index):
                raise BadInput(f"the {split} rows of '{model}' are not those of y_{split}", place="autogluon")
        arrays[f"pred_{split}"] = np.stack([np.asarray(predictions[model], dtype=np.float64) for model in models])
        arrays[f"y_{split}"] = pd.to_numeric(labels, errors="coerce").fillna(-1).to_numpy(np.int64)
        rows = labels.index if labels.index.is_unique else pd.RangeIndex(len(labels))
        arrays[f"rows_{split}"] = np.array([str(row) for row in rows], dtype=np.str_)
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def recognises(path: Path) -> bool:
    """What ``write`` wrote."""
    try:
        with np.load(_file(path), allow_pickle=False) as arrays:
            return {"models", "classes", "pred_val", "y_val", "rows_val"} <= set(arrays.files)
    except (OSError, ValueError, BadZipFile, EOFError, TypeError, AttributeError):
        return False


def read(given: Sequence[Given], asked: Asked) -> Imported:
    """The models of one artifact: validation rows are held-out, test rows are test."""
    if len(given) > 1:
        raise BadInput("an artifact holds all models of one task: give one", place=str(given[1].path))
    path = _file(given[0].path)
    check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
        parts = {
            split: Part(held[f"pred_{split}"], held[f"y_{split}"], [str(row) for row in held[f"rows_{split}"]])
            for split in SPLITS
            if f"pred_{split}" in held
        }
        models, classes = [str(name) for name in held["models"]], [str(name) for name in held["classes"]]
    except KeyError as missing:
        raise BadInput(f"the file has no {missing}", place=str(path), hint="write it with " + UNPICKLE) from None
    except (OSError, ValueError, BadZipFile, EOFError) as fault:
        raise BadInput(f"the file cannot be read ({fault}): is it cut off?", place=str(path)) from None
    imported = tabular(models, parts, classes, str(path))
    if fitted := [name for name in models if name.startswith(ENSEMBLE)]:
        why = "AutoGluon chose its weights on the validation rows, so its held-out scores are too good"
        imported.notes.append(f"{', '.join(fitted)}: {why}")
    return imported


UNPICKLE = "harness.imports.autogluon.write(predictor.simulation_artifact(test_data=test), 'folder')"

FORMATS.add(
    Format(
        "autogluon",
        "AutoGluon's simulation_artifact(), as harness.imports.autogluon.write(artifact, folder) saves it",
        recognises,
        read,
        unpickle=UNPICKLE,
        module=__name__,
    )
)
