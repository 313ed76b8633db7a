"""lm-eval's own tasks on made-up documents: Stockpot against ``simple_evaluate`` on every one.

Their data are on the hub. Documents of their format are searched for: the fields that templates and functions of the
task ask for, filled with values of all kinds until lm-eval itself can evaluate the task. ``make lm-eval-tasks`` goes
through all of them (half an hour on one core) and lists what differs, is refused, or finds no documents.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import json
import logging
import random
import re
import signal
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import datasets
import jinja2
import jinja2.meta
import lm_eval.evaluator
import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from harness.errors import BadInput
from harness.tasks import questions as loading
from harness.tasks.asked import rehearse
from harness.tasks.questions import Questions
from tests.tasks.lm_eval_oracle import MadeUp, difference

ROWS = 6
SPLITS = ("train", "validation", "test", "dev", "val")
KINDS = ("number", "count", "count_text", "letter", "word", "digit", "words", "text_of_words", "texts_and_labels",
         "list_of_texts", "one_hot", "record")  # fmt: skip


@dataclass
class Fields:
    """Which fields the documents have and of what kind each is; grows by what errors ask for."""

    kinds: dict[str, str]
    nested: set[str] = field(default_factory=set)
    literals: tuple[str, ...] = ()

    def documents(self) -> list[dict[str, Any]]:
        kinds = self.kinds or {"text": "word"}
        return [{name: self._value(name, kind, row) for name, kind in kinds.items()} for row in range(ROWS)]

    def _value(self, name: str, kind: str, row: int) -> Any:
        words = [f"{name} {row} word{'s' * place}" for place in range(4)]
        letters = list("ABCD")
        values = {
            "number": row % 2,
            "count": 1 + row % 2,
            "count_text": str(1 + row % 2),
            "letter": letters[row % 2],
            "word": words[0],
            "digit": str(row % 2),
            "words": words,
            "text_of_words": str(words),
            "texts_and_labels": {
                **dict.fromkeys(sorted(self.nested), words[0]),
                "text": words, "label": letters, "labels": [1, 0, 0, 0], "choices": words,
            },
            "list_of_texts": [{"text": word, "label": "ABCD"[place], "para": word} for place, word in enumerate(words)],
            "one_hot": [int(place == row % 2) for place in range(4)],
            "record": dict.fromkeys(sorted(self.nested), words[0]) or {"text": words[0]},
        }
        if kind.startswith("literal:"):
            return kind.removeprefix("literal:")
        return values[kind]


def known(name: str) -> list[dict[str, Any]] | None:
    """Documents of the formats that no search finds, since their fields depend on each other."""
    letters, words = "ABCD", ("one", "two words", "three words here", "four")
    options = dict(zip(letters, words, strict=True))
    of_groups = {"ans0": ["a man", "M"], "ans1": ["a woman", "F"], "ans2": ["unknown", "unknown"]}
    answers = {"ans0": "The man", "ans1": "The woman", "ans2": "Not known"}
    formats = {
        r"bigbench_\w+_multiple_choice": lambda row: {
            "inputs": f"input {row}", "targets": [words[row % 4]], "multiple_choice_targets": list(words),
            "multiple_choice_scores": [int(place == row % 4) for place in range(4)]},
        "agieval": lambda row: {"query": f"query {row}", "choices": list(words), "gold": [row % 4]},
        "arabic_leaderboard_arabic_mmlu|arabic_mt_mmlu": lambda row: {
            "question": f"q {row}", "subject": "law", **options, "answer": letters[row % 4]},
        "crows_pairs": lambda row: {
            "sent_more": f"more {row}", "sent_less": f"less {row}", "stereo_antistereo": "stereo",
            "bias_type": name.split("_")[-1] if name.count("_") > 2 else "age"},
        r"bbq": lambda row: {
            "category": "Gender_identity", "example_id": row, "question_index": "1", "context": f"context {row}",
            "question_polarity": ("neg", "nonneg")[row % 2], "context_condition": ("ambig", "disambig")[row // 2 % 2],
            "question": "Who?", **answers, "answer_info": of_groups, "label": row % 3,
            "additional_metadata": {"stereotyped_groups": ["F"], "subcategory": "", "version": "", "source": ""}},
        r"evalita-mp_sa": lambda row: {"text": f"text {row}", "opos": str(row % 2), "oneg": str(row // 2 % 2)},
        r"(\w+_)?winogrande": lambda row: {
            "sentence": f"The _ ran {row}.", "option1": "cat", "option2": "dog", "answer": str(1 + row % 2)},
        r"arabicmmlu": lambda row: {
            "Question": f"q {row}", "Context": None, "Subject": "Law", "Level": "High", "Country": "UAE", "Group": "x",
            "Answer Key": letters[row % 4], **{f"Option {place + 1}": word for place, word in enumerate(words)},
            "Option 5": "five", "Source": "", "ID": row},
    }  # fmt: skip
    found = next((make for pattern, make in formats.items() if re.match(pattern, name)), None)
    return [found(row) for row in range(ROWS)] if found else None


@cache
def manager() -> TaskManager:
    return TaskManager()


@contextlib.contextmanager
def quiet_and_made_up(documents: list[dict[str, Any]]) -> Any:
    """lm-eval without its environment's report, on these documents in every split, whatever data a task names."""
    data = datasets.Dataset.from_list(documents)
    given = datasets.DatasetDict(dict.fromkeys(SPLITS, data))

    class Every(dict):  # some splits have names of their own
        def __missing__(self, key: str) -> Any:
            return data

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets, "load_dataset", lambda *_, **__: Every(given))
    patch.setattr(loading, "_manager", lambda *_: (manager(), False))
    patch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
    patch.setattr(lm_eval.evaluator, "get_git_commit_hash", lambda: "")
    quiet = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    try:
        with quiet[0], quiet[1], warnings.catch_warnings(action="ignore"):
            yield
    finally:
        patch.undo()


def evaluate(name: str) -> dict[str, Any]:
    """lm-eval's own evaluation of a task."""
    found = lm_eval.simple_evaluate(MadeUp(), tasks=[name], task_manager=manager(), bootstrap_iters=0, log_samples=True)
    assert found is not None
    return found


def ask(name: str) -> Questions:
    """Stockpot's rendering; ``BadInput`` where it refuses the task."""
    questions = Questions([name], None)
    if questions.choices:  # a suite needs more than texts to predict, or answers that are more or less right
        rehearse(questions)
    elif questions.prompts:
        vars(questions.documents)["written"] = False
    return questions


# The search for documents.


def fields_of(config: dict[str, Any]) -> Fields:
    """The fields that a task's templates name, of the kinds that the templates use them as."""
    fields = Fields({})
    literals: list[str] = []
    for key in ("doc_to_text", "doc_to_choice", "doc_to_target", "description", "gen_prefix"):
        template = config.get(key)
        literals += [str(item) for item in template] if isinstance(template, list) else []
        if not isinstance(template, str) or "/lm_eval/tasks/" in template:
            continue
        if re.fullmatch(r"[A-Za-z_]\w*", template) and key != "description":
            fields.kinds[template] = {"doc_to_choice": "words", "doc_to_target": "number"}.get(key, "word")
            continue
        with contextlib.suppress(jinja2.TemplateError):
            tree = jinja2.Environment().parse(template)
            for variable in sorted(jinja2.meta.find_undeclared_variables(tree)):
                fields.kinds.setdefault(variable, "number" if key == "doc_to_target" else "word")
            literals += [str(node.value) for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)]
            _hint(tree, fields)
    fields.literals = tuple(dict.fromkeys(literals))
    return fields


def _hint(tree: jinja2.nodes.Template, fields: Fields) -> None:
    """Kinds from how a template uses its variables."""
    nodes = jinja2.nodes
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        part = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        if isinstance(part, str) and not hasattr(str, part) and not hasattr(list, part):
            fields.nested.add(part)
        if isinstance(node.node, nodes.Name) and node.node.name in fields.kinds:
            if isinstance(part, int):
                fields.kinds[node.node.name] = "words"
            elif part in fields.nested:
                fields.kinds[node.node.name] = "texts_and_labels"
    for node in tree.find_all(nodes.For):
        if isinstance(node.iter, nodes.Name):
            fields.kinds[node.iter.name] = "words"
    for node in tree.find_all(nodes.Call):
        called = node.node
        if isinstance(called, nodes.Getattr) and called.attr == "index" and isinstance(node.args[0], nodes.Name):
            known = [item.value for item in getattr(called.node, "items", []) if isinstance(item, nodes.Const)]
            first = known[0] if known else "A"
            fields.kinds[node.args[0].name] = "count" if isinstance(first, int) else f"literal:{first}"
    for node in tree.find_all(nodes.Getitem):
        if isinstance(node.node, nodes.Dict) and isinstance(node.arg, nodes.Name):
            fields.kinds[node.arg.name] = _literal(node.node.items[0].key.value)
    for node in tree.find_all(nodes.Filter):
        if node.name == "int" and isinstance(node.node, nodes.Name):
            fields.kinds[node.node.name] = "count_text"
    for node in tree.find_all(nodes.Sub):
        if isinstance(node.left, nodes.Name):
            fields.kinds[node.left.name] = "count"


def _literal(value: Any) -> str:
    return "count" if isinstance(value, int) else f"literal:{value}"


def kinds_in_code(name: str) -> dict[str, str]:
    """Of each field that the functions of a task look up, the kind that they use it as."""
    functions = [getattr(value, "func", value) for value in _functions_of(name)]
    modules = {sys.modules.get(function.__module__) for function in functions}
    found: dict[str, str] = {}
    for module in modules:
        with contextlib.suppress(OSError, TypeError, SyntaxError):
            tree = ast.parse(inspect.getsource(module))
            parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
            for node in ast.walk(tree):
                constant = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
                if constant and (kind := _used_as(node, parents.get(node), module)):
                    found.setdefault(str(node.slice.value), kind)
    return found


def _used_as(node: ast.AST, parent: Any, module: Any) -> str | None:
    match parent:
        case ast.Attribute(attr=method) if hasattr(str, method):
            return "words" if hasattr(list, method) else "word"
        case ast.Call(func=ast.Attribute(attr="index", value=ast.List(elts=[ast.Constant(value=first), *_]))):
            return _literal(first)
        case ast.Call(func=ast.Name(id="int")):
            return "count_text"
        case ast.Call(func=ast.Name(id="ord")):
            return "letter"
        case ast.Call(func=ast.Name(id="len" | "enumerate" | "zip" | "list")) | ast.For() | ast.comprehension():
            return "words"
        case ast.Subscript(value=ast.Name(id=table), slice=inner) if inner is node:
            known = getattr(module, table, None)
            return _literal(next(iter(known))) if isinstance(known, dict) and known else "number"
        case ast.Subscript(value=ast.Dict(keys=[ast.Constant(value=first), *_]), slice=inner) if inner is node:
            return _literal(first)
        case ast.Subscript(value=inner, slice=ast.Constant(value=part)) if inner is node:
            return "words" if isinstance(part, int) else "texts_and_labels"
        case ast.Compare(comparators=[ast.Constant(value=value)]):
            return _literal(value)
        case ast.BinOp(op=ast.Sub()):
            return "count"
        case ast.FormattedValue():
            return "word"
    return None


def _functions_of(name: str) -> list[Any]:
    """The functions that a task file names, some with arguments; none where they cannot be imported here."""
    path = manager().task_index[name].yaml_path
    assert path is not None
    with contextlib.suppress(Exception):
        return [value for value in load_yaml(path).values() if callable(value)]
    return []


def constants_of(name: str) -> tuple[str, ...]:
    """What the functions of a task are given, compare with or look up: a filter keeps the documents that have it."""
    found: list[Any] = []
    for value in _functions_of(name):
        if isinstance(value, functools.partial):
            found += [*value.args, *value.keywords.values()]
            value = value.func
        with contextlib.suppress(OSError, TypeError, SyntaxError):
            for node in ast.walk(ast.parse(inspect.getsource(sys.modules[value.__module__]))):
                parts: list[Any] = node.comparators if isinstance(node, ast.Compare) else []
                parts = node.keys[:5] if isinstance(node, ast.Dict) else parts
                parts = node.elts[:5] if isinstance(node, ast.List) else parts
                found += [part.value for part in parts if isinstance(part, ast.Constant)]
    return tuple(dict.fromkeys(text for text in found if isinstance(text, str)))


MISSING = (r"'(\w+)' is undefined", r"KeyError: '([^']+)'", r"KeyError: \"Column (\w+) not in",
           r"'dict object' has no attribute '(\w+)'", r"Column '?(\w+)'? ", r"KeyError\('(\w+)'\)")  # fmt: skip
"""How errors name a field that the documents lack."""
MISUSE = re.compile("has no attribute|unhashable|unsupported operand|cannot mix|concatenate|subscriptable|not support")
"""Faults that a kind brings which the field cannot have."""
EMPTY = "size 0"
"""Where the task's filter keeps no document."""
RESTART = 25
SECONDS = 60


def search(name: str, tries: int = 80) -> tuple[str, str]:
    """A verdict on a task ("equal", "differs", "refused" or "no documents"), and its reason."""
    entry = manager().task_index[name]
    assert entry.cfg is not None
    if documents := known(name):
        with contextlib.suppress(Exception), quiet_and_made_up(documents):
            return _compared(name)
    draw = random.Random(name)
    fields, in_code, constants = fields_of(entry.cfg), kinds_in_code(name), constants_of(name)
    fields.literals = tuple(dict.fromkeys([*constants, *fields.literals]))
    verdict, reason, last = "no documents", "", ""
    for attempt in range(tries):
        if attempt % RESTART == RESTART - 1:
            told = {**in_code, **fields_of(entry.cfg).kinds}
            fields.kinds = {key: told.get(key) or _guess(key) for key in fields.kinds}
        trial = _changed(fields, last, constants, draw) if attempt else fields
        try:
            with quiet_and_made_up(trial.documents()):
                verdict, reason = _compared(name)
            if verdict != "refused":
                return verdict, reason
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != last and (not MISUSE.search(text) or MISUSE.search(last)):  # perhaps it came further
                fields.kinds, last = trial.kinds, text
            missing = next((match.group(1) for pattern in MISSING if (match := re.search(pattern, text))), None)
            if missing and _is_a_name(missing) and missing not in fields.kinds:
                fields.kinds[missing] = in_code.get(missing) or _guess(missing)
                fields.nested.add(missing)
            reason = reason if verdict == "refused" else text[:200]
    return verdict, reason


def _compared(name: str) -> tuple[str, str]:
    """A verdict on the documents as they are; errors where they are not of the task's format."""
    try:
        questions = ask(name)
    except BadInput as refused:
        if any(word in str(refused) for word in ("cannot be loaded", "label", "right choices")):
            raise
        evaluate(name)  # lm-eval can
        return "refused", str(refused)
    wrong = difference(questions, evaluate(name))
    return ("differs", wrong) if wrong else ("equal", "")


def _changed(fields: Fields, fault: str, constants: tuple[str, ...], draw: random.Random) -> Fields:
    """The fields with one or two of another kind, those that the fault blames if it does."""
    trial = Fields(dict(fields.kinds), fields.nested, fields.literals)
    empty = EMPTY in fault and constants
    literals = [f"literal:{text}" for text in (constants if empty else trial.literals[:20])]
    kept = {key for key, kind in trial.kinds.items() if kind.removeprefix("literal:") in constants}
    free = sorted(trial.kinds) if EMPTY in fault or draw.random() < 0.2 else sorted(set(trial.kinds) - kept)
    free = _blamed(fault, trial) or free
    for key in draw.sample(free, min(len(free), draw.choice((1, 1, 2)))):
        trial.kinds[key] = draw.choice(literals if empty else [*KINDS, *literals])
    return trial


def _blamed(fault: str, fields: Fields) -> list[str]:
    """The fields whose values an error names: not in a list, or no key of a dictionary."""
    if (found := re.search(r"(\w+) \d word", fault)) and found.group(1) in fields.kinds:
        return [found.group(1)]
    if found := re.search(r"KeyError: (\S+)$|ValueError: (\S+) is not in list", fault.split("; a task")[0]):
        key = (found.group(1) or found.group(2)).strip("'")
        return sorted({name for row in fields.documents() for name, value in row.items() if str(value) == key})
    return []


def _is_a_name(missing: str) -> bool:
    """Whether a field can be called so; else it is a value that was looked up, or a method that the value lacks."""
    methods = any(hasattr(of, missing) for of in (str, list, dict, int))
    return len(missing) > 1 and not methods and not re.search(r" \d word", missing)


def _guess(name: str) -> str:
    if name.lower() in ("choices", "options", "endings", "answers", "solutions", "candidates"):
        return "words"
    return "number" if re.search("label|answer|gold|idx", name, re.I) else "word"


def signature(name: str) -> str:
    """What makes two tasks the same but for their data, and which of these they keep."""
    config = dict(manager().task_index[name].cfg or {})
    config["process_docs"] = str(config.get("process_docs")).rpartition(".")[0]
    aside = ("task", "task_alias", "tag", "group", "dataset_path", "dataset_name", "dataset_kwargs", "description",
             "metadata")  # fmt: skip
    return json.dumps({key: value for key, value in config.items() if key not in aside}, sort_keys=True, default=str)


def kinds() -> dict[str, list[str]]:
    """The multiple-choice and rolling tasks that are YAML files, by signature."""
    found: dict[str, list[str]] = {}
    for name, entry in sorted(manager().task_index.items()):
        taken = (loading.CHOICES, loading.ROLLING, loading.WRITTEN)
        if entry.kind is Kind.TASK and (entry.cfg or {}).get("output_type") in taken:
            found.setdefault(signature(name), []).append(name)
    return found


class TooLong(BaseException):
    """A task that loads what is not on this machine; no ``Exception``, or the search would go on."""


def _too_long(*_: Any) -> None:
    raise TooLong


def main(part: int = 0, parts: int = 1) -> None:
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    counts: Counter[str] = Counter()
    alike: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _too_long)
    for names in list(kinds().values())[part::parts]:
        signal.alarm(SECONDS)
        try:
            verdict, reason = search(names[0])
        except TooLong:
            verdict, reason = "no documents", f"it took more than {SECONDS} seconds"
        signal.alarm(0)
        counts[verdict] += 1
        alike[verdict] += len(names)
        if verdict != "equal":
            print(f"{verdict}: {names[0]} (and {len(names) - 1} like it): {reason[:300]}", flush=True)
    print(f"kinds of tasks: {dict(counts)}; tasks: {dict(alike)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
