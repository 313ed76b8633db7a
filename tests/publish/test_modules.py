"""Networks of a user's own function through all of the command: run, export, gate; and nothing of it without the flag.

The workers are real processes: they find the user's files themselves.
"""

import json

import pytest
import torch

from harness.checks.tasks import tried
from harness.cli.main import main
from harness.models.training import Schedule, train
from harness.models.weights import save_weights
from harness.results.run import read_run
from tests.cli.command import call
from tests.pools.planted_module import SPEC, twin, write_code

SUITE = f"""suite: own
task: digits
pool: {{module: {json.dumps(SPEC)}}}
methods: [best_single, linear, uniform_soup, {{distill: {{epochs: 1, size: half}}}}]
correlate: {{subsets: {{sizes: [2], at_most: 3}}}}
cost: {{memory: false}}
"""
POLICY = """version: 1
rules:
- {id: no-drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.05}, test: paired}
"""
HF = "suite: own\ntask: digits\npool: {hf: {members: [soup]}}\nmethods: [best_single]\n"


def stockpot(capsys, place, verb, *arguments, allow=True):
    flags = ["--allow-code"] if allow else []
    return call(capsys, verb, *(place / a[1:] if str(a).startswith("@") else a for a in arguments), *flags)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A suite whose members were trained by hand, and a run of it."""
    folder = tmp_path_factory.mktemp("own")
    write_code(folder, folder / "ran")
    task, base = tried("digits").task, twin(0)
    train(base, task.train, Schedule(6, 5e-3), seed=0)
    save_weights(base.state_dict(), folder / "base.safetensors")
    for seed, name in enumerate(("one", "two"), start=1):
        network = twin(0)
        network.load_state_dict(base.state_dict())
        train(network, task.train, Schedule(2, 2e-3, augment=0.2), seed=seed)
        save_weights(network.state_dict(), folder / f"{name}.safetensors")
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "hf.yaml").write_text(HF)
    (folder / "policy.yaml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module")
def run(place):
    out = str(place / "results")
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(place / "suite.yaml"), "--out", out, "--workers", "2", "--allow-code"])
    assert stopped.value.code == 0
    return read_run(place / "results/own/latest")


GATE = ("gate", "--candidate", "@one.safetensors", "--suite", "@suite.yaml", "--policy", "@policy.yaml",
        "--baseline", "@results/baselines/main", "--out", "@results")  # fmt: skip
REFUSED = {
    "run": ("run", "@suite.yaml", "--out", "@other"),
    "plan": ("plan", "@suite.yaml", "--out", "@other"),
    "export": ("export", "@results/own/latest", "uniform_soup", "@out"),
    "gate": GATE,
}


@pytest.mark.parametrize("verb", REFUSED)
def test_without_the_flag_nothing_of_the_users_code_is_run(place, run, capsys, verb):
    call(capsys, "baseline", "set", run.folder, "--reason", "first", "--out", place / "results")
    (place / "ran").unlink(missing_ok=True)
    code, out, error = stockpot(capsys, place, *REFUSED[verb], allow=False)
    assert (code, error.count("\n"), out) == (2, 1, "")
    assert error.endswith(
        "suite.yaml: pool 'main' runs code, 'nets/net.py:build'; --allow-code runs it: read it first\n"
    )
    assert not (place / "ran").exists()
    assert not (place / "other").exists()


def test_a_suite_is_validated_without_running_its_code(place, capsys):
    (place / "ran").unlink(missing_ok=True)
    code, out, _ = call(capsys, "validate", place / "suite.yaml")
    assert (code, out.split()[:2]) == (0, ["best_single", "linear"])
    assert not (place / "ran").exists()


def test_every_variant_of_a_run_has_scores_costs_and_a_study(run):
    table = run.variants[run.variants["seed"] == "all"].set_index("variant")
    assert dict(table["status"]) == dict.fromkeys(table.index, "ok")
    assert table[["accuracy", "flops_per_example", "latency_ratio_p50"]].notna().all(axis=None)
    assert table.loc["uniform_soup", "accuracy"] > 0.5
    assert table.loc["linear", "params_stored"] == 2 * table.loc["uniform_soup", "params_stored"]
    assert table.loc["distill/epochs=1,size=half", "params_stored"] < table.loc["uniform_soup", "params_stored"] / 2
    assert set(run.subsets["subset"]) == {"0+1"}


def test_an_export_is_a_member_and_a_candidate_and_says_not_where_it_was_made(place, run, capsys):
    code, out, _ = stockpot(capsys, place, "export", "@results/own/latest", "uniform_soup", "@soup")
    assert (code, out.strip()) == (0, str(place / "soup"))
    assert not any(str(place).encode() in file.read_bytes() for file in (place / "soup").iterdir())
    name, options = json.loads((place / "soup/architecture.json").read_text())
    assert (name, options["width"], options["build"]["function"]) == ("image_module", 4, "net:build")
    call(capsys, "baseline", "set", run.folder, "--reason", "first", "--out", place / "results")
    code, out, error = stockpot(capsys, place, *(
        "@soup" if a == "@one.safetensors" else a for a in GATE), "--stands-for", "uniform_soup")  # fmt: skip
    assert code == 0, (out, error)
    found = read_run(place / "results/own-candidate/latest").examples
    theirs = run.examples[run.examples["variant"] == "uniform_soup"]
    assert list(found["prediction"]) == list(theirs["prediction"])
    torch.testing.assert_close(*(torch.tensor(list(each["nll"])) for each in (found, theirs)), rtol=1e-6, atol=1e-6)
    code, _, error = stockpot(capsys, place, *(a for a in GATE))
    assert code == 0, error


@pytest.mark.parametrize("allow", [False, True])
def test_a_folder_that_was_exported_runs_no_code_as_a_hugging_face_folder(place, run, capsys, allow):
    if not (place / "soup").exists():
        stockpot(capsys, place, "export", "@results/own/latest", "uniform_soup", "@soup")
    (place / "ran").unlink(missing_ok=True)
    code, _, error = stockpot(capsys, place, "run", "@hf.yaml", "--out", "@other", allow=allow)
    assert code == 2
    assert "soup: 'net:build' builds it, a function of a user's; name it under module: members" in error
    assert not (place / "ran").exists()
