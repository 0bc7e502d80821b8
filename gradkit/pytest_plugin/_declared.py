"""Cases that functions declare with `@gradkit.verify.case`, as tests."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gradkit._errors import describe
from gradkit.pytest_plugin._run import MARKER, SUBJECT, Subject
from gradkit.pytest_plugin._targets import PREFIX, TARGETS, Target, files_in, path_from_root

_FIX = "decorate functions with @gradkit.verify.case(...)"


def items_in_tests(
    collector: pytest.Module | pytest.Class, name: str, obj: Any
) -> list[pytest.Function]:
    """The tests of a name in a test module or class, if it is a function with cases."""
    if "gradkit.verify" not in sys.modules:  # then nothing can have declared any
        return []
    from gradkit.verify import cases_of, declared_in

    function = getattr(obj, "__func__", obj)  # of a static method
    if not cases_of(function):
        return []
    if isinstance(collector, pytest.Class):
        return _items(collector, name, function, lambda: getattr(collector.newinstance(), name))
    own = dict(declared_in(vars(collector.obj), collector.obj.__name__))
    return _items(collector, name, function) if name in own else []


def collect_targets(session: pytest.Session) -> Iterator[pytest.Item]:
    """The cases of everything that was asked for, each of them once."""
    seen: set[str] = set()
    for target in session.config.stash.get(TARGETS, []):
        modules = [module for module in _modules(session, target) if module.nodeid not in seen]
        seen.update(module.nodeid for module in modules)
        found = [item for module in modules for item in session.genitems(module)]
        yield from found
        if modules and not found and all(module.is_read for module in modules):
            nothing = _Nothing.from_parent(session, name=target.name, nodeid=PREFIX + target.name)
            cases = " " + " or ".join(target.cases) if target.cases else ""
            nothing.what = f"{target.name!r} declares no case{cases}"
            yield from session.genitems(nothing)


def _modules(session: pytest.Session, target: Target) -> Iterator[_DeclaredCases]:
    root = session.config.rootpath
    path = root / target.name
    if path.is_dir():
        files = {path_from_root(session.config, file): file for file in files_in(path)}
    else:
        files = {target.name: path}
    for label, file in files.items():
        # At the root directory, since --lf skips files of which it does not know a failed test.
        module = _DeclaredCases.from_parent(session, path=root, name=label, nodeid=PREFIX + label)
        module.target, module.file = target, file
        yield module


class _DeclaredCases(pytest.Module):
    """The cases of one module, which is a file or known by name."""

    target: Target
    file: Path
    is_read = False

    def _getobj(self) -> ModuleType:
        if self.file.is_file():  # then it is imported as a test module is
            return pytest.Module.from_parent(self.session, path=self.file).obj
        missing = self.CollectError(f"there is no file, folder or module {self.name!r}")
        if not all(part.isidentifier() for part in self.name.split(".")):
            raise missing
        root = str(self.config.rootpath)
        sys.path.insert(0, root)  # as `python -m pytest` and `gradkit check` have it
        try:
            return importlib.import_module(self.name)
        except ModuleNotFoundError as error:
            if error.name and f"{self.name}.".startswith(f"{error.name}."):
                raise missing from None
            raise  # it is there, and something that it imports is not
        finally:
            sys.path.remove(root)

    def collect(self) -> list[pytest.Item]:
        from gradkit.verify import declared_in

        module = self.obj
        items = [
            item
            for name, f in declared_in(vars(module), module.__name__)
            for item in _items(self, name, f)
        ]
        self.is_read = True
        return [item for item in items if self.target.has(item.name)]


class _DeclaredCase(pytest.Function):
    """One case."""

    @property
    def id(self) -> Any:
        """The parts of the node id, by which newer versions of pytest know what failed last."""
        return type(super().id).parse(self.nodeid)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Where the function is, and a title that tells functions of many modules apart."""
        path, line, title = super().reportinfo()
        if isinstance(self.parent, _DeclaredCases):
            title = f"{self.parent.name}: {self.name}"
        return path, line, title


class _Nothing(pytest.Collector):
    """The error that a target has nothing to check."""

    what = ""

    def collect(self) -> list[pytest.Item]:
        raise self.CollectError(describe(self.what, fix=_FIX))


def _items(
    collector: pytest.Collector, name: str, f: Any, function: Callable[[], Any] | None = None
) -> list[pytest.Function]:
    """One test for each case of `f`; `function` gets it at the time of the test."""
    from gradkit.verify import cases_of

    items = []
    for case in cases_of(f):
        item = _DeclaredCase.from_parent(
            collector, name=f"{name}[{case.name}]", callobj=_stand_in(f)
        )
        item.stash[SUBJECT] = Subject(function or (lambda: f), case.args, case.options)
        item.add_marker(MARKER)  # for `-m gradcheck`
        items.append(item)
    return items


def _stand_in(f: Any) -> Callable[[], None]:
    """What pytest knows of `f`: where it is and its marks, and that it asks for no fixtures."""

    def stand_in() -> None: ...

    stand_in.__dict__.update(
        __wrapped__=f, __signature__=inspect.Signature(), pytestmark=getattr(f, "pytestmark", [])
    )
    return stand_in
