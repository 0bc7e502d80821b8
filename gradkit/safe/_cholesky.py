"""Cholesky factors of matrices that may be singular."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.safe._edges import as_matrix
from gradkit.safe._matrices import adjoint, diagonal_matrix, unit_columns


def cholesky(a: ArrayLike) -> jax.Array:
    r"""Lower Cholesky factor of a positive semidefinite matrix.

    $$ a = l l^*, \qquad \dot l = l\, \Phi(l^{-1} \dot a\, l^{-*}), \quad
       \Phi(x) = \operatorname{tril}(x) - \tfrac12 \operatorname{diag}(x) $$

    Args:
        a: Real or complex array `[..., n, n]`. Its symmetric part is used.

    Returns:
        `l`, `[..., n, n]`, as `jnp.linalg.cholesky` where `a` is definite. Where a pivot is zero
        up to rounding, `jnp.linalg.cholesky` is NaN, and this has a column of zeros. Where a pivot
        is negative both are NaN.

    Raises:
        ValueError: If `a` is not square.

    At the kink:
        A pivot of zero is a square root at zero. Its column is held at zero; the derivatives of
        the other columns are right along matrices that stay semidefinite. Second derivatives
        are right for definite matrices.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(cholesky(jnp.ones((2, 2))))
        [[1. 0.]
         [1. 0.]]
        >>> print(jax.grad(lambda a: cholesky(a)[1, 0])(jnp.ones((2, 2))))
        [[-0.5  0.5]
         [ 0.5  0. ]]

    Source:
        Murray, *Differentiation of the Cholesky decomposition* (2016), equation 8.
    """
    a = as_matrix("cholesky", a, square=True)
    if not a.size:
        return a
    wide = widen(a)
    return _cholesky((wide + adjoint(wide)) / 2).astype(a.dtype)


@jax.custom_jvp
def _cholesky(a):
    factor = jnp.linalg.cholesky(a, symmetrize_input=False)
    definite = jnp.all(jnp.isfinite(factor))
    return lax.cond(definite, lambda _: factor, _semidefinite, a)


@_cholesky.defjvp
def _cholesky_jvp(primals, tangents):
    factor = _cholesky(*primals)
    pivots = jnp.diagonal(factor, axis1=-2, axis2=-1).real != 0
    square = unit_columns(factor, pivots)
    half = solve_triangular(square, tangents[0], lower=True)
    x = adjoint(solve_triangular(square, adjoint(half), lower=True))
    phi = jnp.tril(x) - diagonal_matrix(jnp.diagonal(x, axis1=-2, axis2=-1)) / 2
    return factor, square @ jnp.where(pivots[..., None, :], phi, 0)


def _semidefinite(a):
    """Column by column, as `l[:, j] = rest[:, j] / sqrt(rest[j, j])`, or zeros."""
    n = a.shape[-1]
    tiny = 10 * n * float(jnp.finfo(a.dtype).eps) * jnp.diagonal(a, axis1=-2, axis2=-1).real
    row = jnp.broadcast_to(jnp.arange(n), a.shape[:-1])

    def eliminate(j, state):
        rest, factor = state
        pivot = rest[..., j, j].real
        zero = jnp.abs(pivot) <= tiny[..., j]
        root = jnp.sqrt(jnp.where(zero, 1, pivot))[..., None]
        column = jnp.where(zero[..., None] | (row < j), 0, rest[..., :, j] / root)
        rest = rest - column[..., :, None] * column[..., None, :].conj()
        return rest, factor.at[..., :, j].set(column)

    return lax.fori_loop(0, n, eliminate, (a, jnp.zeros_like(a)))[1]
