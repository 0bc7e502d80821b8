"""From a target on the command line to the functions that it means."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gradkit._errors import TargetError, describe, did_you_mean
from gradkit._registry import registry_scope


@dataclass(frozen=True)
class Place:
    """A module that a target names.

    Attributes:
        label: What the user would call it.
        path: Its file, or `None` for one that is found by name.
        function: The function that was asked for, or `None` for all.
    """

    label: str
    path: Path | None
    function: str | None


def find_places(target: str) -> list[Place]:
    """The modules behind `FILE`, `FOLDER` or `MODULE`, each with an optional `:function`.

    Raises:
        TargetError: If there is no such thing.
    """
    name, _, function = target.rpartition(":") if ":" in target else (target, "", "")
    if len(name) == 1:  # the drive of a Windows path
        name, function = target, ""
    path = Path(name)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.py") if not _is_hidden(p.relative_to(path)))
        if function:
            what = f"{target!r} asks for a function of a folder"
            raise TargetError(describe(what, fix=f"name the file: {name}/FILE.py:{function}"))
        if not files:
            raise TargetError(describe(f"folder {name!r} holds no Python files"))
        return [Place(str(p), p, None) for p in files]
    if path.is_file():
        return [Place(name, path, function or None)]
    if path.suffix == ".py" or len(path.parts) > 1:
        parent = path.parent if path.parent.is_dir() else Path()
        close = did_you_mean(path.name, (p.name for p in parent.iterdir()))
        raise TargetError(describe(f"there is no file {name!r}{close}"))
    return [Place(name, None, function or None)]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


@contextlib.contextmanager
def opened(place: Place) -> Iterator[ModuleType]:
    """The module of a place. What loading a file left behind is undone in the end.

    Raises:
        TargetError: If it cannot be imported.
    """
    package = None if place.path is None else _package_name(place.path)
    if place.path is not None and package is None:
        with _script(place.path) as module:
            yield module
        return
    root = "" if place.path is None else str(_package_root(place.path))
    with _first_on_path(root or str(Path.cwd())):
        name = package or place.label
        module = _import(name, place.label)
        if place.path is not None and not _is_same_file(module, place.path):
            raise TargetError(
                describe(
                    f"{place.label!r} is shadowed by an installed package",
                    expected=f"module {name!r} from {place.label}",
                    got=str(getattr(module, "__file__", None)),
                    fix="install the package from here in editable mode: pip install -e .",
                )
            )
        yield module


def named_function(module: ModuleType, place: Place) -> Any:
    """The function that a place asks for, by its dotted name."""
    assert place.function is not None
    value: Any = module
    for part in place.function.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            callables = [n for n in vars(value) if callable(getattr(value, n, None))]
            known = [n for n in callables if not n.startswith("_")]
            what = f"{place.label!r} has no function {place.function!r}"
            raise TargetError(describe(what + did_you_mean(part, known))) from None
    if not callable(value):
        what = f"{place.label}:{place.function} cannot be called"
        raise TargetError(describe(what, expected="a function", got=type(value).__name__))
    return value


@contextlib.contextmanager
def _script(path: Path) -> Iterator[ModuleType]:
    """A file outside any package, run as if by `python FILE`, under a name of its own."""
    path = path.resolve()
    name = f"_gradkit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    # Two files of a folder may register the same gradient name, or have helpers of one name.
    with _first_on_path(str(path.parent)), registry_scope():
        sys.modules[name] = module  # dataclasses and pickle look the module up
        try:
            try:
                spec.loader.exec_module(module)
            except (Exception, SystemExit) as error:
                raise _import_failed(str(path), error, path) from error
            yield module
        finally:
            for new in set(sys.modules) - before:
                file = getattr(sys.modules[new], "__file__", None)
                if new == name or (file and Path(file).resolve().is_relative_to(path.parent)):
                    del sys.modules[new]


def _import(name: str, label: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise _import_failed(label, error) from error
        here = [p.stem for p in Path().iterdir() if p.suffix == ".py" or p.is_dir()]
        raise TargetError(
            describe(
                f"there is no file, folder or module {label!r}{did_you_mean(name, here)}",
                expected="FILE.py, FOLDER, MODULE, or one of the first and last with :FUNCTION",
            )
        ) from None
    except (Exception, SystemExit) as error:
        raise _import_failed(label, error) from error


def _import_failed(label: str, error: BaseException, path: Path | None = None) -> TargetError:
    """What went wrong while importing, at the last line of the user's own file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if path is not None and Path(f.filename) == path]
    where = (own or frames or [None])[-1]
    text = f"{type(error).__name__}: {error}"
    at = f" (line {where.lineno}: {where.line})" if own and where else ""
    return TargetError(describe(f"cannot import {label!r}", got=text + at))


def _package_name(path: Path) -> str | None:
    """The dotted name of a file inside a package, else `None`."""
    root = _package_root(path)
    parts = path.resolve().relative_to(root).with_suffix("").parts
    if len(parts) == 1:
        return None
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package_root(path: Path) -> Path:
    """The folder that has to be on the path for a file's own imports to work."""
    folder = path.resolve().parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _is_same_file(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path.resolve()


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before
