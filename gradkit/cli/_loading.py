"""Finding what a target on the command line names: a file, folder, module or function."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gradkit._errors import TargetError, describe, did_you_mean


def load_function(target: str) -> tuple[str, Any]:
    """The function that `module:function` or `file.py:function` names.

    Raises:
        TargetError: If the module does not import or has no such function.
    """
    where, _, path = target.rpartition(":")
    if not where:
        raise TargetError(
            describe(
                f"{target!r} names no function.",
                expected="module:function or file.py:function",
            )
        )
    found: Any = load_module(where)
    for name in path.split("."):
        known = [n for n in dir(found) if not n.startswith("_")]
        if not hasattr(found, name):
            raise TargetError(f"{where!r} has no function {path!r}{did_you_mean(name, known)}")
        found = getattr(found, name)
    if not callable(found):
        raise TargetError(describe(f"{target!r} is not a function.", got=type(found).__name__))
    return path, found


def modules_of(target: str) -> Iterator[tuple[str, ModuleType]]:
    """The modules of a file, a folder (every .py file in it) or a dotted module name.

    Raises:
        TargetError: If there is no such thing, or a module does not import.
    """
    path = Path(target)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.py") if not p.name.startswith(("_", ".")))
        if not files:
            raise TargetError(f"the folder {target!r} has no Python files")
        for file in files:
            yield str(file), load_module(str(file))
    else:
        yield target, load_module(target)


def load_module(target: str) -> ModuleType:
    """Import a module by its dotted name or its file.

    Raises:
        TargetError: If it does not exist or raises; the last lines of its traceback are the text.
    """
    path = Path(target)
    if path.suffix == ".py":
        if not path.is_file():
            raise TargetError(f"there is no file {target!r}")
        return _run(target, lambda: _load_file(path))
    with _on_path(Path.cwd()):
        return _run(target, lambda: importlib.import_module(target))


def _load_file(path: Path) -> ModuleType:
    name = f"gradkit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        with _on_path(path.parent.resolve()):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _run(target: str, load: Any) -> ModuleType:
    try:
        return load()
    except Exception as error:
        here = traceback.extract_tb(error.__traceback__)
        own = [f for f in here if "importlib" not in f.filename and "gradkit/cli" not in f.filename]
        at = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
        raise TargetError(
            describe(
                f"{target!r} does not import.",
                got=f"{type(error).__name__}: {error}{at}",
                fix="check the name, or install what the module needs",
            )
        ) from error


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
