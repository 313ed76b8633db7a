"""What a suite's tasks of lm-eval ask, as one digest: two runs whose digests differ were not asked the same.

To render all requests takes lm-eval, which takes seconds to load. So the digest is kept, under everything that can
change what is rendered, for tasks of which all of that can be seen: YAML files and their includes, plain data files on
this machine, and Stockpot's own functions. What else a task may read cannot be seen without running it: data of the hub
or its cache, folders and patterns of data files, and whatever a function of the task reads (files, the environment, the
time). Tasks with any of these are rendered again whenever a run is planned.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.errors import BadInput
from harness.keys import Key, code_version, digest, file_digest
from harness.store import Store, read_json, write_json
from harness.tasks.answers import answers_of
from harness.tasks.corpora import corpus_digest
from harness.tasks.data_files import data_files
from harness.tasks.questions import WRITTEN, Question, Questions, as_lm_eval, canonical, cluster_of
from harness.tasks.task import Documents

OWN = "harness"
"""The package whose functions are known to read nothing but the corpora and the pinned archives."""
RENDERERS = ("lm_eval", "datasets", "jinja2", "pyarrow")
"""The libraries that turn files into requests."""


def asked(
    names: Sequence[str], include_path: str | None, limit: int | None, store: Store, *, allow_code: bool = False
) -> str:
    """The digest of all that the tasks ask; rendered unless nothing that it is made of has changed since it last was.

    Raises:
        BadInput: for tasks that a suite cannot take.
    """
    key = Key.of(
        "asked",
        code=__name__,
        names=list(names),
        place=[os.getcwd(), include_path],
        files=_task_files(include_path),
        limit=limit,
        versions={name: version(name) for name in RENDERERS},
        lm_eval=_lm_eval_code(),
        documents=[code_version("harness.tasks.documents"), corpus_digest()],
    )
    if store.has(key):
        record = read_json(store.read(key) / "asked.json")
        same = all(Path(path).is_file() and file_digest(Path(path)) == sha for path, sha in record["sources"].items())
        if same and store.has(_documents_key(record["digest"])):
            return str(record["digest"])
    questions = Questions(names, include_path, limit, allow_code=allow_code)
    rehearse(questions)
    asked = digest_of(questions)
    _keep_documents(asked, questions.documents, store)
    store.remove(key)
    if (sources := _sources(questions)) is not None:
        with store.write(key) as folder:
            write_json(folder / "asked.json", {"digest": asked, "sources": sources})
    return asked


def asked_apart(
    names: Sequence[str],
    scored: Sequence[str],
    include_path: str | None,
    store: Store,
    *,
    allow_code: bool = False,
) -> str:
    """As ``asked``, of tasks whose documents methods may see: none of these may be among the scored tasks' documents.

    All documents count, whatever limit a run has: what is fitted in a trial run is what is fitted in a whole one.

    Raises:
        BadInput: also for tasks without choices, and for a document that is scored as well.
    """
    if twice := [name for name in names if name in scored]:
        hint = "methods see held-out: name a task of other documents (its validation split, say)"
        raise BadInput(f"'{twice[0]}' is under lm_eval and under heldout", place="task: heldout", hint=hint)
    found = asked(names, include_path, None, store, allow_code=allow_code)
    documents = read_documents(found, store)
    if documents is None or documents.written:
        raise BadInput("no task has choices to decide by", place="task: heldout", hint="name a multiple_choice task")
    of_test = asked(scored, include_path, None, store, allow_code=allow_code)
    key = Key.of("apart", code=__name__, heldout=found, scored=of_test)
    if not store.has(key):
        each = [Questions(given, include_path, None, allow_code=allow_code) for given in (scored, names)]
        known, seen = ({digest(_requests(question)): question.id for own in questions.of.values() for question in own}
                       for questions in each)  # fmt: skip
        if both := next((each for each in seen if each in known), None):
            document, same = seen[both], known[both]
            raise BadInput(f"document '{document}' asks what '{same}' asks, which is scored", place="task: heldout",
                           hint="methods see held-out: its documents have to be others")  # fmt: skip
        with store.write(key) as folder:
            write_json(folder / "apart.json", {"heldout": found})
    return found


def digest_of(questions: Questions) -> str:
    """The digest of every rendered request in order, what is right, and how answers are scored."""
    groups = {
        name: [group.child_names, canonical(_parts(group.aggregate_metric_list))]
        for name, group in questions.groups.items()
    }
    tasks = [_digest_of_task(questions, name, task) for name, task in questions.tasks.items()]
    return digest([version("lm_eval"), tasks, groups])


def rehearse(questions: Questions) -> None:
    """Score made-up answers: ``BadInput`` for what lm-eval cannot score or a suite cannot take, before a model runs."""
    if not questions.documents.ids:
        raise BadInput("a suite needs a multiple-choice or generate_until task among its lm_eval tasks")
    draw = torch.Generator().manual_seed(0)
    values = -1 - 20 * torch.rand(len(questions.instances), generator=draw, dtype=torch.float64)
    answers_of(questions, values.tolist(), (values > -5).tolist(), draws=1, written=_made_up(questions))


def _made_up(questions: Questions) -> list[list[str]]:
    """Texts that are right, partly right, wrong or empty, for every prompt."""
    texts: list[list[str]] = []
    for name, task in questions.of_kind(WRITTEN):
        for position, question in enumerate(questions.of[name]):
            target = _target(task, question)
            known = str(target[0] if isinstance(target, list) and target else target)
            text = (known, known[: len(known) // 2] + " 42", "7", "")[position % 4]
            texts.append([text] * question.requests[0].repeats)
    return texts


def _target(task: Any, question: Question) -> Any:
    """What a document should be answered, by its task."""
    with as_lm_eval():
        return task.doc_to_target(deepcopy(question.doc))


def read_documents(asked: str, store: Store) -> Documents | None:
    """The multiple-choice documents of tasks with this digest; None where no process has kept them."""
    key = _documents_key(asked)
    if not store.has(key):
        return None
    record = read_json(store.read(key) / "documents.json")
    return Documents(**{**record, "labels": torch.tensor(record["labels"])})


def _keep_documents(asked: str, documents: Documents, store: Store) -> None:
    record: dict[str, Any] = {each.name: getattr(documents, each.name) for each in fields(Documents)}
    if not store.has(key := _documents_key(asked)):
        with store.write(key) as folder:
            write_json(folder / "documents.json", {**record, "labels": documents.labels.tolist()})


def _documents_key(asked: str) -> Key:
    return Key.of("documents", code=("harness.tasks.questions", "harness.tasks.task"), asked=asked)


# What is asked.


def _digest_of_task(questions: Questions, name: str, task: Any) -> str:
    """The digest of one task.

    If it brings functions, each document counts whole: they may score by anything there, as may filters of texts.
    """
    scoring = [task.get_config(key) for key in ("process_results", "metric_list", "filter_list")]
    functions = list(_functions([scoring, None if _is_plain(task) else type(task)]))
    labels = dict(zip(questions.documents.ids, questions.documents.labels.tolist(), strict=True))
    documents = []
    for position, question in enumerate(questions.of[name]):
        right = [questions.choices[name][position], labels[question.id]] if name in questions.choices else []
        if is_written := task.OUTPUT_TYPE == WRITTEN:
            right = [canonical(_target(task, question))]
        whole = canonical(question.doc) if functions or is_written else ""
        cluster = [found] if (found := cluster_of(question)) else []
        documents.append(digest([question.id, right, whole, _requests(question), *cluster]))
    aggregations = {metric: _named(function) for metric, function in task.aggregation().items()}
    scores = [canonical(_parts(scoring)), aggregations, canonical(_parts(task.higher_is_better()))]
    return digest([name, task.OUTPUT_TYPE, scores, _code(functions), documents])


def _requests(question: Question) -> list[Any]:
    return [[r.request_type, [str(text) for text in r.args], r.idx, r.repeats] for r in question.requests]


def _parts(value: Any) -> Any:
    """A setting with the names of its functions in their place."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _parts(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _parts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_parts(item) for item in value]
    return _named(value) if callable(value) else value


def _named(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _functions(value: Any) -> Iterator[Any]:
    """The functions and classes in a setting, however deep."""
    if isinstance(value, partial):
        yield from _functions([value.func, value.args, value.keywords])
    elif is_dataclass(value) and not isinstance(value, type):  # before dictionaries: a TaskConfig is one, and empty
        yield from _functions([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, dict):
        yield from _functions(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _functions(item)
    elif callable(value):
        yield value


def _code(functions: Sequence[Any]) -> list[str]:
    """Digests of the modules of these functions, and of all that they import but installed packages."""
    waiting = [sys.modules.get(getattr(function, "__module__", type(function).__module__)) for function in functions]
    files: dict[Path, str] = {}
    while waiting:
        place = getattr(waiting.pop(), "__file__", None)
        if place is None or (path := Path(place)) in files or path.suffix != ".py":
            continue
        files[path] = file_digest(path)
        imported = [sys.modules.get(name) for name in _imports(ast.parse(path.read_text(encoding="utf-8")))]
        waiting += [module for module in imported if not _is_installed(getattr(module, "__file__", None))]
    return sorted(files.values())


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_installed(file: str | None) -> bool:
    """Whether a module is of Python or of an installed package, whose versions are in run.json."""
    if file is None:
        return True
    places = (sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(Path(file).is_relative_to(place) for place in places)


# What it is made of.


def _task_files(include_path: str | None) -> dict[str, str]:
    """The YAML files that lm-eval indexes, by their place in the folder, with their content."""
    if include_path is None:
        return {}
    files = [path for path in sorted(Path(include_path).glob("**/*.yaml")) if path.is_file()]
    return {str(path.relative_to(include_path)): file_digest(path) for path in files}


@cache
def _lm_eval_code() -> str:
    """Of lm-eval's own code but its tasks, which an installation that can be edited may change under one version."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    tasks = [*folder.glob("tasks/*.py")]
    files = [path for path in folder.glob("**/*.py") if "tasks" not in path.relative_to(folder).parts[:1]]
    return digest({str(path.relative_to(folder)): file_digest(path) for path in sorted([*files, *tasks])})


def _sources(questions: Questions) -> dict[str, str] | None:
    """The files besides ``_task_files`` that the requests are made of, by path; None where some cannot be seen."""
    if not questions.local or questions.groups:
        return None
    paths: set[Path] = set()
    for task in questions.tasks.values():
        config = task.config
        data = [] if config.custom_dataset else data_files(config.dataset_path, config.dataset_kwargs or {})
        if not _is_plain(task) or data is None or not all(_is_own(function) for function in _functions(task.config)):
            return None
        paths.update(data)
        paths.update(_yaml_files(Path(task.config.metadata["config_source"])))
    return {str(path): file_digest(path) for path in sorted(paths)}


def _is_plain(task: Any) -> bool:
    """Whether a task is made of its YAML file alone."""
    from lm_eval.api.task import ConfigurableTask

    return type(task) is ConfigurableTask and task.config.use_prompt is None


def _is_own(function: Any) -> bool:
    name = getattr(function, "__module__", type(function).__module__)
    file = getattr(sys.modules.get(name), "__file__", None)
    return name.startswith(f"{OWN}.") and file is not None and Path(file).is_relative_to(Path(__file__).parents[1])


def _yaml_files(path: Path) -> Iterator[Path]:
    """A task file and those that it includes, as lm-eval finds them."""
    from lm_eval.tasks._yaml_loader import load_yaml

    yield path
    included = load_yaml(path, resolve_func=False, recursive=False).get("include", [])
    for each in included if isinstance(included, list) else [included]:
        yield from _yaml_files((path.parent / each).resolve())
