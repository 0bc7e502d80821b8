"""Loading the modules that targets name, each once, and leaving no trace of them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from gradkit._errors import TargetError, describe, did_you_mean
from gradkit._registry import RegisterGradient, registered_gradients, registry_scope
from gradkit.cli._targets import Place, find_function, named_function


@dataclass
class Loaded:
    """A module, with what has to be in place while its code runs.

    Attributes:
        module: The module.
        folder: What its own imports are found in.
        is_script: Is it a file outside any package? What such a file registers and imports from
            its folder is there while it is active, and at no other time: two files of a folder may
            register the same name, or have helpers of one name.
        modules: The entries of `sys.modules` that are a script's own.
        gradients: What a script has registered.
    """

    module: ModuleType
    folder: Path
    is_script: bool
    modules: dict[str, ModuleType] = field(default_factory=dict)
    gradients: Mapping[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def active(self) -> Iterator[ModuleType]:
        """Functions of the module work in here."""
        with _first_on_path(self.folder):
            if not self.is_script:
                yield self.module
                return
            with _own_modules(self.modules, self.folder), registry_scope():
                there = registered_gradients()
                for name, rule in self.gradients.items():
                    if there.get(name) is not rule:
                        RegisterGradient(name, replace=True)(rule)
                try:
                    yield self.module
                finally:
                    now = registered_gradients()
                    new = {name: rule for name, rule in now.items() if there.get(name) is not rule}
                    self.gradients = {**self.gradients, **new}


class Loader:
    """Loads modules, each once.

    Example:
        >>> from gradkit.cli._targets import find_places
        >>> loader, (place,) = Loader(), find_places("jax.nn:relu")
        >>> loader.load(place).module.__name__, loader.function(place).__name__
        ('jax.nn', 'relu')
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Loaded] = {}

    def load(self, place: Place) -> Loaded:
        """The module of a place.

        Raises:
            TargetError: If it cannot be imported.
        """
        key = place.label if place.path is None else str(place.path.resolve())
        if key not in self._loaded:
            self._loaded[key] = _load(place)
        return self._loaded[key]

    def function(self, place: Place) -> Any:
        """The function that a place asks for.

        Raises:
            TargetError: If it is not there.
        """
        loaded = self.load(place)
        with loaded.active() as module:
            return named_function(module, place)

    def option(self, option: str, target: str) -> tuple[Loaded, Any]:
        """The function that an option names, and the module that it needs.

        Raises:
            TargetError: If it is not there.
        """
        place = find_function(option, target)
        return self.load(place), self.function(place)


def _load(place: Place) -> Loaded:
    package = None if place.path is None else _package_name(place.path)
    if place.path is not None and package is None:
        return _load_script(place.path.resolve())
    folder = Path.cwd() if place.path is None else _package_root(place.path)
    with _first_on_path(folder):
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
    return Loaded(module, folder, is_script=False)


def _load_script(path: Path) -> Loaded:
    """A file outside any package, run as if by `python FILE`, under a name of its own."""
    name = f"_gradkit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look the module up.
    loaded = Loaded(module, path.parent, is_script=True, modules={name: module})
    with loaded.active():
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise _import_failed(str(path), error, path) from error
    return loaded


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
def _first_on_path(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _own_modules(own: dict[str, ModuleType], folder: Path) -> Iterator[None]:
    """Put a script's own modules in place; collect what it imports from its folder meanwhile."""
    before = dict(sys.modules)
    sys.modules.update(own)
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if name in own or (name not in before and _is_below(module, folder)):
                own[name] = module
                if name in before:
                    sys.modules[name] = before[name]
                else:
                    del sys.modules[name]


def _is_below(module: ModuleType, folder: Path) -> bool:
    """Is a module from the folder, and not from an environment that is kept in it?"""
    file = getattr(module, "__file__", None)
    path = Path(file or "").resolve()
    if not file or not path.is_relative_to(folder):
        return False
    return "site-packages" not in path.relative_to(folder).parts
