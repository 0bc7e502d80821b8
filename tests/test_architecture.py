"""The house rules that no linter knows."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "gradkit"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_jax_compat_uses_private_jax(path):
    if path.name != "_jax_compat.py":
        assert not any(name.startswith("jax._src") for name in imports_of(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_hold_one_idea(path):
    limit = 40_000 if path.name == "_tensorflow_types.py" else 20_000  # one table
    assert path.stat().st_size < limit
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_importing_gradkit_changes_nothing_in_jax():
    program = """
import jax, jax.numpy as jnp
traces = []
@jax.jit
def f(x):
    traces.append(1)
    return jnp.square(x) * 2
f(1.0)
from jax.interpreters import ad
watched = [jax.custom_jvp.__call__, jax.custom_vjp.__call__, ad.JVPTrace.process_primitive]
import gradkit
f(1.0)
gradkit.custom_gradient(lambda x: (x, lambda y_bar: y_bar))(1.0)
f(1.0)
assert len(traces) == 1, traces
assert watched == [jax.custom_jvp.__call__, jax.custom_vjp.__call__, ad.JVPTrace.process_primitive]
assert "bind" not in vars(jax.lax.square_p)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
