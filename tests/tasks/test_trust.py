"""What a task file names is not run unless the user says so, and its templates never leave the sandbox."""

import dataclasses
import json
import random
import re
from pathlib import Path

import lm_eval.config.task
import lm_eval.tasks
import PIL.Image
import pytest
import yaml
from jinja2 import Environment, StrictUndefined, meta, nodes
from jinja2.exceptions import SecurityError
from lm_eval import utils
from lm_eval.tasks import TaskManager

from harness.cli.main import main
from harness.errors import BadInput
from harness.lm.plugin import run_lm_eval
from harness.tasks.questions import Questions
from harness.tasks.trust import Sandbox, check_code, check_files, sandbox_templates

LM_EVAL = Path(lm_eval.tasks.__file__).parent
SHIPPED = Path(__file__).parents[2] / "suites" / "tasks"
TASK = {
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
MODULE = """
from datasets import Dataset, Features, Image, Value
import PIL.Image
MARKER = open({marker!r}, "w")
def run(*_, **__):
    image = PIL.Image.new("L", (1, 1))
    rows = [{{"question": f"What is {{i}}?", "choices": ["yes", "no"], "gold": i, "image": image}} for i in range(2)]
    return {{"test": Dataset.from_list(rows)}}
"""


class Loader(yaml.SafeLoader):
    """Leaves what a tag names as text."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def folder(tmp_path, marker):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "module.py").write_text(MODULE.format(marker=str(marker)))
    return folder


def write(folder, settings, name="mine", extra=""):
    """A task file; a value that begins with !function is a function."""
    text = yaml.safe_dump({"task": name, **settings}, sort_keys=False)
    (folder / f"{name}.yaml").write_text(text.replace("'!function module.run'", "!function module.run") + extra)


FUNCTION = "!function module.run"
FIELDS = [f.name for f in dataclasses.fields(lm_eval.config.task.TaskConfig) if f.name not in ("task", "tag")]
OF_FEWSHOT = [f.name for f in dataclasses.fields(lm_eval.config.task.FewshotConfig)]
KEYS = {
    "class": {"class": FUNCTION},
    **{name: {name: FUNCTION} for name in FIELDS},
    **{f"fewshot_config {name}": {"fewshot_config": {name: FUNCTION}} for name in OF_FEWSHOT},
    **{f"metric_list {key}": {"metric_list": [{"metric": "acc", key: FUNCTION}]} for key in ("metric", "aggregation")},
    "filter function": {"filter_list": [{"name": "f", "filter": [{"function": FUNCTION}]}]},
    "filter_fn": {"filter_list": [{"name": "f", "filter": [{"function": "custom", "filter_fn": FUNCTION}]}]},
    "a list in a list": {"metadata": {"deep": [[{"deeper": [FUNCTION]}]]}},
}


@pytest.mark.parametrize("key", KEYS)
def test_a_function_is_called_under_no_key_without_the_flag_and_under_every_key_with_it(folder, marker, key):
    write(folder, {**TASK, "custom_dataset": None, **KEYS[key]})
    with pytest.raises(BadInput, match=r"mine\.yaml:\d+: task 'mine' calls code .*'module\.run'.*--allow-code"):
        Questions(["mine"], str(folder))
    assert not marker.exists()
    try:
        Questions(["mine"], str(folder), allow_code=True)
    except BadInput as problem:  # most keys want something else than this function gives
        assert "--allow-code" not in str(problem)
    assert marker.exists()


@pytest.mark.parametrize(
    "extra",
    [
        "process_docs: !function module.run\nprocess_docs: null\n",
        "? !function module.run\n: x\n",
        "metadata: &again {a: !function module.run}\nfewshot_config: {samples: [*again]}\n",
        "metadata: !<!function> module.run\n",
        "%TAG ! !fun\n---\nmetadata: !ction module.run\n",
    ],
)
def test_a_function_is_found_where_yaml_hides_it(folder, marker, extra):
    write(folder, {**TASK, "custom_dataset": None})
    file = folder / "mine.yaml"
    file.write_text(extra + file.read_text() if extra.startswith("%") else file.read_text() + extra)
    with pytest.raises(BadInput, match="--allow-code"):
        Questions(["mine"], str(folder))
    assert not marker.exists()


@pytest.mark.parametrize("names", [["mine"], ["a_tag"], ["group"], ["outer"], ["inline"]])
def test_a_function_is_found_in_whatever_file_a_name_leads_to(folder, marker, names):
    (folder / "base").write_text("process_docs: !function module.run\n")
    (folder / "between").write_text(yaml.safe_dump({**TASK, "include": ["base"]}))
    write(folder, {"include": str(folder / "between"), "tag": "a_tag"})
    (folder / "group.yaml").write_text("group: group\ntask: [mine]\n")
    (folder / "outer.yaml").write_text("group: outer\ntask:\n- group: within\n  task:\n  - {task: group, repeats: 1}\n")
    (folder / "inline.yaml").write_text("group: inline\ntask:\n- task: new\n  custom_dataset: !function module.run\n")
    with pytest.raises(BadInput, match=r"calls code .*'module\.run'.*--allow-code"):
        Questions(names, str(folder))
    assert not marker.exists()


def test_a_file_that_is_not_asked_for_is_not_refused(folder):
    write(folder, {**TASK, "process_docs": FUNCTION}, "other")
    write(folder, TASK)
    check_files(["mine"], str(folder))


PLAIN = utils.env
OPEN = "{{ cycler.__init__.__globals__.__builtins__.open(%r, 'w') }}"
TEMPLATES = [
    *("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix"),
    *(f"fewshot_config {name}" for name in ("doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix")),
    "use_prompt",
]


def test_lm_eval_renders_templates_in_one_environment():
    makes = re.compile(r"\b(from_string|Environment|Template)\(")
    files = [file for file in LM_EVAL.parent.rglob("*.py") if not file.name.startswith("_generate")]  # to write tasks
    assert [file.name for file in files if makes.search(file.read_text("utf-8"))] == ["utils.py"]


@pytest.mark.parametrize("key", ["doc_to_image", "doc_to_audio"])
def test_a_template_of_images_or_sound_is_refused_before_it_is_rendered(folder, tmp_path, monkeypatch, key):
    opened = tmp_path / "opened"
    asks(folder, key, OPEN % str(opened))
    monkeypatch.setattr("harness.tasks.questions.sandbox_templates", lambda: monkeypatch.setattr(utils, "env", PLAIN))
    with pytest.raises(BadInput, match="asks about images or sound"):
        Questions(["mine"], str(folder), allow_code=True)
    assert not opened.exists()


def asks(folder, key, template):
    """A task with one template in the place of this key."""
    written = {**TASK, "custom_dataset": FUNCTION, "num_fewshot": 1}
    first, _, second = key.partition(" ")
    if key == "use_prompt":
        prompt = {"doc_to_text": template, "doc_to_target": "yes"}
        (folder / "prompts.yaml").write_text(yaml.safe_dump({"prompts": {"mine": prompt}}))
        template = f"{folder}/prompts.yaml:mine"
        del written["doc_to_choice"]
    write(folder, {**written, first: {second: template} if second else template})


@pytest.mark.parametrize("key", TEMPLATES)
def test_a_template_leaves_the_sandbox_under_no_key_even_with_the_flag(folder, tmp_path, monkeypatch, key):
    opened = tmp_path / "opened"
    asks(folder, key, OPEN % str(opened))
    with pytest.raises(BadInput, match=r"the template '.*' may not use '__init__'"):
        Questions(["mine"], str(folder), allow_code=True)
    assert not opened.exists()
    monkeypatch.setattr("harness.tasks.questions.sandbox_templates", lambda: monkeypatch.setattr(utils, "env", PLAIN))
    try:
        Questions(["mine"], str(folder), allow_code=True)
    except BadInput as problem:  # what the template gives is no choice, no image, ...
        assert "may not use" not in str(problem)
    assert opened.exists(), "lm-eval renders this key: the case says nothing otherwise"


@pytest.mark.parametrize(
    "template",
    [
        "{{ image.save(marker) }}",
        "{{ image['save'](marker) }}",
        "{{ (image|attr('save'))(marker) }}",
        "{{ ([image]|map(attribute='save')|first)(marker) }}",
        "{% set save = image.save %}{{ save(marker) }}",
    ],
)
def test_a_template_calls_no_method_of_what_is_no_plain_value(tmp_path, template):
    document = {"image": PIL.Image.new("L", (1, 1)), "marker": str(tmp_path / "marker.png")}
    sandbox_templates()
    with pytest.raises(SecurityError, match="may not use 'save' of a Image"):
        utils.apply_template(template, document)
    assert not list(tmp_path.iterdir())
    PLAIN.from_string(template).render(document)
    assert list(tmp_path.iterdir())


def test_a_template_does_not_change_its_document():
    document = {"choices": ["b", "a"]}
    with pytest.raises(SecurityError, match="may not use 'pop' of a list"):
        Sandbox(undefined=StrictUndefined).from_string("{{ choices.pop() }}").render(document)
    assert document == {"choices": ["b", "a"]}


def lm_evals_templates():
    """The templates of every 20th file of lm-eval's: all 14,441 files take 17 s, and none differs."""
    files = sorted(file for file in LM_EVAL.rglob("*") if file.name.endswith((".yaml", "_yaml")))
    for file in files[::20]:
        waiting = [yaml.load(file.read_bytes(), Loader)]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value
            elif isinstance(value, str) and ("{{" in value or "{%" in value):
                yield value


def made_up(template):
    """Documents for a template: its variables are words, numbers, lists and mappings, and words that it names."""
    tree = PLAIN.parse(template)
    names = sorted(meta.find_undeclared_variables(tree))
    words = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    fields = {node.attr for node in tree.find_all(nodes.Getattr)} | set(words)
    mapping = dict.fromkeys(fields, ["u", "v"] * 3)
    kinds = ["a, b. C: d", "1", 1, True, ["a b", "c", "d", "e", "f"], [0, 1], mapping, *words]
    draw = random.Random(0)
    yield from (dict.fromkeys(names, kind) for kind in kinds)
    yield from ({name: draw.choice(kinds) for name in names} for _ in range(300))


def test_the_templates_of_lm_eval_render_in_the_sandbox_what_they_render_without():
    sandbox_templates()
    assert isinstance(utils.env, Sandbox)
    rendered, called = 0, 0
    templates = set(lm_evals_templates())
    for template in templates:
        plain, sandboxed = PLAIN.from_string(template), utils.env.from_string(template)
        for document in made_up(template):
            before = json.dumps(document)
            try:
                expected = plain.render(document)
            except Exception:  # not the document that this template is for
                continue
            assert json.dumps(document) == before
            assert sandboxed.render(document) == expected
            rendered, called = rendered + 1, called + ("(" in template)
            break
    assert len(templates) > 100
    assert rendered > 0.95 * len(templates)
    assert called > 10


def test_the_sandbox_has_all_that_lm_evals_environment_has():
    sandbox_templates()
    assert type(PLAIN) is Environment
    options = [name for name, value in vars(PLAIN).items() if isinstance(value, str | bool | type | None)]
    assert {"undefined", "loader", "keep_trailing_newline", "autoescape", "block_start_string"} < set(options)
    for name in options:
        assert getattr(utils.env, name) == getattr(PLAIN, name)
    assert utils.env.filters == PLAIN.filters
    assert "regex_replace" in PLAIN.filters
    assert utils.env.tests == PLAIN.tests
    assert set(utils.env.globals) == set(PLAIN.globals)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric_list": [{"metric": "mine/script"}]}, "metric_list names 'mine/script'"),
        ({"metric_list": [{"metric": "exact_match", "hf_evaluate": True}]}, "metric_list names 'exact_match'"),
        ({"use_prompt": "promptsource:mine"}, "use_prompt is 'promptsource:mine'"),
        ({"unsafe_code": True}, "runs the code that models write"),
    ],
)
def test_what_is_code_by_another_name_is_refused(folder, changes, words):
    write(folder, {**TASK, **changes})
    with pytest.raises(BadInput, match=rf"mine\.yaml: .*{words}.*--allow-code"):
        Questions(["mine"], str(folder))


def test_a_file_of_prompts_names_no_objects(folder):
    (folder / "prompts.yaml").write_text("prompts: !!python/name:ctypes.cdll\n")  # whose items are loaded libraries
    write(folder, {**TASK, "use_prompt": f"{folder}/prompts.yaml:./library.so"})
    with pytest.raises(BadInput, match=r"prompts\.yaml:1: .*'ctypes\.cdll'.*--allow-code"):
        Questions(["mine"], str(folder))


def test_neither_a_script_nor_a_reference_file_in_the_place_of_data_is_run(folder, tmp_path, marker):
    (folder / "script.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (folder / "refs.json").write_text(json.dumps({"version": 1, "templates": {"u": OPEN % str(marker)},
                                                  "refs": {"x.jsonl": ["{{u}}"]}}))  # fmt: skip
    data = {"data_files": f"reference://x.jsonl::{folder}/refs.json", "cache_dir": str(tmp_path / "cache")}
    write(folder, {**TASK, "dataset_path": str(folder / "script.py")}, "script")
    write(folder, {**TASK, "dataset_path": "json", "dataset_kwargs": data}, "reference")
    for name, words in (("script", "scripts are no longer supported"), ("reference", "'__init__' of .* is unsafe")):
        with pytest.raises(BadInput, match=words):
            Questions([name], str(folder), allow_code=True)
    assert not marker.exists()


def index_of(*folders):
    return TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False).task_index


def test_a_task_of_lm_eval_needs_no_flag_unless_a_file_of_the_users_changes_it(folder):
    hellaswag = LM_EVAL / "hellaswag"
    (folder / "group.yaml").write_text("group: plain\ntask: [hellaswag]\n")
    (folder / "changed.yaml").write_text("group: changed\ntask:\n- task: hellaswag\n  metadata: {pretrained: here}\n")
    (folder / "all.yaml").write_text("group: all\nnum_fewshot: 1\ntask: [hellaswag]\n")
    (folder / "own.yaml").write_text(f"include: {hellaswag}/hellaswag.yaml\ntask: own\n")
    index = index_of(hellaswag, folder)
    check_code(index, ["hellaswag", "plain"])
    for name in ("changed", "all", "own"):
        with pytest.raises(BadInput, match=r"hellaswag\.yaml:\d+: .*process_docs is 'utils\.process_docs'"):
            check_code(index, [name])


def test_code_that_models_write_needs_the_flag_also_where_lm_eval_runs_it():
    with pytest.raises(BadInput, match="'humaneval' runs the code that models write"):
        check_code(index_of(LM_EVAL / "humaneval"), ["humaneval"])


def test_the_tasks_that_come_with_stockpot_need_no_flag_wherever_they_lie(tmp_path):
    names = [file.stem for file in SHIPPED.glob("*.yaml")]
    assert len(names) > 5
    check_files(names, str(SHIPPED))
    for name in names:
        (tmp_path / f"{name}.yaml").write_text((SHIPPED / f"{name}.yaml").read_text())
    check_files(names, str(tmp_path))


def test_a_module_beside_the_file_is_not_ours_whatever_its_name(folder):
    shadow = folder / "harness" / "tasks"
    shadow.mkdir(parents=True)
    (shadow / "documents.py").write_text("")
    write(folder, TASK, extra="custom_dataset: !function harness.tasks.documents.cloze_dataset\n")
    with pytest.raises(BadInput, match="--allow-code"):
        check_files(["mine"], str(folder))


@pytest.mark.parametrize("command", ["run", "plan"])
def test_the_command_line_refuses_code_in_one_line_before_anything_is_built(folder, marker, tmp_path, capsys, command):
    write(folder, {**TASK, "custom_dataset": FUNCTION})
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: s\ntask: {lm_eval: [mine], include_path: tasks}\nmethods: [best_single]\n"
        "pool: {train: {architecture: tiny_llama, start: independent, members: 2}}\n"
    )
    with pytest.raises(SystemExit) as stopped:
        main([command, str(suite), "--out", str(tmp_path / "results")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in ("mine.yaml:", "custom_dataset", "module.run", "--allow-code"):
        assert word in error
    assert not marker.exists()
    assert not (tmp_path / "results").exists()


def test_a_suite_cannot_allow_code(tmp_path, capsys):
    suite = tmp_path / "suite.yaml"
    task = "task: {lm_eval: [mine], allow_code: true}"
    suite.write_text(f"suite: s\n{task}\npool: {{hf: {{members: [a]}}}}\nmethods: [linear]\n")
    with pytest.raises(SystemExit) as stopped:
        main(["validate", str(suite)])
    assert stopped.value.code == 2
    assert "unknown key 'allow_code'" in capsys.readouterr().err


def test_lm_evals_own_command_renders_in_the_sandbox_too(monkeypatch):
    monkeypatch.setattr(utils, "env", PLAIN)
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: None)
    monkeypatch.setattr("sys.argv", [])
    run_lm_eval([])
    assert isinstance(utils.env, Sandbox)
