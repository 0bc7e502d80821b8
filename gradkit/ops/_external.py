"""Solvers outside JAX, with a gradient from the equation that they solve."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import SolverError, describe
from gradkit._host import host_op
from gradkit.ops._implicit import solve_implicitly
from gradkit.ops._outcome import Found, check_policy
from gradkit.ops._vectors import Space, Tree, default_tolerance


def external_solver(
    solve: Callable[..., Any] | None = None,
    *,
    residual: Callable[..., Tree],
    result: Any,
    symmetric: bool = False,
    linear_solver: Any = None,
    tol: float | None = None,
    on_failure: str = "nan",
    vmap_method: str = "sequential",
) -> Any:
    r"""A solver in NumPy, SciPy or C as a differentiable function, through the equation it solves.

    $$ z = \mathrm{solve}(a), \quad F(z, a) = 0, \qquad
       \bar a = -\partial_a F^\top (\partial_z F)^{-\top} \bar z $$

    The value comes from the host, also in compiled programs; the gradient, of any order, from `F`,
    which JAX differentiates. It is right where `F(z, a)` is zero: for a minimum, give the gradient
    of the objective.

    Args:
        solve: The solver: gets NumPy arrays, returns `z`; see `gk.host_op`. It should raise where
            it does not succeed. Without it, a decorator is returned.
        residual: `F(z, *args)`, in JAX, of the types of `z`.
        result: The types of `z`, as in `gk.host_op`: `jax.ShapeDtypeStruct`s, or a function from
            the arguments' to them.
        symmetric: Whether the derivative of `F` in `z` is symmetric and positive definite.
        linear_solver: Who solves the linear system of the derivative; see `gk.ops.linear_solve`.
        tol: If given, `|F(z, a)|` above it counts as failure.
        on_failure: What then becomes of `z`: `"nan"`, `"error"` or `"keep"`, as in
            `gk.ops.fixed_point`. That of the derivative's system is treated alike.
        vmap_method: As in `gk.host_op`.

    Returns:
        A function of JAX arrays.

    Raises:
        SolverError: If `F(z, *args)` is not of the types of `z`, or an option does not fit.
        HostResultError: If `solve` returns something else than `result` says.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> @external_solver(residual=lambda z, a: z**3 + z - a, result=lambda a: a)
        ... def real_root(a):
        ...     roots = np.roots([1.0, 0.0, 1.0, -float(a)])
        ...     return roots[np.abs(roots.imag).argmin()].real
        >>> z, slope = jax.jit(jax.value_and_grad(real_root))(10.0)
        >>> print(f"{z:.4f} {slope:.5f}, and {1 / (3 * z**2 + 1):.5f} by hand")
        2.0000 0.07692, and 0.07692 by hand
    """
    if solve is None:
        return functools.partial(
            external_solver, residual=residual, result=result, symmetric=symmetric,
            linear_solver=linear_solver, tol=tol, on_failure=on_failure, vmap_method=vmap_method,
        )  # fmt: skip
    check_policy("gk.ops.external_solver", on_failure)
    if not callable(solve):
        raise SolverError(
            describe(
                "the solver of gk.ops.external_solver is not callable.",
                expected="a function of NumPy arrays",
                got=type(solve).__name__,
            )
        )
    name = getattr(solve, "__name__", type(solve).__name__)
    on_host = host_op(name, solve, result=result, vmap_method=vmap_method)

    @functools.wraps(solve)
    def solver(*args: Any) -> Any:
        args = jax.tree.map(jnp.asarray, args)
        types = jax.eval_shape(on_host, *args)
        init = jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype), types)
        space = Space.of(init, f"the result of '{name}'")
        value = jax.eval_shape(residual, init, *args)
        space.check_same(value, f"the residual of '{name}', unlike its result,")

        def find(_: Tree) -> Found:
            z = on_host(*args)
            norm = jnp.linalg.norm(space.vector(residual(z, *args)))
            converged = jnp.asarray(True) if tol is None else norm <= tol
            return Found(space.vector(z), converged, jnp.asarray(-1, jnp.int32), norm)

        return solve_implicitly(
            f"'{name}'", lambda z: residual(z, *args), find, init, space, symmetric=symmetric,
            linear_solver=linear_solver, on_failure=on_failure, tol=default_tolerance(space),
            info=False,
        )  # fmt: skip

    return solver
