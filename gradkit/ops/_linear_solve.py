"""Linear systems given by a function, differentiable in everything that the function depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradkit._errors import SolverError, describe
from gradkit.ops._krylov import cg, gmres
from gradkit.ops._loops import as_result
from gradkit.ops._newton import DENSE_UP_TO, POSITIVE_DENSE_UP_TO, materialize
from gradkit.ops._outcome import Found, check_policy, react
from gradkit.ops._solvers import call_lineax, is_lineax
from gradkit.ops._vectors import Space, Tree, default_tolerance

SOLVERS = ("dense", "gmres", "cg")


def linear_solve(
    matvec: Callable[[Tree], Tree],
    b: Tree,
    *,
    positive_definite: bool = False,
    solver: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    on_failure: str = "nan",
) -> Tree:
    r"""Solve `matvec(x) = b`, with the derivative of the solution, not that of the solver.

    $$ A x = b, \qquad \dot x = A^{-1} (\dot b - \dot A x), \qquad
       \bar b = A^{-\top} \bar x, \quad \bar A = -\bar b\, x^\top $$

    Memory does not grow with the number of steps. Values that `matvec` closes over get their
    gradient. For a matrix that is there as an array, `jnp.linalg.solve` serves.

    Args:
        matvec: `x -> A x`, a linear function from pytrees like `b` to such pytrees.
        b: The right-hand side, a pytree of real floating-point arrays.
        positive_definite: Whether `A` is symmetric and positive definite.
        solver: `"dense"` builds the matrix and factorises it; `"gmres"` and `"cg"` need products
            with `A` only; a solver of lineax; or a function `(matvec, b) -> x`. Default: dense up
            to 128 unknowns, above that `"gmres"`; for positive definite `A` up to 32, then `"cg"`.
        tol: When GMRES and CG stop: the norm of `b - A x` relative to that of `b`. Default: three
            quarters of the digits of the dtype.
        max_steps: Products with `A` at most.
        on_failure: Where the matrix is singular, or the relative residual stays above the square
            root of the rounding unit and above `tol`: `"nan"` makes the solution NaN, `"error"`
            raises, in compiled programs too; `"keep"` returns it as it is.

    Returns:
        `x`, of the types of `b`.

    Raises:
        SolverError: If `b`, `matvec(b)` or an option does not fit.
        ConvergenceError: With `on_failure="error"`; inside `jit` it arrives as JAX's runtime error.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def damped(strength):  # (1 + strength * Laplacian) x = b, on a ring
        ...     laplace = lambda x: 2 * x - jnp.roll(x, 1) - jnp.roll(x, -1)
        ...     b = jnp.zeros(200).at[0].set(1.0)
        ...     x = linear_solve(lambda x: x + strength * laplace(x), b, positive_definite=True)
        ...     return x[0]
        >>> slope = jax.grad(damped)(2.0)  # x[0] is 1 / sqrt(1 + 4 * strength)
        >>> print(f"{slope:.4f}, and {-2 / 9**1.5:.4f} by hand")
        -0.0741, and -0.0741 by hand
    """
    b = jax.tree.map(jnp.asarray, b)
    space = Space.of(b, "b of gk.ops.linear_solve")
    space.check_same(jax.eval_shape(matvec, b), "what matvec of gk.ops.linear_solve returns")
    check_policy("gk.ops.linear_solve", on_failure)
    tol = default_tolerance(space) if tol is None else tol
    return solve_in_space(
        matvec, b, space, symmetric=positive_definite, solver=solver, tol=tol,
        max_steps=max_steps, on_failure=on_failure,
    )  # fmt: skip


def solve_in_space(
    matvec: Callable[[Tree], Tree],
    b: Tree,
    space: Space,
    *,
    symmetric: bool,
    solver: Any,
    tol: float,
    max_steps: int = 1000,
    on_failure: str = "nan",
) -> Tree:
    """`linear_solve` of arguments that have been checked; `symmetric` means positive definite."""
    if solver is None:
        dense = space.size <= (POSITIVE_DENSE_UP_TO if symmetric else DENSE_UP_TO)
        solver = "dense" if dense else "cg" if symmetric else "gmres"
    if isinstance(solver, str) and solver not in SOLVERS:
        raise SolverError(
            describe(
                f"there is no linear solver {solver!r}.",
                expected=", ".join(map(repr, SOLVERS))
                + ", a solver of lineax, or a function (matvec, b) -> x",
            )
        )

    def solve(matvec, b):
        if is_lineax(solver):
            return _checked(call_lineax(solver, matvec, b, symmetric), matvec, b)
        if not isinstance(solver, str):
            return _checked(solver(matvec, b), matvec, b)
        flat, rhs = space.on_vectors(matvec), space.vector(b)
        if solver == "dense":
            matrix = materialize(flat, rhs)
            x = _factorised(matrix, rhs, symmetric)
            # Finite is good: the residual is small beside A x, if not beside b.
            return space.tree(_kept(x, jnp.isfinite(x).all(), jnp.linalg.norm(matrix @ x - rhs)))
        run = cg if solver == "cg" else gmres
        x, residual, _ = run(flat, rhs, tol=tol, max_steps=max_steps)
        return space.tree(_judged(x, residual, rhs))

    def _checked(x, matvec, b):
        space.check_same(jax.eval_shape(lambda: x), "what a linear solver returns")
        difference = jax.tree.map(jnp.subtract, b, matvec(x))
        residual = jnp.linalg.norm(space.vector(difference))
        return space.tree(_judged(space.vector(x), residual, space.vector(b)))

    def _judged(x, residual, rhs):
        most = max(tol, space.precision**0.5) * jnp.linalg.norm(rhs)
        return _kept(x, residual <= most, residual)

    def _kept(x, solved, residual):
        found = Found(x, solved, jnp.asarray(-1, jnp.int32), residual)
        return react("gk.ops.linear_solve", found, on_failure)

    b = as_result(matvec, b)
    return lax.custom_linear_solve(matvec, b, solve, transpose_solve=solve, symmetric=symmetric)


def _factorised(matrix: jax.Array, b: jax.Array, symmetric: bool) -> jax.Array:
    if symmetric:  # NaN where the matrix is not positive definite
        return jax.scipy.linalg.solve(matrix, b, assume_a="pos")
    return jnp.linalg.solve(matrix, b)
