"""Where in the user's code an operation was written, and in which direction it runs."""

from __future__ import annotations

import os

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn

_JAX = os.path.dirname(jax.__file__)
_GRADKIT = os.path.dirname(os.path.dirname(__file__))
_STANDARD_LIBRARY = os.path.dirname(os.__file__)


def user_line(eqn: JaxprEqn, stop: str = "") -> str:
    """The line of the user's code that an equation was written on: `"file.py:12"`, or `""`.

    Args:
        eqn: The equation.
        stop: A folder; lines that called into it say nothing about the equation.

    The innermost line outside of installed packages; failing that, the innermost outside of JAX.
    """
    traceback = eqn.source_info.traceback
    frames = list(traceback.frames) if traceback is not None else []
    library = ""
    for frame in frames:
        file = frame.file_name
        if stop and file.startswith(stop):
            break
        if file.startswith((_JAX, _GRADKIT, "<frozen")):
            continue
        line = f"{_from_here(file)}:{frame.line_num}"
        if "site-packages" not in file and not file.startswith(_STANDARD_LIBRARY):
            return line
        library = library or line
    return library


def _from_here(file: str) -> str:
    """A path as seen from the current folder, if it is below that."""
    here = os.path.join(os.getcwd(), "")
    return file.removeprefix(here)


def is_transposed(eqn: JaxprEqn) -> bool:
    """Does an equation belong to a backward pass, by the transformations in its name stack?"""
    return any(part.name == "transpose" for part in eqn.source_info.name_stack.stack)


def is_from_library(program: ClosedJaxpr) -> bool:
    """Was the function of a traced program written in JAX itself?"""
    return _JAX in program.jaxpr.debug_info.func_src_info
