"""Linear systems by products with their matrix: GMRES and conjugate gradients, on vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit.ops._loops import iterate

MatVec = Callable[[jax.Array], jax.Array]


class LinearSolution(NamedTuple):
    """What an iterative solver found.

    Attributes:
        x: The solution.
        residual: The norm of `b - A x`.
        bounded: For conjugate gradients, whether no direction of negative curvature was met.
    """

    x: jax.Array
    residual: jax.Array
    bounded: jax.Array


class _Arnoldi(NamedTuple):
    """An orthonormal basis, and the least-squares problem in it, kept triangular by rotations."""

    k: jax.Array
    basis: jax.Array
    rotation: jax.Array
    triangle: jax.Array
    rhs: jax.Array


def gmres(
    matvec: MatVec, b: jax.Array, *, tol: float, max_steps: int, restart: int = 20
) -> LinearSolution:
    """Solve `A x = b` for any `A`; the residual's norm falls in every step.

    `jax.scipy.sparse.linalg.gmres` does all steps up to the restart before it looks at the
    residual; well-conditioned systems such as those of contractions need far fewer.

    Args:
        matvec: `A` times a vector.
        b: The right-hand side.
        tol: When to stop: the residual's norm, relative to that of `b`.
        max_steps: Products with `A` at most, up to the next restart.
        restart: Size of the basis, which is kept in memory.

    Source:
        Saad & Schultz, *GMRES* (1986), SIAM J. Sci. Stat. Comput. 7(3), by classical Gram-Schmidt:
        what that loses of orthogonality is made up for by the next cycle.
    """
    m = min(restart, b.size)
    target = tol * jnp.linalg.norm(b)

    def extend(state: _Arnoldi) -> _Arnoldi:
        k, basis, rotation, triangle, rhs = state
        w = matvec(basis[k])
        column = basis @ w
        w = w - column @ basis
        norm = jnp.linalg.norm(w)
        column = rotation @ column.at[k + 1].set(norm)
        length = jnp.hypot(column[k], norm)
        c, s = _divide(column[k], length), _divide(norm, length)
        upper, lower = rotation[k], rotation[k + 1]
        rotation = rotation.at[k].set(c * upper + s * lower)
        rotation = rotation.at[k + 1].set(c * lower - s * upper)
        column = jnp.where(jnp.arange(m + 1) < k, column, 0).at[k].set(length)
        return _Arnoldi(
            k + 1,
            basis.at[k + 1].set(_divide(w, norm)),
            rotation,
            triangle.at[:, k].set(column[:m]),
            rhs.at[k + 1].set(-s * rhs[k]).at[k].set(c * rhs[k]),
        )

    def cycle(state):
        x, residual, norm, steps = state
        start = _Arnoldi(
            jnp.zeros((), jnp.int32),
            jnp.zeros((m + 1, b.size), b.dtype).at[0].set(_divide(residual, norm)),
            jnp.eye(m + 1, dtype=b.dtype),
            jnp.eye(m, dtype=b.dtype),
            jnp.zeros(m + 1, b.dtype).at[0].set(norm),
        )
        end = iterate(lambda s: (s.k < m) & (jnp.abs(s.rhs[s.k]) > target), extend, start)
        used = jnp.arange(m) < end.k
        # A zero on the diagonal: `A` is singular on the basis, and the residual stays.
        diagonal = jnp.diagonal(end.triangle)
        triangle = end.triangle + jnp.diag(jnp.where(diagonal == 0, 1, 0).astype(b.dtype))
        rhs = jnp.where(used & (diagonal != 0), end.rhs[:m], 0)
        y = jax.scipy.linalg.solve_triangular(triangle, rhs)
        x = x + y @ end.basis[:m]
        residual = b - matvec(x)
        return x, residual, jnp.linalg.norm(residual), steps + end.k

    start = (jnp.zeros_like(b), b, jnp.linalg.norm(b), jnp.zeros((), jnp.int32))
    x, _, norm, _ = iterate(lambda s: (s[2] > target) & (s[3] < max_steps), cycle, start)
    return LinearSolution(x, norm, jnp.asarray(True))


def cg(matvec: MatVec, b: jax.Array, *, tol: jax.Array | float, max_steps: int) -> LinearSolution:
    """Solve `A x = b` for symmetric positive definite `A`.

    Where `A` turns out to have negative curvature, the steps so far are returned (Steihaug 1983),
    or `b` where there was none: for `b` minus a gradient, always a direction of descent.

    Args:
        matvec: `A` times a vector.
        b: The right-hand side.
        tol: When to stop: the residual's norm, relative to that of `b`.
        max_steps: Products with `A` at most.
    """
    target = (tol * jnp.linalg.norm(b)) ** 2

    def step(state):
        x, r, p, square, _, steps = state
        product = matvec(p)
        curvature = jnp.vdot(p, product)
        positive = curvature > 0
        alpha = jnp.where(positive, square / jnp.where(positive, curvature, 1), 0)
        escaped = jnp.where((steps == 0) & ~positive, b, x)
        x = jnp.where(positive, x + alpha * p, escaped)
        r = r - alpha * product
        next_square = jnp.vdot(r, r)
        return x, r, r + next_square / square * p, next_square, positive, steps + 1

    def unfinished(state):
        *_, square, bounded, steps = state
        return (square > target) & bounded & (steps < max_steps)

    start = (jnp.zeros_like(b), b, b, jnp.vdot(b, b), jnp.asarray(True), jnp.zeros((), jnp.int32))
    x, _, _, square, bounded, _ = iterate(unfinished, step, start)
    return LinearSolution(x, jnp.sqrt(square), bounded)


def _divide(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))
