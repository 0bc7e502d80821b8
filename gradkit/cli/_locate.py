"""Where a function is written: for reports that point at lines, and for errors raised in it."""

from __future__ import annotations

import functools
import inspect
import re
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

_MOST_WRAPPERS = 32  # objects that answer to every attribute never end
_DEFINITION = re.compile(r"\s*(async\s+)?def\b")


def locate(function: Any) -> tuple[str, int | None]:
    """The file of a function, relative to here if it is below, and the line of its `def`.

    Example:
        >>> from gradkit.verify import check
        >>> locate(check)[0].endswith("gradkit/verify/_check.py")
        True
        >>> locate(len)
        ('', None)
    """
    code = _code_of(function)
    if code is None or not Path(code.co_filename).is_file():
        return "", None
    return relative(code.co_filename), _line_of_def(code)


def relative(file: str) -> str:
    """A path as seen from the current folder, if it is below that."""
    path = Path(file)
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def describe_error(error: BaseException, function: Any) -> str:
    """What was raised, and the last line of the function's own file on the way there."""
    lines = [f"{type(error).__name__}: {error}"]
    lines += [f"  {note}" for note in getattr(error, "__notes__", ()) if "\n" not in note]
    code = _code_of(function)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if code is not None and f.filename == code.co_filename]
    if own:
        last = own[-1]
        lines.append(f"  at {relative(last.filename)}:{last.lineno}, in {last.name}: {last.line}")
    return "\n".join(lines)


def _code_of(function: Any) -> CodeType | None:
    for _ in range(_MOST_WRAPPERS):
        if isinstance(function, functools.partial):
            function = function.func
            continue
        code = getattr(function, "__code__", None)
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return code if isinstance(code, CodeType) else None
        function = inner
    return None


def _line_of_def(code: CodeType) -> int:
    """The line of the `def`, below its decorators."""
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return code.co_firstlineno
    offsets = (i for i, line in enumerate(lines) if _DEFINITION.match(line))
    return first + next(offsets, 0)
