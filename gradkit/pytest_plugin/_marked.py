"""`@pytest.mark.gradcheck(*args, **options)` on the function whose gradient is checked."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from gradkit._errors import describe
from gradkit.pytest_plugin._run import MARKER, Subject

_MARK = "gradcheck_mark"  # the parameter that tells a test which of the markers is its own
_NAME = "name"
_SHORT_TYPE = re.compile(r"(b?f|c|u?i)(?:loat|omplex|nt)(\d+)")


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Make a test for each marker, whose arguments are the first of the function.

    The others that the function requires come from fixtures and `pytest.mark.parametrize`, as for
    any test.
    """
    marks = list(metafunc.definition.iter_markers(MARKER))
    if not marks:
        return
    counts = [len(mark.args) for mark in marks]
    filled = {
        name: i
        for i, name in enumerate(_positional(metafunc)[: max(counts)])
        if name in metafunc.fixturenames  # what has a default is no business of pytest's
    }
    if min(counts) == 0:
        _refuse(metafunc, "gives no arguments", "@pytest.mark.gradcheck(jnp.ones(3))")
    if any(i >= min(counts) for i in filled.values()):
        _refuse(metafunc, "gives fewer arguments than another", "give each as many arguments")
    rows = [(mark, *(mark.args[i] for i in filled.values())) for mark in marks]
    ids = _distinct(_describe(mark) for mark in marks)
    metafunc.fixturenames.append(_MARK)
    metafunc.parametrize([_MARK, *filled], rows, ids=list(ids))


def subject_of(item: pytest.Function) -> Subject | None:
    """What the test of a marked function checks; `None` for other tests."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    mark: Any = params.get(_MARK)
    if mark is None:
        if item.get_closest_marker(MARKER):
            _refuse(item, "came too late to make tests of", "put it on the function")
        return None
    parameters = inspect.signature(item.obj).parameters.values()
    given = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY][: len(mark.args)]
    rest = {p.name: item.funcargs[p.name] for p in parameters if p.name in item.funcargs}
    rest = {name: value for name, value in rest.items() if name not in given}
    options = {key: value for key, value in mark.kwargs.items() if key != _NAME}
    f = functools.partial(item.obj, **rest) if rest else item.obj
    return Subject(lambda: f, mark.args, options)


def _positional(metafunc: pytest.Metafunc) -> list[str]:
    """The names of the arguments that a marker gives values for, in order."""
    parameters = inspect.signature(metafunc.function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if metafunc.cls is None:
        return names
    found = inspect.getattr_static(metafunc.cls, metafunc.definition.originalname)
    return names if isinstance(found, staticmethod) else names[1:]


def _refuse(node: pytest.Metafunc | pytest.Function, what: str, fix: str) -> None:
    item = node if isinstance(node, pytest.Function) else node.definition
    text = f"a marker {MARKER!r} of {item.originalname!r} {what}"
    pytest.fail(describe(text, fix=fix), pytrace=False)


def _describe(mark: pytest.Mark) -> str:
    """The marker's name; else its arguments and options, such as `f32[3],order=2`."""
    if _NAME in mark.kwargs:
        return str(mark.kwargs[_NAME])
    options = (f"{key}={_describe_value(value)}" for key, value in mark.kwargs.items())
    return ",".join([*map(_describe_value, mark.args), *options])


def _describe_value(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        dtype = str(value.dtype)
        if dtype.startswith("key"):
            return "key"
        return _SHORT_TYPE.sub(r"\1\2", dtype) + f"[{','.join(map(str, value.shape))}]"
    if value is None or isinstance(value, bool | int | float | complex):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list) and all(isinstance(v, str | int | float) for v in value):
        return "+".join(map(str, value))  # such as modes=
    return getattr(value, "__name__", None) or type(value).__name__


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """The names, with `#2` and so on behind those that have been there before."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"
