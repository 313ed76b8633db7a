"""Keys: the digest of all that goes into an artefact, code too, names it, so what is found is never stale."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType
from typing import Any

Facts = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Of a module: the digest of what it does, the names of its own code that it imports, and the libraries."""


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form (sorted keys, no spaces); NaN and unknown types are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@cache
def code_version(module: str) -> str:
    """Digest of what a module's code does, with all it imports from harness and its own package, directly or not.

    So a change to one method's file makes that method's artefacts anew and leaves all others alone; of a plug-in its
    own files count as ours do. Libraries count by their version: another torch may give other numbers. Comments,
    docstrings and what is imported for type checkers only do not count.
    """
    sources: dict[str, str] = {}
    libraries: set[str] = set()
    waiting = [module]
    if _module_facts(module) is None:
        raise ValueError(f"there is no module '{module}'")
    while waiting:
        name = waiting.pop()
        if name in sources or (facts := _module_facts(name)) is None:
            continue
        sources[name], imports, used = facts
        waiting.extend(imports)
        libraries.update(used)
    return digest([sources, {package: library_version(package) for package in libraries}])


@cache
def _module_facts(name: str) -> Facts | None:
    """Of a module that can be imported; None where it is no module."""
    spec = _spec(name)
    if spec is None or spec.origin is None:  # "from harness.keys import Key": Key is not a module
        return None
    return facts_of(Path(spec.origin), spec.parent or "", {"harness", name.split(".")[0]}.__contains__)


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, without importing what it is in, as ``importlib.util.find_spec`` would."""
    parent = name.rpartition(".")[0]
    if not parent or name in sys.modules:
        return importlib.util.find_spec(name)
    above = sys.modules.get(parent)
    place = _spec(parent) if above is None else None
    path = getattr(above, "__path__", None) or (place and place.submodule_search_locations)
    return PathFinder.find_spec(name, path) if path else None


def facts_of(file: Path, package: str, own: Callable[[str], bool]) -> Facts:
    """What a module's file says, which is not run.

    Args:
        file: of Python, or compiled.
        package: that the module is in, for its relative imports.
        own: whether the code of a package, by the first part of its name, counts by itself, and not by its version.

    Raises:
        SyntaxError, ValueError: a file that is not Python.
    """
    if file.suffix != ".py":  # a compiled module of a plug-in
        return file_digest(file), (), ()
    tree = ast.parse(file.read_bytes(), str(file))
    packages = {found: found.split(".")[0] for found in _names(tree, own, package)}
    ours = tuple(found for found, top in packages.items() if own(top))
    libraries = {top for top in packages.values() if not own(top)} - sys.stdlib_module_names
    does = _what_runs(compile(tree, "", "exec", dont_inherit=True, optimize=0))
    return hashlib.sha256(repr(does).encode()).hexdigest(), ours, tuple(sorted(libraries))


def _version(code: str) -> str:
    module, _, function = code.partition(":")
    return _of_function(code_version(module), function) if function else code_version(module)


@cache
def _of_function(version: str, function: str) -> str:
    return digest([version, function])


def named(function: Callable[..., Any]) -> str:
    """A function, or class, as the code of a key.

    Raises:
        TypeError: for what is not written in a module under its name, whose code could not be told.
    """
    if not hasattr(function, "__qualname__") or "<" in function.__qualname__:
        raise TypeError(f"{function} is no function or class of a module, so no key could name its code")
    return f"{function.__module__}:{function.__qualname__}"


def read_code() -> None:
    """Read the code of all modules of ours that are imported, now: what ``code_version`` says is of this moment."""
    for name in [name for name in sys.modules if name.split(".")[0] == "harness"]:
        _module_facts(name)


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The statements that import, of a module or statement; and take out those that do nothing.

    That is what is only a string (docstrings, of attributes too), and what type checkers read. Expressions, which most
    of a module is, have no statements in them and are not looked at.
    """
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        inside = getattr(node, field, None)
        if not isinstance(inside, list):  # an expression
            continue
        kept = list(_running(inside))
        for each in kept:
            if isinstance(each, ast.Import | ast.ImportFrom):
                yield each
            yield from _imports(each)
        nothing = ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=4)
        inside[:] = kept or ([nothing] if inside and field == "body" else [])


def _running(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for each in statements:
        if isinstance(each, ast.If):
            name = each.test.attr if isinstance(each.test, ast.Attribute) else getattr(each.test, "id", None)
            yield from _running(each.orelse) if name == "TYPE_CHECKING" else [each]
        elif not (isinstance(each, ast.Expr) and isinstance(getattr(each.value, "value", None), str)):
            yield each


def _names(tree: ast.Module, own: Callable[[str], bool], package: str) -> Iterator[str]:
    """The names that are imported: of packages of its own also what is taken from them, which may be a module."""
    for node in _imports(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield module
            if own(module.split(".")[0]):
                yield from (f"{module}.{alias.name}" for alias in node.names)
        else:
            yield from (alias.name for alias in node.names)


def _what_runs(code: CodeType) -> list[Any]:
    """Compiled code without its places in the file, in a form that is the same in every process."""
    said = [code.co_code, code.co_exceptiontable, code.co_flags, code.co_qualname, code.co_names, code.co_varnames]
    said += [code.co_freevars, code.co_cellvars, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
    return [*said, *map(_constant, code.co_consts)]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _what_runs(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value  # of words its order is the process's


@cache
def library_version(package: str) -> str | None:
    """The version of the distribution that a package comes from; None where it is not installed."""
    names = _distributions().get(package, [])
    return ", ".join(sorted(f"{name} {metadata.version(name)}" for name in set(names))) or None


_distributions = cache(metadata.packages_distributions)


@dataclass(frozen=True)
class Key:
    """What an artefact is made of; two keys are the same artefact exactly if their digests are equal."""

    kind: str
    inputs: str

    @classmethod
    def of(cls, kind: str, *, code: str | Sequence[str], **inputs: Any) -> Key:
        """The key of an artefact of this kind made by the module ``code`` (or several) from these JSON inputs.

        A function that no import shows, since it was looked up, is ``module:name``.
        """
        version = _version(code) if isinstance(code, str) else [_version(each) for each in code]
        return cls(kind, json.dumps({"code": version, **inputs}, sort_keys=True, allow_nan=False))

    @cached_property
    def digest(self) -> str:
        return digest([self.kind, self.inputs])

    @cached_property
    def folder(self) -> str:
        """The artefact's, below that of a store."""
        return f"{self.kind}/{self.digest[:2]}/{self.digest[2:40]}"
