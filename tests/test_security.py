"""Laws of the whole command: nothing that a file holds is run, what is secret is in no output, nobody is asked.

A marker file says that code ran, a canary that something leaked, a log of addresses that the network was reached for.
"""

import csv
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lm_eval.tasks import TaskManager
from safetensors.torch import save_file

from harness import environment
from harness.tasks.archives import archive_folder
from tests.cli.command import call
from tests.gate.planted import coins, planted, saved
from tests.pools import planted_predictions as predictions
from tests.recipes.families import write_models
from tests.recipes.small_adapters import put
from tests.tasks.local_tasks import function, write_task

CHECKOUT = Path(__file__).parent.parent
CANARY = "canary-3f9a"
NO_NETWORK = """
import os, socket
def reach(*arguments, **options):
    with open(os.environ["ADDRESSES"], "a") as log:
        log.write(repr(arguments[-1]) + "\\n")
    raise OSError("there is no network")
plain = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
for name in plain:  # processes of one machine talk by files
    def found(self, address, name=name):
        return plain[name](self, address) if self.family == socket.AF_UNIX else reach(address)
    setattr(socket.socket, name, found)
socket.getaddrinfo = socket.gethostbyname = reach
"""
SUITE = """suite: safe
task: {lm_eval: [asked], include_path: tasks}
pool: {hf: {base: base, members: [chat, math]}}
methods:
  - best_single
  - linear
  - uniform_soup
cost: {latency: false, memory: false}
"""
POLICY = "version: 1\nrules:\n- {id: floor, match: {metric: accuracy}, min: 0.0}\n"
MODELS = [{"model": name, "parameters": {"weight": 0.5}} for name in ("chat", "math")]
RECIPE = {"merge_method": "linear", "models": MODELS}


def refused(capsys, *words):
    """The one line of a command that refuses."""
    code, out, err = call(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("stockpot: ")
    return err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A suite on models in folders, and a recipe that merges them."""
    folder = tmp_path_factory.mktemp("whole")
    write_models(folder)
    put(folder / "adapter", folder / "base", target_modules=["q_proj"])
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "recipe.yml").write_text(yaml.safe_dump(RECIPE))
    (folder / "policy.yaml").write_text(POLICY)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """The same anew."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    asked = [{"q": f"w{row % 9 + 3} w{row % 5 + 3}", "choices": ["w3", "w4 w5"], "gold": row % 2} for row in range(12)]
    write_task(tmp_path / "tasks", "asked", asked)
    return tmp_path


@pytest.fixture(scope="module", name="out")
def _out(tmp_path_factory):
    """Where all runs but the first are planned: what is made of texts is made once."""
    return tmp_path_factory.mktemp("out")


# --- Secrets and the network -----------------------------------------------------------------------------------------


def surroundings(home):
    """The variables of a user with secrets in each, and in the files that tools keep them in."""
    secret = {name: f"{CANARY}-{name}" for name in (
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "WANDB_API_KEY",
        "OPENAI_API_KEY", "DATABASE_URL", "USER", "LOGNAME", "HOSTNAME", "MAIL", "LS_COLORS", "PS1",
        "SSH_AUTH_SOCK", "PIP_INDEX_URL",
    )}  # fmt: skip
    for name in (".netrc", ".git-credentials", ".pypirc", ".cache/huggingface/token", ".config/gh/hosts.yml"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"machine huggingface.co login me password {CANARY}-{name}\n")
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, **secret, "HOME": str(home), "HF_HOME": str(home / ".cache/huggingface"), "OMP_NUM_THREADS": "1",
            "STOCKPOT_ARCHIVES": str(archive_folder())}  # fmt: skip


def verbs(run, folder):
    """Of all that read a run, or this machine."""
    asked = ("--dataset", "a/b", "--task", "t")
    return [
        ("report", run), ("gate", run, "--policy", folder / "policy.yaml", "--junit", folder / "junit.xml"),
        ("compare", run, run), ("history", "--out", folder / "out"), ("ls", "runs", "--out", folder / "out"),
        ("ls", "costs"), ("ls", "suites"), ("model-index", run, "linear"), ("eval-results", run, "linear", *asked),
        ("export", run, "uniform_soup", folder / "exported"), ("merge", folder / "recipe.yml", folder / "merged"),
        ("doctor", "--json", "--out", folder / "out"), ("doctor", "--out", folder / "out"),
        ("plan", folder / "suite.yaml", "--out", folder / "out"), ("cache", "verify", "--out", folder / "out"),
        ("baseline", "set", run, "--reason", "new", "--out", folder / "out"),
    ]  # fmt: skip


def test_a_run_in_its_processes_and_every_verb_tell_no_secret_and_ask_nobody(folder, tmp_path, capsys, monkeypatch):
    """HF_HUB_OFFLINE is not set: that nobody is asked is the harness's doing."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    log = tmp_path / "addresses"
    python = {"ADDRESSES": str(log), "PYTHONPATH": f"{tmp_path / 'site'}:{CHECKOUT}"}
    variables = surroundings(tmp_path / "home") | python
    reach = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert "there is no network" in subprocess.run([sys.executable, "-c", reach], env=variables, capture_output=True,
                                                   text=True, check=False).stderr  # fmt: skip
    log.unlink()
    command = [sys.executable, "-m", "harness.cli", "run", str(folder / "suite.yaml"), "--out", str(folder / "out")]
    done = subprocess.run([*command, "--workers", "1"], env=variables, capture_output=True, text=True, check=False,
                          cwd=tmp_path, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    assert (pd.read_csv(run / "variants.csv")["status"] == "ok").all()
    said = [done.stdout, done.stderr]

    monkeypatch.setenv("ADDRESSES", str(log))
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(CHECKOUT)
    connect, look_up = socket.socket.connect, socket.getaddrinfo
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket, "getaddrinfo", look_up)
        patch.setattr(socket.socket, "connect_ex", socket.socket.connect_ex)
        patch.setattr(socket, "gethostbyname", socket.gethostbyname)
        exec(NO_NETWORK, {})
        for words in verbs(run, folder):
            code, out, err = call(capsys, *words)
            assert code == 0, (words, err)
            said += [out, err]
    assert not log.exists(), log.read_text()
    assert not [text for text in said if CANARY in text]
    made = (file for place in ("out", "exported", "merged") for file in (folder / place).rglob("*"))
    files = [folder / "junit.xml", *(file for file in made if file.is_file())]
    assert len(files) > 30
    assert not [file for file in files if CANARY.encode() in file.read_bytes()]


def test_of_a_checkout_only_its_commit_is_told_not_where_it_was_fetched_from(tmp_path, monkeypatch):
    (tmp_path / "harness").mkdir()
    shutil.copy(environment.__file__, tmp_path / "harness" / "environment.py")
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    remote = ["remote", "add", "origin", f"https://me:{CANARY}@example.org/me/it.git"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", CANARY], remote):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "environment.py"))
    commit = environment.git_commit()
    assert len(commit) == 40
    assert int(commit, 16)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[chat, math]", "[mistralai/nope]", ["mistralai/nope: there is no such folder", "download it first"]),
        ("base: base, ", "base: nobody/base, ", ["nobody/base: there is no such folder"]),
        ("[asked]", "[askd]", ["unknown task 'askd'", "did you mean 'asked'?"]),
        ("[asked], ", "[asked], heldout: [asekd], ", ["unknown task 'asekd'", "did you mean 'asked'?"]),
    ],
)
def test_what_is_mistyped_is_a_line_at_planning_and_nobody_is_asked(old, new, words, folder, out, capsys, monkeypatch):
    def reach(*arguments):
        raise AssertionError(f"{arguments[-1]} was asked")

    monkeypatch.setattr(socket.socket, "connect", reach)
    monkeypatch.setattr(socket, "getaddrinfo", reach)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))  # its own take 5 s
    (folder / "suite.yaml").write_text(SUITE.replace(old, new))
    line = refused(capsys, "run", folder / "suite.yaml", "--out", out)
    for word in words:
        assert word in line
    assert not (out / "safe").exists()


# --- Code ------------------------------------------------------------------------------------------------------------


class Pickled:
    """What runs a command when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def all_code(folder, marker):
    """Put into a model's folder all in which code travels."""
    own = f"import os\nos.mkdir({str(marker)!r})\n"
    for name in ("own.py", "modeling_own.py", "custom_generate/generate.py", "__init__.py", "sitecustomize.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(own)
    named = {f"Auto{name}": "own.Own" for name in ("Config", "ModelForCausalLM", "ImageProcessor", "Processor")}
    template = "{{ cycler.__init__.__globals__.os.mkdir('" + str(marker) + "') }}"
    for name, more in {
        "config.json": {"auto_map": named, "custom_pipelines": {"own": {"impl": "own.Own"}}},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "chat_template": template},
        "generation_config.json": {"custom_generate": str(folder), "trust_remote_code": True},
        "preprocessor_config.json": {"auto_map": named},
        "processor_config.json": {"auto_map": named},
    }.items():
        said = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        (folder / name).write_text(json.dumps(said | more))
    (folder / "chat_template.jinja").write_text(template)
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Pickled(marker)))


def test_what_a_models_folder_holds_is_never_run(folder, out, capsys, tmp_path):
    marker = tmp_path / "marker"
    for name in ("base", "chat", "math"):
        all_code(folder / name, marker)
    code, _, err = call(capsys, "plan", folder / "suite.yaml", "--out", out)
    assert code == 0, err
    code, _, err = call(capsys, "merge", folder / "recipe.yml", folder / "merged")
    assert code == 0, err
    assert not marker.exists()
    assert not list((folder / "merged").rglob("*.py"))
    assert "auto_map" not in "".join(file.read_text() for file in (folder / "merged").glob("*.json"))
    pickle.loads((folder / "chat" / "pytorch_model.bin").read_bytes())
    assert marker.exists(), "the pickle does nothing: the test says nothing"


def only_pickled(folder, marker):
    (folder / "chat" / "model.safetensors").unlink()
    (folder / "chat" / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled(marker)))


def pickled_by_another_name(folder, marker):
    (folder / "chat" / "model.safetensors").write_bytes(pickle.dumps(Pickled(marker)))


def an_own_class(folder, marker):
    all_code(folder / "chat", marker)
    config = json.loads((folder / "chat" / "config.json").read_text())
    (folder / "chat" / "config.json").write_text(json.dumps(config | {"model_type": "own"}))


def a_kernel_of_the_hub(folder, marker):
    config = json.loads((folder / "chat" / "config.json").read_text())
    (folder / "chat" / "config.json").write_text(json.dumps(config | {"attn_implementation": "someone/kernel"}))


def a_function(folder, marker):
    (folder / "tasks" / "own.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nrun = print\n")
    write_task(folder / "tasks", "asked", process_docs=function("own.run"))


def a_template(folder, marker):
    template = "{{ cycler.__init__.__globals__.os.mkdir('" + str(marker) + "') }}"
    write_task(folder / "tasks", "asked", doc_to_text=template)


def networks_by_a_function(folder, marker):
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nbuild = print\n")
    save_file({"a": torch.zeros(1)}, folder / "a.safetensors")
    module = "pool: {module: {build: 'own:build', members: [a.safetensors]}}"
    (folder / "suite.yaml").write_text(SUITE.replace("pool: {hf: {base: base, members: [chat, math]}}", module))


def a_pickled_array(folder, marker):
    np.savez(folder / "a.npz", ids=np.array(["a"]), logits=np.array([Pickled(marker)], dtype=object))
    text = predictions.SUITE.replace("b: b.parquet, c: c.csv", "") + "  - best_single\n"
    (folder / "suite.yaml").write_text(text)
    predictions.write_labels(folder)


CODE = {
    only_pickled: "chat: model.safetensors is missing; pickled weights are not read",
    pickled_by_another_name: "model.safetensors cannot be read",
    an_own_class: "the model brings its own code, which is not run",
    a_kernel_of_the_hub: "a kernel of the hub, which is code: 'someone/kernel'",
    a_function: "--allow-code",
    a_template: "may not use '__init__'",
    networks_by_a_function: "--allow-code",
    a_pickled_array: "pickled objects, which are not read",
}


@pytest.mark.parametrize("spoil", CODE, ids=lambda each: each.__name__)
def test_what_would_run_code_is_refused_in_a_line(spoil, folder, out, capsys, tmp_path):
    marker = tmp_path / "marker"
    spoil(folder, marker)
    assert CODE[spoil] in refused(capsys, "run", folder / "suite.yaml", "--out", out)
    assert not marker.exists()


# --- Paths -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path_factory):
    """A file outside of every folder that is named."""
    file = tmp_path_factory.mktemp("outside") / "secret"
    file.write_text(json.dumps({"secret": CANARY}))
    return file


def linked(name):
    def link(folder, secret):
        (folder / "chat" / name).unlink(missing_ok=True)
        (folder / "chat" / name).symlink_to(secret)

    return link


def linked_template(folder, secret):
    (folder / "chat" / "additional_chat_templates").mkdir()
    (folder / "chat" / "additional_chat_templates" / "rag.jinja").symlink_to(secret)


def linked_folder(folder, secret):
    (folder / "chat" / "additional_chat_templates").symlink_to(secret.parent)


def a_shard_outside(folder, secret):
    shutil.move(folder / "chat" / "model.safetensors", secret.parent / "away.safetensors")
    index = {"weight_map": {"lm_head.weight": os.path.relpath(secret.parent / "away.safetensors", folder / "chat")}}
    (folder / "chat" / "model.safetensors.index.json").write_text(json.dumps(index))


def weights_by_a_setting(folder, secret):
    shutil.move(folder / "chat" / "model.safetensors", secret.parent / "away.safetensors")
    config = json.loads((folder / "chat" / "config.json").read_text())
    where = os.path.relpath(secret.parent / "away.safetensors", folder / "chat")
    (folder / "chat" / "config.json").write_text(json.dumps(config | {"transformers_weights": where}))


PATHS = {
    **{f"a link {name}": linked(name) for name in ("tokenizer.json", "vocab.txt", "LICENSE", "generation_config.json")},
    "a link of weights": linked("model.safetensors"),
    "a link of a template": linked_template,
    "a link of a folder": linked_folder,
    "a shard": a_shard_outside,
    "weights by a setting": weights_by_a_setting,
}


@pytest.mark.parametrize("lead_away", PATHS.values(), ids=PATHS)
def test_a_models_folder_leads_to_nothing_outside_of_it(lead_away, folder, secret, out, capsys):
    lead_away(folder, secret)
    for words in (("plan", folder / "suite.yaml", "--out", out), ("merge", folder / "recipe.yml", folder / "m")):
        line = refused(capsys, *words)
        assert "out of the folder" in line or "outside the folder" in line or "model.safetensors is missing" in line
        assert CANARY not in line
    assert not (folder / "m").exists()


def test_a_folder_that_is_a_link_and_the_cache_of_the_hub_are_models(folder, out, capsys):
    snapshot = folder / "hub" / "models--a--b" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "blobs").mkdir()
    for number, file in enumerate(sorted((folder / "math").iterdir())):
        shutil.move(file, snapshot.parents[1] / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    (folder / "math").rmdir()
    (folder / "math").symlink_to(snapshot)
    assert call(capsys, "plan", folder / "suite.yaml", "--out", out)[0] == 0
    assert call(capsys, "merge", folder / "recipe.yml", folder / "merged")[0] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "XLORA", "adapters": {"0": "someone/adapter"}, "hidden_size": 16}, "reads other adapters"),
        ({"megatron_config": {"a": 1}, "megatron_core": "own"}, "a module that peft would import: 'own'"),
    ],
)
def test_an_adapter_names_neither_other_folders_nor_modules(changes, words, folder, out, capsys):
    file = folder / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    (folder / "suite.yaml").write_text(SUITE.replace("[chat, math]", "[adapter]"))
    assert words in refused(capsys, "plan", folder / "suite.yaml", "--out", out)


def test_an_adapters_base_is_the_one_that_the_suite_names(folder, out, capsys):
    file = folder / "adapter" / "adapter_config.json"
    changed = json.loads(file.read_text()) | {"base_model_name_or_path": "someone/else", "revision": "x"}
    file.write_text(json.dumps(changed))
    (folder / "suite.yaml").write_text(SUITE.replace("[chat, math]", "[adapter]"))
    code, _, err = call(capsys, "plan", folder / "suite.yaml", "--out", out)
    assert code == 0, err


# --- Names -----------------------------------------------------------------------------------------------------------

HOSTILE = ["<script>alert(1)</script>", "=HYPERLINK(\"http://x\")", "::error::forged", "\x1b[2J|`*_[x](http://x)"]


class Page(HTMLParser):
    """What a page would run or fetch."""

    def __init__(self):
        super().__init__()
        self.scripts, self.links = [], []

    def handle_starttag(self, tag, attributes):
        if tag == "script":
            self.scripts.append(dict(attributes))
        led = (value for name, value in attributes if name in ("src", "href"))
        self.links += [value for value in led if not value.startswith(("#", "data:"))]
        assert not [name for name, _ in attributes if name.startswith("on")]


@pytest.mark.usefixtures("in_this_process")
def test_hostile_labels_and_names_are_text_wherever_they_are_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predictions, "CLASSES", HOSTILE)
    labels = np.random.default_rng(0).integers(len(HOSTILE), size=predictions.ROWS)
    monkeypatch.setattr(predictions, "LABELS", labels)
    predictions.write_labels(tmp_path)
    for member, name in enumerate("abc"):
        predictions.wide(member).to_parquet(tmp_path / f"{name}=::error::<b>.parquet", index=False)
    members = ", ".join(f'{name}: "{name}=::error::<b>.parquet"' for name in "abc")
    suite = predictions.SUITE.replace("a: a.npz, b: b.parquet, c: c.csv", members)
    suite = suite.replace("suite: planted", "suite: planted\nquestion: \"<script>::error::\\e[2J</script>\"")
    (tmp_path / "suite.yaml").write_text(suite + "  - best_single\n  - linear\n  - uniform_soup\n")
    code, out, err = call(capsys, "run", tmp_path / "suite.yaml", "--out", tmp_path / "out")
    assert code == 0, err
    run = Path(out.strip())
    (tmp_path / "policy.yaml").write_text(POLICY)
    said = [err]
    for words in (
        ("gate", run, "--policy", tmp_path / "policy.yaml", "--junit", tmp_path / "j.xml",
         "--summary", tmp_path / "s.md"),
        ("compare", run, run), ("ls", "suites", tmp_path), ("model-index", run, "linear"),
        ("plan", tmp_path / "suite.yaml", "--out", tmp_path / "out"),
        ("ls", "runs", "--out", tmp_path / "out"), ("history", "--out", tmp_path / "out"),
    ):  # fmt: skip
        code, out, err = call(capsys, *words)
        said += [out, err]
    for text in said:
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    with open(run / "variants.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number(cell)]
    page = Page()
    page.feed((run / "report.html").read_text())
    assert page.links == []
    assert all(set(script) <= {"type", "id"} for script in page.scripts)
    assert "alert(1)" not in "".join(part for part in (run / "report.html").read_text().split("<script>")[1:])
    ElementTree.parse(tmp_path / "j.xml")
    for file in (run / "report.md", tmp_path / "s.md"):
        assert "<script" not in file.read_text()
        assert "\x1b" not in file.read_text()


def test_a_run_of_others_is_text_in_every_verb(tmp_path, capsys):
    """Names that no suite can give, as an edited or forged run may have them."""
    name = "\x1b[2J\n::error::forged ##[error]<script>"
    right = {"linear": coins(0.7, 60), name: coins(0.8, 60)}
    record = {"suite": {"name": name, "digest": "d" * 64, "yaml": "suite: planted\nseeds: [0]\n"}, "device": name,
              "status": name, "git_commit": name}  # fmt: skip
    run = saved(planted(right, **record), tmp_path / "out" / "::error::" / "run")
    other = saved(planted(right, **record), tmp_path / "out" / "::error::" / "other")
    (tmp_path / "policy.yaml").write_text(POLICY)
    junit, summary = tmp_path / "j.xml", tmp_path / "s.md"
    codes = []
    for words in (
        ("gate", run, "--policy", tmp_path / "policy.yaml", "--junit", junit, "--summary", summary),
        ("compare", run, other), ("ls", "runs", "--out", tmp_path / "out"), ("history", "--out", tmp_path / "out"),
        ("model-index", run, name), ("eval-results", run, name, "--dataset", "a/b", "--task", "t"), ("report", run),
        ("export", run, name, tmp_path / "exported"),
        ("baseline", "set", run, "--reason", name, "--out", tmp_path / "b"),
        ("baseline", "show", "--out", tmp_path / "b"),
    ):  # fmt: skip
        code, out, err = call(capsys, *words)
        codes.append(code)
        for line in (out + err).split("\n"):
            assert "\x1b" not in line, words
            assert not line.lstrip().startswith("::"), words
            assert "##[" not in line, words
    assert 0 in codes
    ElementTree.parse(junit)
    assert "<script" not in re.sub("`[^`\n]*`", "", summary.read_text())  # between such marks text is no HTML


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True
