"""QR decomposition of matrices of any shape and rank."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.safe._edges import as_matrix
from gradkit.safe._matrices import adjoint, diagonal_matrix, unit_columns


def qr(a: ArrayLike) -> tuple[jax.Array, jax.Array]:
    r"""Thin QR decomposition of a matrix of any shape and rank.

    $$ a = q r, \quad c = q^* \dot a, \qquad
       \dot q = q \Omega + (1 - q q^*) \dot a r^{-1}, \quad \dot r = c - \Omega r $$

    with the skew matrix `Omega` whose lower part is that of `c r^-1`. Column `j` of `q` is the
    direction that column `j` of `a` adds to those before it. Where it adds nothing, `r[j, j]` is
    zero, that column of `q` is arbitrary, and it turns only as far as the others push it.

    Args:
        a: Real or complex array `[..., m, n]`.

    Returns:
        `q`, `[..., m, k]`, and `r`, `[..., k, n]`, with `k = min(m, n)`, as `jnp.linalg.qr`.

    Raises:
        ValueError: If `a` is not a matrix.

    At the kink:
        A column that depends on those before it has a kink, at which its direction is held. The
        derivatives of the other columns of `q` that do not lie in the arbitrary directions, and of
        their rows of `r`, are right. Second derivatives are right at full rank.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> row = jax.grad(lambda a: qr(a)[1][0, 1] ** 2)(jnp.array([[3.0, 3.0], [4.0, 4.0]]))
        >>> print(jnp.round(row, 4))
        [[0. 6.]
         [0. 8.]]

    Source:
        Walter and Lehmann, *On evaluating higher-order derivatives of the QR decomposition of
        tall matrices with full column rank* (2010), for full rank.
    """
    a = as_matrix("qr", a)
    q, r = _qr(widen(a))
    return q.astype(a.dtype), r.astype(a.dtype)


@jax.custom_jvp
def _qr(a):
    return tuple(jnp.linalg.qr(a))


@_qr.defjvp
def _qr_jvp(primals, tangents):
    (a,), (a_dot,) = primals, tangents
    q, r = _qr(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    eps = float(jnp.finfo(a.dtype).eps)
    size = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(lax.stop_gradient(r))), -2))[..., :k]
    diagonal = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
    independent = diagonal > 10 * max(m, n) * eps * size
    square = unit_columns(r[..., :, :k], independent)
    # x r = b for a deficient column j: x[:, j] = 0.
    moved = jnp.where(independent[..., None, :], a_dot[..., :, :k], 0)
    x = _solve_right(moved, square)
    c = adjoint(q) @ x
    lower = jnp.tril(c, -1)
    omega = lower - adjoint(lower)
    if jnp.iscomplexobj(c):
        omega += diagonal_matrix(1j * jnp.diagonal(c, axis1=-2, axis2=-1).imag)
    q_dot = q @ omega
    if m > n:
        q_dot += x - q @ c
    r_dot = jnp.triu(adjoint(q) @ a_dot - omega @ r)
    return (q, r), (q_dot, r_dot)


def _solve_right(b, r):
    """The `x` with `x r = b`, for upper triangular `r`."""
    return adjoint(solve_triangular(adjoint(r), adjoint(b), lower=True))
