"""Solutions of equations as differentiable functions of what the equations depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from gradkit.ops._linear_solve import solve_in_space
from gradkit.ops._loops import as_result
from gradkit.ops._outcome import Found, Info, check_policy, react
from gradkit.ops._vectors import Space, Tree


def solve_implicitly(
    name: str,
    residual: Callable[[Tree], Tree],
    find: Callable[[Tree], Found],
    init: Tree,
    space: Space,
    *,
    symmetric: bool,
    linear_solver: Any,
    on_failure: str,
    tol: float,
    info: bool,
) -> Any:
    r"""The solution of `residual(z) = 0`, differentiable in what `residual` closes over.

    $$ F(z, a) = 0, \qquad \partial_z F\, \dot z = -\partial_a F\, \dot a $$

    `jax.lax.custom_root` holds the rule; what is added is who solves, forward and linearised, and
    what happens where a solver fails.

    Args:
        name: Who solves, for messages: "gk.ops.root".
        residual: `F`, on pytrees.
        find: From the initial pytree to a point of the space, as a vector.
        init: Where to start.
        space: The space of `z`.
        symmetric: Whether the derivative of `F` is symmetric and positive definite.
        linear_solver: Who solves the linearised system.
        on_failure: What becomes of a solution that is none.
        tol: Tolerance of the linearised system.
        info: Whether to return an `Info` too.
    """
    check_policy(name, on_failure)

    def solve(_, init):
        found = find(init)
        z = react(name, found, on_failure)
        # custom_root's rule wants tangents of what is returned besides: integers travel as reals.
        return space.tree(z), tuple(jnp.asarray(x, space.dtype) for x in found[1:])

    def tangent_solve(linear, rhs):
        return solve_in_space(
            linear, rhs, space, symmetric=symmetric, solver=linear_solver, tol=tol,
            on_failure=on_failure,
        )  # fmt: skip

    z, aux = lax.custom_root(
        residual, as_result(residual, init), solve, tangent_solve, has_aux=True
    )
    converged, steps, norm = map(lax.stop_gradient, aux)
    return (z, Info(converged > 0, steps.astype(jnp.int32), norm)) if info else z
