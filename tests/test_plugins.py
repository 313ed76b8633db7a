"""The plug-ins of CONTRIBUTING.md, installed as a package from outside: all that reads declarations has them.

They are installed into an environment of their own, which sees the packages of this one and this checkout.
"""

import csv
import json
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness.keys import file_digest

CHECKOUT = Path(__file__).parent.parent
BLOCK = re.compile(r"^`(?P<file>[\w./]+)`\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = {found["file"]: found["text"] for found in BLOCK.finditer((CHECKOUT / "CONTRIBUTING.md").read_text())}
LONGEST = {"metric": 10, "cost": 20, "engine": 32, "kind": 50, "source": 50, "method": 20, "staged": 30}

SUITE = """suite: plugged
task: wine
pool:
  saved: {network: table_network, folder: members}
methods:
  - best_single
  - linear
  - by_accuracy
  - first_then_all: {confidence: [0.4, 0.9]}
cost: {page_faults: true, latency: false, memory: false, energy: false}
"""
POLICY = """version: 1
rules:
  - {id: above, match: {variant: by_accuracy, metric: mcc}, min: -1.0}
  - {id: perfect, match: {variant: by_accuracy, metric: mcc}, min: 0.999}
  - {id: faults, match: {variant: by_accuracy, metric: page_faults}, max: 1000000000}
"""
STATES = {"above": "pass", "perfect": "fail", "faults": "pass"}
CALLS = """
import contextlib, io, json, sys
from harness.cli.main import app
found = {}
sorts = ("methods", "metrics", "costs", "kinds", "sources", "engines", "tasks")
for words in (["schema"], *(["ls", sort] for sort in sorts)):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        app(words, standalone_mode=False)
    found[words[-1]] = printed.getvalue()
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the package of CONTRIBUTING.md, and a folder to work in."""
    changes = _changes()
    place = tmp_path_factory.mktemp("plugins")
    package, environment, work = place / "package", place / "environment", place / "work"
    work.mkdir()
    for name, text in FILES.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    (package / "stockpot_examples" / "__init__.py").touch()
    venv.create(environment, with_pip=False)
    (library,) = environment.glob("lib/python*/site-packages")
    (library / "beside.pth").write_text(f"{CHECKOUT}\n{sysconfig.get_path('purelib')}\n")
    python = environment / "bin" / "python"
    offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *offline, str(package)]
    subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
    found = SimpleNamespace(python=python, package=package, work=work, changes=changes)
    found.run = lambda *words, code=0: _run([python, *words], work, code)
    return found


def _run(command, folder, code):
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


def _write_members(folder, count):
    """Weights as a user has them: of ``table_network``, which this process does not know."""
    folder.mkdir()
    torch.manual_seed(0)
    for i in range(count):
        network = nn.Sequential(nn.Linear(13, 8), nn.ReLU(), nn.Linear(8, 3))
        save_file(network.state_dict(), folder / f"net-{i}.safetensors")


@pytest.fixture(scope="module")
def listed(installed):
    """What the schema and every ``ls`` print, by their last word."""
    return json.loads(installed.run("-c", CALLS))


@pytest.fixture(scope="module")
def run(installed):
    """The folder of a run of the suite."""
    (installed.work / "suite.yaml").write_text(SUITE)
    _write_members(installed.work / "members", 3)
    installed.run("-m", "harness.cli", "run", "suite.yaml", "--out", "results", "--engine", "serial")
    return installed.work / "results" / "plugged" / "latest"


@pytest.mark.parametrize("name", LONGEST)
def test_a_plug_in_is_short(name):
    assert len(FILES[f"stockpot_examples/{name}.py"].splitlines()) <= LONGEST[name]


def test_the_page_is_short():
    assert len((CHECKOUT / "CONTRIBUTING.md").read_text().split()) < 1350


BROKEN = """
import tempfile
from dataclasses import replace
from pathlib import Path
from harness.checks import BrokenLaw
from harness.registry import METRICS

with tempfile.TemporaryDirectory() as folder:
    test_laws(Path(folder))
print("all laws hold")
mcc = METRICS.get("mcc")
METRICS._known["mcc"] = replace(mcc, column=replace(mcc.column, least=0.0))
try:
    check_metric("mcc")
except BrokenLaw as broken:
    print(broken.law)
"""


def test_every_law_holds_and_one_that_is_broken_is_named(installed):
    said = installed.run("-c", FILES["test_laws.py"] + BROKEN)
    assert said.splitlines() == ["all laws hold", "values_are_finite_and_within_range"]


def test_the_schema_knows_them(listed):
    schema = listed["schema"]
    for word in ("wine", "saved", "by_accuracy", "first_then_all", "page_faults"):
        assert f'"{word}"' in schema, word


@pytest.mark.parametrize(
    ("sort", "words"),
    [
        ("methods", ["by_accuracy", "first_then_all"]),
        ("metrics", ["mcc"]),
        ("costs", ["page_faults"]),
        ("kinds", ["tables"]),
        ("sources", ["saved"]),
        ("engines", ["serial"]),
        ("tasks", ["wine"]),
    ],
)
def test_they_are_listed(listed, sort, words):
    for word in words:
        assert word in listed[sort]


def test_variants_have_their_columns(run):
    with open(run / "variants.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"best_single", "linear", "by_accuracy", "first_then_all/confidence=0.4", "first_then_all"}
    assert {row["variant"] for row in rows} == names
    assert {row["status"] for row in rows} == {"ok"}
    assert all(-1 <= float(row["mcc"]) <= 1 for row in rows)
    assert all(float(row["page_faults"]) >= 0 for row in rows if row["seed"] == "0")
    # the mean of all models is asked for fewer examples, the less confident the first has to be
    used = {row["variant"]: float(row["params_active"]) for row in rows if row["seed"] == "0"}
    assert used["best_single"] <= used["first_then_all/confidence=0.4"] <= used["first_then_all"] <= used["linear"]
    assert used["first_then_all/confidence=0.4"] < used["linear"]


def test_mcc_is_that_of_the_predictions(run):
    from sklearn.metrics import matthews_corrcoef

    examples = pd.read_parquet(run / "examples.parquet")
    variants = pd.read_csv(run / "variants.csv", dtype={"seed": str})
    for name, found in examples.groupby("variant"):
        row = variants[(variants["variant"] == name) & (variants["seed"] == "0")].iloc[0]
        assert row["mcc"] == pytest.approx(matthews_corrcoef(found["label"], found["prediction"]))


SAVED = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file
from harness.registry import SOURCES
from harness.store import Store
from types import SimpleNamespace

def planned():
    source = SOURCES.get("saved")
    spec = source.spec(network="table_network", folder=sys.argv[1])
    return source.plan("main", spec, SimpleNamespace(shape={"features": 13, "classes": 3}), 0).members

members = planned()
files = sorted(Path(sys.argv[1]).iterdir())
read = [member.weights(Store(Path("store")), 0) for member in members]
same = [all(torch.equal(value, load_file(file)[name]) for name, value in weights.items())
        for weights, file in zip(read, files, strict=True)]
identities = [member.identities[0] for member in members]
files[0].rename(files[0].with_name("net-9.safetensors"))
renamed = [member.identities[0] for member in planned()]
json.dump([[member.name for member in members], identities, same, renamed], sys.stdout)
"""


def test_saved_members_are_their_files(installed):
    folder = installed.work / "saved"
    _write_members(folder, 2)
    digests = [file_digest(folder / f"net-{i}.safetensors") for i in range(2)]
    names, identities, same, renamed = json.loads(installed.run("-c", SAVED, folder))
    assert names == ["net-0", "net-1"]
    assert identities == digests
    assert same == [True, True]
    assert renamed == digests[::-1]  # a file is what it holds, whatever it is called


def test_tidy_scores_have_them_with_their_source(run):
    scores = pd.read_parquet(run / "scores.parquet")
    sources = scores.groupby("metric")["source"].first()
    assert sources["mcc"] == "test split"
    assert sources["page_faults"] == "counter"


def test_the_record_names_the_engine_and_where_members_come_from(run):
    record = json.loads((run / "run.json").read_text())
    assert record["engine"]["name"] == "serial"
    assert record["status"] == "complete"
    assert "read from net-0.safetensors" in (run / "run.json").read_text() + (run / "details.json").read_text()


def test_gate_rules_judge_by_them(installed, run):
    (installed.work / "policy.yaml").write_text(POLICY)
    installed.run("-m", "harness.cli", "gate", run, "--policy", "policy.yaml", code=3)
    checks = json.loads((run / "gate.json").read_text())["checks"]
    assert {check["rule"]: check["state"] for check in checks} == STATES


def test_the_report_has_them(run):
    report = (run / "report.html").read_text()
    for word in ("mcc", "page_faults", "by_accuracy", "first_then_all"):
        assert word in report, word


def test_nothing_of_the_checkout_was_touched(installed, listed, run):
    assert _changes() == installed.changes


def _changes():
    return _run(["git", "-C", CHECKOUT, "status", "--porcelain", "--", "harness"], CHECKOUT, 0)
