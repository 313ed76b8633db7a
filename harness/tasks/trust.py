"""What a task file may make lm-eval run: nothing without --allow-code, and templates only in a sandbox.

lm-eval imports whatever a task file names after ``!function``, fetches metrics that it does not know as scripts, and
renders templates with all of Python within reach. A task that ships with lm-eval needs no flag, and neither does a
function of ``harness.tasks.documents``; a task that a file of the user's changes is the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template, Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.errors import BadInput
from harness.tasks import documents

HINT = "--allow-code runs what the task files name: read them first"
PLAIN = (str, bytes, int, float, list, tuple, dict, set, frozenset, range, Decimal, date, time, timedelta)
"""Values whose methods give values and do nothing else; that an image can be saved, a template need not know."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which only plain values and Jinja's own objects have methods, and none changes a document."""

    source: Any = ""
    """The template that is being rendered, for messages."""

    def from_string(self, source: Any, *arguments: Any, **options: Any) -> Template:
        self.source = source
        return super().from_string(source, *arguments, **options)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        problem = f"the template '{self.source}' may not use '{attribute}' of a {type(obj).__name__}"
        return self.undefined(problem, name=attribute, obj=obj, exc=SecurityError)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        own = type(obj).__module__.partition(".")[0] == "jinja2"
        return own or not callable(value) or any(isinstance(obj, kind) and hasattr(kind, attr) for kind in PLAIN)


def sandbox_templates() -> None:
    """Make lm-eval render its templates in a sandbox, from now on, in this process; what they render is the same."""
    from lm_eval import utils

    if isinstance(utils.env, Sandbox):
        return
    plain = utils.env
    sandbox = Sandbox(
        loader=plain.loader, undefined=plain.undefined, keep_trailing_newline=plain.keep_trailing_newline
    )
    sandbox.filters.update(plain.filters)
    utils.env = sandbox


def check_files(names: Sequence[str], include_path: str) -> None:
    """As ``check_code``, for those of the tasks that are below a folder; to index lm-eval's own takes seconds."""
    from lm_eval.tasks import TaskManager

    check_code(TaskManager(include_path=include_path, include_defaults=False).task_index, names)


def check_code(index: Mapping[str, Any], names: Sequence[str]) -> None:
    """``BadInput`` where one of the tasks, or of the tasks of a group or a tag, would run code that a file names.

    Args:
        index: lm-eval's entries by name; loading goes by the same.
        names: what is asked for; a name that the index does not have is passed over.
    """
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES

    waiting, seen = [(name, False) for name in names], set()
    while waiting:
        name, changed = item = waiting.pop()
        if item in seen or name not in index:
            continue
        seen.add(item)
        entry = index[name]
        if entry.yaml_path is None:  # a tag
            waiting += [(task, changed) for task in entry.tags]
            continue
        shipped = _ships_with_lm_eval(entry.yaml_path)
        if changed or not shipped:
            _check_functions(name, entry.yaml_path, set())
            _check_names(name, entry.cfg, entry.yaml_path)
        if any(settings.get("unsafe_code") for settings in _mappings(entry.cfg)):
            raise BadInput(f"task '{name}' runs the code that models write (unsafe_code)", place=str(entry.yaml_path),
                           hint=HINT)  # fmt: skip
        children = entry.cfg.get("task") if "group" in entry.cfg else None
        if isinstance(children, str | list):
            listed = [children] if isinstance(children, str) else children
            plain = set(entry.cfg) <= GROUP_FIELD_NAMES | {"tag"} and all(isinstance(child, str) for child in listed)
            named = [child for child in _values(listed, set()) if isinstance(child, str)]
            waiting += [(child, changed or not (plain or shipped)) for child in named]


def _ships_with_lm_eval(file: Path) -> bool:
    from lm_eval import tasks

    return file.resolve().is_relative_to(Path(tasks.__file__).resolve().parent)


def _check_functions(task: str, file: Path, seen: set[Path]) -> None:
    """``BadInput`` at the first function that a file, or one that it includes, names."""
    from lm_eval.tasks._yaml_loader import _make_loader, load_yaml

    file = file.expanduser().resolve()
    if file in seen:
        return
    seen.add(file)
    _check_tags(task, file, _make_loader(file.parent, resolve_funcs=False))
    included = load_yaml(file, resolve_func=False, recursive=False).get("include", [])
    for name in included if isinstance(included, list) else [included]:
        _check_functions(task, file.parent / name, seen)


def _check_tags(task: str, file: Path, loader: Any) -> None:
    """Go through the values that lm-eval's parser makes, which are also those of keys that a later key hides."""
    with open(file, "rb") as content:
        root = yaml.compose(content, Loader=loader)
    for key, node in _nodes(root, "", set()):
        called = node.tag == "!function" and not _is_ours(str(node.value), file.parent)
        if called or node.tag.startswith("tag:yaml.org,2002:python/"):
            what = node.value if called else node.tag.rpartition(":")[2]
            problem = f"task '{task}' calls code that the file names: {key or 'a key'} is '{what}'"
            raise BadInput(problem, place=f"{file}:{node.start_mark.line + 1}", hint=HINT)


def _is_ours(function: str, folder: Path) -> bool:
    """Whether lm-eval finds a function in ``harness.tasks.documents``: a module beside the task file comes first."""
    module = function.rpartition(".")[0]
    beside = (folder / f"{module.replace('.', '/')}.py").resolve()
    return module == documents.__name__ and (not beside.exists() or beside == Path(documents.__file__).resolve())


def _check_names(task: str, settings: Any, file: Path) -> None:
    """``BadInput`` where a metric is a script, or a prompt is from where templates are not rendered in the sandbox."""
    from lm_eval.api import metrics  # noqa: F401  (which fills the registry)
    from lm_eval.api.registry import metric_registry

    for part in _mappings(settings):
        for metric in _mappings(part.get("metric_list")):
            name = metric.get("metric")
            if name is not None and (metric.get("hf_evaluate") or str(name) not in metric_registry):
                problem = f"task '{task}' fetches a script: metric_list names '{name}', a metric that lm-eval has not"
                raise BadInput(problem, place=str(file), hint=HINT)
        prompt = part.get("use_prompt")
        source = prompt.partition(":")[0] if isinstance(prompt, str) else ""
        if source == "promptsource":
            problem = f"task '{task}' renders templates of another package: use_prompt is '{prompt}'"
            raise BadInput(problem, place=str(file), hint=HINT)
        if ".yaml" in source and Path(source).is_file():
            _check_tags(task, Path(source), yaml.FullLoader)


def _nodes(node: yaml.Node | None, key: str, seen: set[int]) -> Iterator[tuple[str, yaml.Node]]:
    """Every node of a YAML document, each once, with the key that it is first met under."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    yield key, node
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _nodes(name, key, seen)
            yield from _nodes(value, str(name.value), seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _nodes(item, key, seen)


def _values(value: Any, seen: set[int]) -> Iterator[Any]:
    """A value and every value in it, at any depth, each list and mapping once."""
    if id(value) in seen:
        return
    yield value
    if isinstance(value, dict | list):
        seen.add(id(value))
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item, seen)


def _mappings(value: Any) -> Iterator[dict[Any, Any]]:
    return (found for found in _values(value, set()) if isinstance(found, dict))
