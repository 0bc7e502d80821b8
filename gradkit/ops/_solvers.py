"""Who looks for a solution: gradkit's own solvers, those of other packages, or a function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import SolverError, describe
from gradkit.ops._outcome import Found
from gradkit.ops._vectors import Space, Tree

Function = Callable[[Tree], Any]

# The method of gradkit's own solvers, and the functions of optimistix, by problem.
_METHODS = {
    "fixed_point": "find_fixed_point",
    "root": "find_root",
    "argmin": "find_minimum",
}
_OPTIMISTIX = {"fixed_point": "fixed_point", "root": "root_find", "argmin": "minimise"}


def make_finder(
    problem: str, fn: Function, solver: Any, space: Space, tol: float, max_steps: int
) -> Callable[[Tree], Found]:
    """What takes the initial pytree to the point that the solver finds, as a vector.

    Args:
        problem: "fixed_point", "root" or "argmin".
        fn: The function of the problem.
        solver: The solver.
        space: The space of the unknown.
        tol: The tolerance, for solvers that do not bring their own.
        max_steps: The number of steps at most.

    Raises:
        SolverError: If the solver is none, or none for this problem.
    """
    method = getattr(solver, _METHODS[problem], None)
    if method is not None:
        scalar = problem == "argmin"
        flat = (lambda v: fn(space.tree(v))) if scalar else space.on_vectors(fn)
        return lambda init: method(flat, space.vector(init), tol, max_steps)
    if _is_from("optimistix", solver):
        return lambda init: _run_optimistix(problem, fn, solver, init, space, max_steps)
    if callable(solver) and not isinstance(solver, type):
        return lambda init: _judge(problem, fn, solver(fn, init), init, space, tol)
    own = "Anderson() or Newton()" if problem == "fixed_point" else "Newton()"
    raise SolverError(
        describe(
            f"solver= of gk.ops.{problem} is no solver for it.",
            expected=f"gk.ops.{own}, a function (fn, init) -> solution, or a solver of optimistix",
            got=repr(solver),
            fix="for those of optimistix, pip install 'gradkit[solvers]'",
        )
    )


def is_lineax(solver: Any) -> bool:
    """Is it a linear solver of lineax?"""
    return _is_from("lineax", solver)


def call_lineax(
    solver: Any, matvec: Callable[[Tree], Tree], b: Tree, positive_definite: bool
) -> Tree:
    """The solution of `matvec(x) = b` by a solver of lineax."""
    import lineax as lx

    tags = lx.positive_semidefinite_tag if positive_definite else ()
    operator = lx.FunctionLinearOperator(matvec, jax.eval_shape(lambda: b), tags)
    return lx.linear_solve(operator, b, solver, throw=False).value


def _run_optimistix(
    problem: str, fn: Function, solver: Any, init: Tree, space: Space, max_steps: int
) -> Found:
    import optimistix as optx

    run = getattr(optx, _OPTIMISTIX[problem])
    # The derivative is taken elsewhere, so optimistix need not prepare its own.
    end = run(lambda z, _: fn(z), solver, init, throw=False, max_steps=max_steps)
    steps = jnp.asarray(end.stats["num_steps"], jnp.int32)
    residual = _residual(problem, fn, end.value, space)
    return Found(space.vector(end.value), end.result == optx.RESULTS.successful, steps, residual)


def _judge(problem: str, fn: Function, z: Tree, init: Tree, space: Space, tol: float) -> Found:
    """What a function says is the solution; it has to show it."""
    space.check_same(jax.eval_shape(lambda: z), "what the function given as solver= returns")
    residual = _residual(problem, fn, z, space)
    if problem == "fixed_point":
        scale = 1 + jnp.linalg.norm(space.vector(z))
    else:
        scale = 1 + _residual(problem, fn, init, space)
    most = max(tol, space.precision**0.5) * scale
    return Found(space.vector(z), residual <= most, jnp.asarray(-1, jnp.int32), residual)


def _residual(problem: str, fn: Function, z: Tree, space: Space) -> jax.Array:
    """The norm of what is zero at a solution."""
    if problem == "argmin":
        return jnp.linalg.norm(space.vector(jax.grad(fn)(z)))
    value = space.vector(fn(z))
    return jnp.linalg.norm(value - space.vector(z) if problem == "fixed_point" else value)


def _is_from(package: str, solver: Any) -> bool:
    return package in sys.modules and any(
        cls.__module__.partition(".")[0] == package for cls in type(solver).__mro__
    )
