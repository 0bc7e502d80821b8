"""Entropic optimal transport between weighted points, as a loss."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from gradkit.losses._distances import squared_distances
from gradkit.losses._reals import as_reals, check_fits, check_positive

# How many costs of two point clouds are held at a time.
BLOCK = 1 << 20


class Clouds(NamedTuple):
    """A transport problem whose costs are squared distances, computed where they are needed."""

    x: jax.Array
    y: jax.Array
    a: jax.Array
    b: jax.Array
    epsilon: jax.Array

    def swapped(self) -> Clouds:
        return Clouds(self.y, self.x, self.b, self.a, self.epsilon)

    def soft_minimum(self, g: jax.Array) -> jax.Array:
        """`f_i = -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon)`, a few rows at a time."""
        n, m = self.x.shape[0], self.y.shape[0]
        rows = max(1, BLOCK // m)
        if n <= rows:
            return self._of_rows(self.x, g)
        parts = -(-n // rows)
        padded = jnp.pad(self.x, ((0, parts * rows - n), (0, 0)))
        blocks = padded.reshape(parts, rows, -1)
        f = lax.map(jax.checkpoint(lambda x: self._of_rows(x, g)), blocks)
        return f.reshape(-1)[:n]

    def _of_rows(self, x: jax.Array, g: jax.Array) -> jax.Array:
        return _soft_minimum(squared_distances(x, self.y), g, self.b, self.epsilon)


class Costs(NamedTuple):
    """A transport problem whose costs are given."""

    cost: jax.Array
    a: jax.Array
    b: jax.Array
    epsilon: jax.Array

    def swapped(self) -> Costs:
        return Costs(self.cost.T, self.b, self.a, self.epsilon)

    def soft_minimum(self, g: jax.Array) -> jax.Array:
        """`f_i = -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon)`."""
        return _soft_minimum(self.cost, g, self.b, self.epsilon)


Problem = Any  # Clouds or Costs


def _soft_minimum(cost, g, b, epsilon) -> jax.Array:
    return -epsilon * logsumexp((g[None] - cost) / epsilon, 1, b=b[None])


def sinkhorn(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike = 0.1,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
    return_error: bool = False,
) -> Any:
    r"""Entropic transport cost of two point clouds, by squared distance.

    $$ L = \min_{P \mathbf 1 = a,\; P^\top \mathbf 1 = b} \langle P, C \rangle + \epsilon
       \operatorname{KL}(P \,\|\, a b^\top) = \langle f, a \rangle + \langle g, b \rangle, \quad
       C_{ij} = \|x_i - y_j\|_2^2 $$

    $$ \bar C = P\,\bar L, \quad \bar a = f\,\bar L, \quad \bar b = g\,\bar L, \quad
       P_{ij} = a_i b_j e^{(f_i + g_j - C_ij) / \epsilon} $$

    The potentials `f` and `g` come from Sinkhorn's iterations on logarithms, until the marginals of
    `P` are met. By the envelope theorem their own derivatives do not matter to the gradient, so
    that no iteration is kept; it is as exact as the marginals are, and so is the value to second
    order. Second derivatives, in which they do matter, solve the linear system that defines them.

    No factor 1/2 is applied. The cost matrix is never held as a whole beyond a million pairs.
    `ott-jax` has more: other costs, unbalanced and low-rank transport, acceleration.

    Args:
        x: Real points `[n, d]`.
        y: Real points `[m, d]`.
        a: Weights of `x`, `[n]`, not negative, with sum 1. A point of weight 0 takes no part.
            Default: equal. The gradient is that along changes which keep the sum; another constant
            may be added to it.
        b: Weights of `y`, likewise.
        epsilon: Strength of the entropy, in units of the cost. It is differentiated too. The
            iterations needed grow as its inverse.
        tolerance: When to stop: the largest sum of absolute deviations of a marginal.
        max_iterations: When to stop nevertheless.
        return_error: Whether to return that sum too.

    Returns:
        `L`, a scalar, or the pair of it and the marginal error, which has no derivative. Half
        precision is computed in float32. For several pairs of clouds, use `jax.vmap`.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit, or `epsilon` is not positive.

    Keeps:
        `f`, `g`, and for small clouds `P`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [3.0]])
        >>> loss = lambda x: sinkhorn(x, y, epsilon=0.01)
        >>> loss, x_bar = jax.jit(jax.value_and_grad(loss))(x)
        >>> print(f"{loss:.3f}, {x_bar[0, 0]:.2f} {x_bar[1, 0]:.2f}")
        2.507, -1.00 -2.00

    Source:
        Cuturi, *Sinkhorn Distances* (2013), arXiv:1306.0895; the gradient: Feydy et al.,
        *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences* (2019),
        arXiv:1810.08278; the system: Cuturi et al. (2022), arXiv:2201.12324.
    """
    problem, dtype = _clouds("losses.sinkhorn", x, y, a, b, epsilon)
    loss, error = _loss(problem, False, tolerance, max_iterations)
    return _returned(loss, error, dtype, return_error)


def sinkhorn_from_cost(
    cost: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike = 0.1,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
    return_error: bool = False,
) -> Any:
    r"""`sinkhorn` for any cost of pairs; its gradient is the transport plan.

    $$ L = \min_{P \mathbf 1 = a,\; P^\top \mathbf 1 = b} \langle P, C \rangle + \epsilon
       \operatorname{KL}(P \,\|\, a b^\top), \qquad \bar C = P\,\bar L $$

    Args:
        cost: `C`, real `[n, m]`; `inf` bars a pair.
        a: Weights of the rows, as for `sinkhorn`.
        b: Weights of the columns.
        epsilon: Strength of the entropy, in units of the cost.
        tolerance: When to stop: the largest sum of absolute deviations of a marginal.
        max_iterations: When to stop nevertheless.
        return_error: Whether to return that sum too.

    Returns:
        As for `sinkhorn`.

    Raises:
        TypeError: If an argument is complex.
        ValueError: As for `sinkhorn`.

    Keeps:
        `P`, `f` and `g`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> cost = jnp.array([[0.0, 2.0], [1.0, 0.0]])
        >>> plan = jax.jit(jax.grad(lambda c: sinkhorn_from_cost(c, epsilon=0.5)))(cost)
        >>> print(plan.round(3))
        [[0.476 0.024]
         [0.024 0.476]]

    Source:
        Cuturi (2013), arXiv:1306.0895.
    """
    name = "losses.sinkhorn_from_cost"
    check_positive(name, "epsilon", epsilon)
    cost = jnp.asarray(cost)
    if cost.ndim != 2 or 0 in cost.shape:
        check_fits(name, "cost", cost.shape, ("n", "m"), "with at least one pair")
    n, m = cost.shape
    a = jnp.full(n, 1 / n) if a is None else a
    b = jnp.full(m, 1 / m) if b is None else b
    arrays, dtype = as_reals(name, cost, a, b)
    cost, a, b = arrays
    problem = Costs(cost, a, b, jnp.asarray(epsilon, cost.dtype))
    check_fits(name, "a", problem.a.shape, (n,), "one weight a row")
    check_fits(name, "b", problem.b.shape, (m,), "one weight a column")
    loss, error = _loss(problem, False, tolerance, max_iterations)
    return _returned(loss, error, dtype, return_error)


def sinkhorn_divergence(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike = 0.1,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
    return_error: bool = False,
) -> Any:
    r"""`sinkhorn` less what each cloud costs beside itself: 0 where they are equal, else more.

    $$ D = L(x, y) - \tfrac12 L(x, x) - \tfrac12 L(y, y) $$

    Args:
        x: Real points `[n, d]`.
        y: Real points `[m, d]`.
        a: Weights of `x`. Default: equal.
        b: Weights of `y`.
        epsilon: Strength of the entropy, in units of the cost.
        tolerance: When to stop, for each of the three.
        max_iterations: When to stop nevertheless.
        return_error: Whether to return the largest of the three marginal errors too.

    Returns:
        `D`, a scalar, or the pair of it and the marginal error.

    Raises:
        TypeError: If an argument is complex.
        ValueError: As for `sinkhorn`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0]])
        >>> print(f"{sinkhorn_divergence(x, x + 2.0, epsilon=0.01):.3f}")
        4.000

    Source:
        Feydy et al. (2019), arXiv:1810.08278; the self-terms' averaged iterations: section 3.1.
    """
    problem, dtype = _clouds("losses.sinkhorn_divergence", x, y, a, b, epsilon)
    x, y, a, b, epsilon = problem
    both, error = _loss(problem, False, tolerance, max_iterations)
    of_x, x_error = _loss(Clouds(x, x, a, a, epsilon), True, tolerance, max_iterations)
    of_y, y_error = _loss(Clouds(y, y, b, b, epsilon), True, tolerance, max_iterations)
    error = jnp.maximum(error, jnp.maximum(x_error, y_error))
    return _returned(both - (of_x + of_y) / 2, error, dtype, return_error)


def _clouds(name, x, y, a, b, epsilon) -> tuple[Clouds, jnp.dtype]:
    check_positive(name, "epsilon", epsilon)
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.ndim != 2 or 0 in x.shape:
        check_fits(name, "x", x.shape, ("n", "d"), "with at least one point")
    check_fits(name, "y", y.shape, ("m", x.shape[1]), "as x has it")
    n, m = x.shape[0], y.shape[0]
    a = jnp.full(n, 1 / n) if a is None else a
    b = jnp.full(m, 1 / m) if b is None else b
    arrays, dtype = as_reals(name, x, y, a, b)
    x, y, a, b = arrays
    problem = Clouds(x, y, a, b, jnp.asarray(epsilon, x.dtype))
    check_fits(name, "a", problem.a.shape, (n,), "one weight a point of x")
    check_fits(name, "b", problem.b.shape, (m,), "one weight a point of y")
    return problem, dtype


def _returned(loss, error, dtype, return_error) -> Any:
    loss = loss.astype(dtype)
    return (loss, lax.stop_gradient(error)) if return_error else loss


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _loss(problem: Problem, symmetric: bool, tolerance: float, limit: int):
    """The loss and the marginal error."""
    g, error = _potential(problem, symmetric, tolerance, limit)
    return _semidual(problem, g), error


@_loss.defjvp
def _loss_jvp(symmetric, tolerance, limit, primals, tangents):
    # The potential is constant to first order, as the semidual is largest there; what depends on
    # the problem at second order is in the derivative of `_potential`.
    (problem,), (problem_dot,) = primals, tangents
    g, error = _potential(problem, symmetric, tolerance, limit)
    y, y_dot = jax.jvp(lambda problem: _semidual(problem, g), (problem,), (problem_dot,))
    return (y, error), (y_dot, jnp.zeros_like(error))


def _semidual(problem: Problem, g: jax.Array) -> jax.Array:
    return jnp.vdot(problem.a, problem.soft_minimum(g)) + jnp.vdot(problem.b, g)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _potential(problem: Problem, symmetric: bool, tolerance: float, limit: int):
    """`g`, and the deviation of the second marginal; the first is met exactly."""
    b, epsilon, swapped = problem.b, problem.epsilon, problem.swapped()

    def advance(state):
        g, _, _, count = state
        f = g if symmetric else problem.soft_minimum(g)
        better = swapped.soft_minimum(f)
        off = jnp.where(b > 0, jnp.expm1((g - better) / epsilon), 0)
        error = jnp.sum(b * jnp.abs(off))
        # A self-transport's potentials are equal; to average keeps them so.
        return (g + better) / 2 if symmetric else better, g, error, count + 1

    def going(state):
        _, _, error, count = state
        return (error > tolerance) & (count < limit)

    # Of the type that an iteration has, which under shard_map is not that of b.
    zero = jnp.zeros_like(swapped.soft_minimum(problem.a))
    state = advance((zero, zero, jnp.sum(b), jnp.zeros((), int)))
    _, g, error, _ = lax.while_loop(going, advance, state)
    return g, error


@_potential.defjvp
def _potential_jvp(symmetric, tolerance, limit, primals, tangents):
    (problem,), (problem_dot,) = primals, tangents
    g, error = _potential(problem, symmetric, tolerance, limit)
    b = problem.b

    def residual(problem, g):
        return g - problem.swapped().soft_minimum(problem.soft_minimum(g))

    def matrix(v):
        # Times the weights it is symmetric, with the constants as its kernel, which the rank-one
        # term fixes: only differences of potentials matter.
        _, product = jax.jvp(lambda g: residual(problem, g), (g,), (v,))
        return b * product + b * jnp.vdot(b, v)

    def solve(matvec, right):
        scale = jnp.where(b > 0, b, 1)
        return jax.scipy.sparse.linalg.cg(
            matvec, right, tol=1e-6 if b.dtype == jnp.float32 else 1e-12, M=lambda v: v / scale
        )[0]

    _, moved = jax.jvp(lambda problem: residual(problem, g), (problem,), (problem_dot,))
    right = -b * moved
    right = right - b * jnp.sum(right)
    g_dot = lax.custom_linear_solve(matrix, right, solve, symmetric=True)
    return (g, error), (g_dot, jnp.zeros_like(error))
