"""Square roots of matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.safe._edges import as_matrix
from gradkit.safe._matrices import adjoint


def sqrtm(a: ArrayLike) -> jax.Array:
    r"""Square root of a positive semidefinite matrix, with derivatives of every order.

    $$ s s = a, \qquad s \dot s + \dot s s = \dot a $$

    In the basis of eigenvectors the second equation is a division by `s_i + s_j`, which has no
    small differences in it: coinciding eigenvalues do no harm, at any order. SciPy's function has
    no derivative in JAX, and by way of `jnp.linalg.eigh` that is NaN where eigenvalues coincide.

    Args:
        a: Real or complex array `[..., n, n]`. Its symmetric part is used.

    Returns:
        `s`, `[..., n, n]`, symmetric. Eigenvalues that are negative up to rounding count as zero;
        with one that is more negative the result is NaN.

    Raises:
        ValueError: If `a` is not square.

    At the kink:
        Between eigenvectors of eigenvalue zero the slope is infinite. The rule picks 0 there, as
        `sqrt` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(lambda a: jnp.trace(sqrtm(a)))(4 * jnp.eye(2)))
        [[0.25 0.  ]
         [0.   0.25]]

    Source:
        Higham, *Functions of Matrices* (2008), section 6.1.
    """
    a = as_matrix("sqrtm", a, square=True)
    wide = widen(a)
    return _sqrtm((wide + adjoint(wide)) / 2).astype(a.dtype)


@jax.custom_jvp
def _sqrtm(a):
    w, v = jnp.linalg.eigh(a, symmetrize_input=False)
    tiny = _tiny(w)
    roots = jnp.sqrt(jnp.where(jnp.abs(w) <= tiny, 0, w))
    return (v * roots[..., None, :]) @ adjoint(v)


@_sqrtm.defjvp
def _sqrtm_jvp(primals, tangents):
    s = _sqrtm(*primals)
    return s, _solve_sylvester(s, tangents[0])


def _solve_sylvester(s, c):
    """The `x` with `s x + x s = c`, for symmetric semidefinite `s`; 0 where `s` is zero.

    `custom_linear_solve` differentiates the equation, not the way to its solution: the latter has
    eigenvectors in it, which need not have a derivative.
    """
    w, v = jnp.linalg.eigh(lax.stop_gradient(s), symmetrize_input=False)
    sums = w[..., None, :] + w[..., :, None]
    usable = sums > _tiny(w)[..., None]

    def solve(_, c):
        x = adjoint(v) @ c @ v
        return v @ jnp.where(usable, x / jnp.where(usable, sums, 1), 0) @ adjoint(v)

    def transpose_solve(_, c):
        return jnp.swapaxes(solve(_, jnp.swapaxes(c, -1, -2)), -1, -2)

    return lax.custom_linear_solve(lambda x: s @ x + x @ s, c, solve, transpose_solve)


def _tiny(w):
    eps = float(jnp.finfo(w.dtype).eps)
    return 10 * w.shape[-1] * eps * jnp.max(jnp.abs(w), -1, keepdims=True, initial=0)
