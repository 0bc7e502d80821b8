"""Fixed points, roots and minima, differentiable without their solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import SolverError, describe
from gradkit._trees import describe_aval
from gradkit.ops._anderson import Anderson
from gradkit.ops._implicit import solve_implicitly
from gradkit.ops._newton import Newton
from gradkit.ops._solvers import make_finder
from gradkit.ops._vectors import Space, Tree, default_tolerance


def fixed_point(
    f: Callable[..., Tree],
    init: Tree,
    *args: Any,
    solver: Any = None,
    linear_solver: Any = None,
    tol: float | None = None,
    max_steps: int = 200,
    on_failure: str = "nan",
    info: bool = False,
) -> Any:
    r"""The solution of `z = f(z, *args)`, as a differentiable function of the arguments.

    $$ z = f(z, a), \qquad \dot z = (1 - \partial_z f)^{-1}\, \partial_a f\, \dot a, \qquad
       \bar a = \partial_a f^\top (1 - \partial_z f)^{-\top} \bar z $$

    The derivative is that of the solution (implicit function theorem), whatever the solver did:
    memory does not grow with its steps, and it need not be differentiable. It holds in both modes,
    at every order, and for what `f` closes over.

    Args:
        f: Takes `z` and `args` to a pytree like `z`.
        init: Where to start: a pytree of real floating-point arrays. It gets no gradient.
        *args: Pytrees that `f` depends on.
        solver: `Anderson()`, the default; `Newton()`; a function `(f, init) -> z` of `f` without
            further arguments; or a solver of optimistix.
        linear_solver: Who solves the linear system of the derivative; see `linear_solve`.
        tol: How near: `|f(z) - z| <= tol * (1 + |z|)` in Euclidean norms. Default: three
            quarters of the digits of the dtype, 6e-6 in float32 and 2e-12 in float64.
        max_steps: The number of steps at most.
        on_failure: Where the solver does not get there: `"nan"` makes the solution NaN, so that it
            cannot pass unseen; `"error"` raises, in compiled programs too; `"keep"` returns the
            last point. The derivative's system is treated alike.
        info: Whether to return `(z, info)`, with `info.converged`, `info.steps` and
            `info.residual`.

    Returns:
        `z`, of the types of `init`.

    Raises:
        SolverError: If `init`, `f(init, *args)` or an option does not fit.
        ConvergenceError: With `on_failure="error"`; inside `jit` it arrives as JAX's runtime error.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def f(z, a):  # Kepler's equation: the anomaly z of an orbit with eccentricity a
        ...     return 1.0 + a * jnp.sin(z)
        >>> z, slope = jax.value_and_grad(lambda a: fixed_point(f, 0.0, a))(0.5)
        >>> print(f"{z:.4f} {slope:.4f}, and {jnp.sin(z) / (1 - 0.5 * jnp.cos(z)):.4f} by hand")
        1.4987 1.0347, and 1.0347 by hand

    Source:
        Bai, Kolter & Koltun, *Deep equilibrium models* (2019), arXiv:1909.01377; Christianson,
        *Reverse accumulation and attractive fixed points* (1994).
    """
    bound, init, space = _prepare("fixed_point", f, init, args)
    solver = Anderson() if solver is None else solver
    tol = default_tolerance(space) if tol is None else tol
    return solve_implicitly(
        "gk.ops.fixed_point",
        lambda z: jax.tree.map(jnp.subtract, z, bound(z)),
        make_finder("fixed_point", bound, solver, space, tol, max_steps),
        init, space, symmetric=False, linear_solver=linear_solver, on_failure=on_failure, tol=tol,
        info=info,
    )  # fmt: skip


def root(
    f: Callable[..., Tree],
    init: Tree,
    *args: Any,
    solver: Any = None,
    linear_solver: Any = None,
    tol: float | None = None,
    max_steps: int = 100,
    on_failure: str = "nan",
    info: bool = False,
) -> Any:
    r"""The solution of `f(z, *args) = 0`, as a differentiable function of the arguments.

    $$ f(z, a) = 0, \qquad \dot z = -(\partial_z f)^{-1}\, \partial_a f\, \dot a, \qquad
       \bar a = -\partial_a f^\top (\partial_z f)^{-\top} \bar z $$

    Args:
        f: Takes `z` and `args` to a pytree like `z`.
        init: Where to start; as in `fixed_point`.
        *args: Pytrees that `f` depends on.
        solver: `Newton()`, the default; a function `(f, init) -> z`; or a solver of optimistix.
        linear_solver: Who solves the linear system of the derivative; see `linear_solve`.
        tol: How near: Newton's step of at most `tol * (1 + |z|)`; of a function given as solver,
            `|f(z)|` of at most `tol * (1 + |f(init)|)`. Default: as in `fixed_point`.
        max_steps: The number of steps at most.
        on_failure: As in `fixed_point`.
        info: As in `fixed_point`.

    Returns:
        `z`, of the types of `init`.

    Raises:
        SolverError: If `init`, `f(init, *args)` or an option does not fit.
        ConvergenceError: With `on_failure="error"`; inside `jit` it arrives as JAX's runtime error.

    Example:
        >>> import jax
        >>> def f(z, a):
        ...     return z**3 - a
        >>> print(f"{jax.grad(lambda a: root(f, 1.0, a))(8.0):.5f}")  # 1 / (3 * 8**(2/3))
        0.08333

    Source:
        Blondel et al., *Efficient and modular implicit differentiation* (2022), arXiv:2105.15183.
    """
    bound, init, space = _prepare("root", f, init, args)
    tol = default_tolerance(space) if tol is None else tol
    solver = Newton() if solver is None else solver
    return solve_implicitly(
        "gk.ops.root", bound, make_finder("root", bound, solver, space, tol, max_steps),
        init, space, symmetric=False, linear_solver=linear_solver, on_failure=on_failure, tol=tol,
        info=info,
    )  # fmt: skip


def argmin(
    f: Callable[..., jax.Array],
    init: Tree,
    *args: Any,
    solver: Any = None,
    linear_solver: Any = None,
    tol: float | None = None,
    max_steps: int = 200,
    on_failure: str = "nan",
    info: bool = False,
) -> Any:
    r"""The minimum of `f(z, *args)` over `z`, as a differentiable function of the arguments.

    $$ \nabla_z f(z, a) = 0, \qquad
       \dot z = -(\nabla_z^2 f)^{-1}\, \partial_a \nabla_z f\, \dot a $$

    Args:
        f: Takes `z` and `args` to one number; twice differentiable.
        init: Where to start; as in `fixed_point`.
        *args: Pytrees that `f` depends on.
        solver: `Newton()`, the default; a function `(f, init) -> z`; or a minimiser of optimistix.
        linear_solver: Who solves the linear system of the derivative, with the Hessian as its
            matrix, which is positive definite at a strict minimum; elsewhere the derivative
            counts as not found. See `linear_solve`.
        tol: How near: Newton's step of at most `tol * (1 + |z|)`; of a function given as solver,
            a gradient of at most `tol * (1 + |gradient at init|)`. Default: as in `fixed_point`.
        max_steps: The number of steps at most.
        on_failure: As in `fixed_point`.
        info: As in `fixed_point`; the residual is the norm of the gradient.

    Returns:
        `z`, of the types of `init`.

    Raises:
        SolverError: If `init`, the value of `f` or an option does not fit.
        ConvergenceError: With `on_failure="error"`; inside `jit` it arrives as JAX's runtime error.

    At the kink:
        A start whose gradient is zero is its own solution, be it a maximum.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, y = jnp.arange(5.0), jnp.array([0.0, 1.1, 1.9, 3.2, 3.8])
        >>> def ridge(w, strength):
        ...     return jnp.sum((w * x - y) ** 2) + strength * w**2
        >>> slope = jax.grad(lambda strength: argmin(ridge, 0.0, strength))(3.0)
        >>> print(f"{slope:.5f}, and {-(x @ y) / (x @ x + 3) ** 2:.5f} by hand")
        -0.02727, and -0.02727 by hand

    Source:
        Blondel et al., *Efficient and modular implicit differentiation* (2022), arXiv:2105.15183.
    """
    init = jax.tree.map(jnp.asarray, init)
    space = Space.of(init, "init of gk.ops.argmin")
    value = jax.eval_shape(f, init, *args)
    if not hasattr(value, "shape") or value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        got = describe_aval(value) if hasattr(value, "shape") else type(value).__name__
        raise SolverError(
            describe(
                "the function that gk.ops.argmin minimises does not return one number.",
                expected="a real array of shape ()",
                got=got,
                fix="sum what it returns",
            )
        )
    tol = default_tolerance(space) if tol is None else tol
    solver = Newton() if solver is None else solver

    def bound(z: Tree) -> jax.Array:
        return f(z, *args)

    return solve_implicitly(
        "gk.ops.argmin", jax.grad(bound),
        make_finder("argmin", bound, solver, space, tol, max_steps),
        init, space, symmetric=True, linear_solver=linear_solver, on_failure=on_failure, tol=tol,
        info=info,
    )  # fmt: skip


def _prepare(
    name: str, f: Callable[..., Tree], init: Tree, args: tuple[Any, ...]
) -> tuple[Callable[[Tree], Tree], Tree, Space]:
    """`f` without its further arguments, the start as arrays, and the space that both are in."""
    init = jax.tree.map(jnp.asarray, init)
    space = Space.of(init, f"init of gk.ops.{name}")
    result = jax.eval_shape(f, init, *args)
    if jax.tree.structure(result) == space.structure:  # Python numbers adapt
        init = jax.tree.map(_adapt, init, result)
        space = Space.of(init, f"init of gk.ops.{name}")
        result = jax.eval_shape(f, init, *args)
    space.check_same(result, f"the value of the function given to gk.ops.{name}, unlike init,")
    return lambda z: f(z, *args), init, space


def _adapt(z: jax.Array, result: Any) -> jax.Array:
    return z.astype(result.dtype) if jax.typeof(z).weak_type else z
