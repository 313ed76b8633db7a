"""A function of a user's that builds a network: where it is found, what its code is, and how it is loaded.

What it does counts by its syntax tree and those of all its own imports, which are read and not run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from harness.errors import BadInput
from harness.keys import digest, facts_of, library_version
from harness.types import Architecture

INSTALLED = ("site-packages", "dist-packages")
"""The folders that packages are installed in."""


@dataclass(frozen=True)
class Code:
    """A function of a user's; two are the same if they do the same, wherever they lie."""

    function: str
    """``package.module:function``."""
    digest: str
    root: str | None = field(default=None, compare=False)
    """The folder that its module is imported from; None: the environment."""

    def __str__(self) -> str:
        return f"{self.function} {self.digest[:16]}"

    @property
    def module(self) -> str:
        return self.function.partition(":")[0]


def code_in(architecture: Architecture) -> Code | None:
    """The user's function that builds an architecture; None for networks of ours."""
    found = dict(architecture.options).get("build")
    return found if isinstance(found, Code) else None


def code_named(build: str, folder: Path) -> Code:
    """The function that a suite names, by its files: nothing of them is run.

    Args:
        build: ``package.module:function``, of the folder or the environment, or ``path/to/file.py:function``.
        folder: that of the suite.

    Raises:
        BadInput: no such file or module, or one that is not Python.
    """
    importlib.invalidate_caches()
    where, _, function = build.rpartition(":")
    root, module = folder.absolute(), where
    if where.endswith(".py"):
        file = root / Path(where).expanduser()
        if not file.is_file():
            raise BadInput(f"there is no such file, which '{build}' is in", place=str(file))
        root, module = _importable(file)
    elif _home(module, root) is None:
        hint = f"it is neither below {root} nor installed"
        raise BadInput(f"there is no module '{module}', which '{build}' is in", hint=hint)
    private = _file(module, root) is not None and not _is_loaded(module, root)
    name = f"{module}:{function}"
    return Code(name, _digest_of(name, root if private else None), str(root) if private else None)


def _importable(file: Path) -> tuple[Path, str]:
    """The folder that a file is imported from, and the name of its module: packages that it is in belong to it."""
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _file(module: str, root: Path) -> Path | None:
    """The file of a module below a folder."""
    place = root.joinpath(*module.split("."))
    names = [place / "__init__.py", *(place.parent / f"{place.name}{end}" for end in (".py", *EXTENSION_SUFFIXES))]
    return next((name for name in names if name.is_file()), None)


def _home(module: str, root: Path | None) -> Path | None:
    """The file of a module: below a folder, or where its package is installed; packages above it are not imported."""
    if root is not None and (found := _file(module, root)):
        return found
    try:
        spec = importlib.util.find_spec(module.split(".")[0])
    except ValueError:  # a module that was made, and not imported
        return None
    if spec is None:
        return None
    places = [Path(place).parent for place in spec.submodule_search_locations or ()]
    places += [Path(spec.origin).parent] if spec.origin and not places else []
    return next((found for place in places if (found := _file(module, place))), None)


def _is_loaded(module: str, folder: Path) -> bool:
    """Whether this process has imported a module's package from below a folder: as anyone's, it is taken as it is."""
    top = module.split(".")[0]
    return top in sys.modules and _lies_in(sys.modules[top], folder / top)


def _lies_in(module: ModuleType, place: Path) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return Path(file).with_suffix("") == place or Path(file).is_relative_to(place)


def _is_installed(file: Path | None) -> bool:
    """Whether a file lies where packages are installed."""
    return file is not None and any(part in INSTALLED for part in file.parts)


def _digest_of(function: str, root: Path | None) -> str:
    """Of the code behind a function: its module and all of its own that this imports, and versions of libraries.

    Its own is what lies in its folder or its package, ours, and any other code that has no version.
    """
    first = function.partition(":")[0]
    top = first.split(".")[0]

    def is_own(package: str) -> bool:
        if package == "harness" or (root is not None and (package == top or _file(package, root))):
            return True
        if package == top:  # what is installed from a folder of the user's keeps its version however it is changed
            return library_version(package) is None or not _is_installed(_home(first, None))
        return package not in sys.stdlib_module_names and library_version(package) is None

    sources: dict[str, str] = {}
    libraries: set[str] = set() if is_own(top) else {top}
    waiting = [first] if is_own(top) else []
    while waiting:
        name = waiting.pop()
        if name in sources or (file := _home(name, root)) is None:
            continue
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        try:
            sources[name], imports, used = facts_of(file, package, is_own)
        except (SyntaxError, ValueError, ImportError) as error:  # the last: a relative import that leaves its package
            raise _not_python(error, file) from None
        above = [package for package in (name.rpartition(".")[0],) if package]  # is imported with it
        waiting += [*imports, *above]
        libraries.update(used)
    return digest([function, sources, {library: library_version(library) for library in sorted(libraries)}])


def _not_python(error: Exception, file: Path) -> BadInput:
    line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return BadInput(f"this is not Python: {words}", place=f"{file}{line}")


@dataclass(frozen=True)
class Loaded:
    """A user's function, and what it imported of its own."""

    function: Callable[..., Any]
    modules: dict[str, ModuleType]
    """By name; other pools may have others of the same names."""


def load(code: Code) -> Loaded:
    """Import a user's function: from here on its code runs.

    Raises:
        BadInput: no such function, an error while it is imported, code that was changed since the run was planned.
    """
    return _load(code, code.root)


@lru_cache(maxsize=64)
def _load(code: Code, root: str | None) -> Loaded:
    importlib.invalidate_caches()
    if _digest_of(code.function, Path(root) if root else None) != code.digest:
        hint = "run the suite again"
        raise BadInput(f"the code of '{code.function}' was changed since the run was planned", hint=hint)
    modules: dict[str, ModuleType] = {}
    with (
        running(f"'{code.module}' cannot be imported", root),
        _own_modules(code.module, root, modules),
        torch.random.fork_rng(devices=[]),  # code that seeds the generator on import seeds nothing else
    ):
        module = importlib.import_module(code.module)
    name = code.function.partition(":")[2]
    try:
        function = attrgetter(name)(module)
    except AttributeError:
        function = None
    if not callable(function):
        known = [each for each, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        problem = f"there is no function '{name}'" if function is None else f"'{name}' is no function"
        raise BadInput(problem, place=str(module.__file__), given=name, choices=known)
    return Loaded(function, modules)


def call(code: Code, options: dict[str, Any]) -> Any:
    """What a user's function returns; ``BadInput`` with the line of its code in which it fails."""
    found = load(code)
    with running(f"'{code.function}' fails", code.root), _own_modules(code.module, code.root, found.modules):
        return found.function(**options)


@contextlib.contextmanager
def running(what: str, root: str | None) -> Iterator[None]:
    """Whatever a user's code raises as one line, with its place; what it prints is dropped: it is called often."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise fault_of(error, what, root) from error


def fault_of(error: BaseException, what: str, root: str | None) -> BadInput:
    """An error of a user's code as one line: its last line, and where in the user's own files it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    files = [Path(each.filename) for each in frames]
    of_user = [each for each, file in zip(frames, files, strict=True)
               if root and file.is_relative_to(root) and not _is_installed(file)]  # fmt: skip
    last = (of_user or frames)[-1]
    place = f"{last.filename}:{last.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    words = " ".join(traceback.format_exception_only(error)[-1].split())
    return BadInput(f"{what}: {words[:300]}", place=place)


@contextlib.contextmanager
def _own_modules(module: str, root: str | None, modules: dict[str, ModuleType]) -> Iterator[None]:
    """Modules of a user's folder can be imported here, and nowhere else: another folder may have the same names.

    Args:
        module: that is loaded.
        root: the folder; None: what is loaded is installed, and imported as anything else.
        modules: those that are there already, by name; new ones are added.
    """
    if root is None:
        yield
        return
    own = {module.split(".")[0], *(name.split(".")[0] for name in modules)}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in own}
    before, writes = {name.split(".")[0] for name in sys.modules}, sys.dont_write_bytecode
    sys.modules.update(modules)
    sys.path.insert(0, root)
    sys.dont_write_bytecode = True  # a file that is edited within a second would be read as it was
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(root)
        for name in list(sys.modules):
            top = name.split(".")[0]
            if top not in before and (top in own or _lies_in(sys.modules[name], Path(root) / top)):
                modules[name] = sys.modules.pop(name)
        sys.modules.update(hidden)
