"""Newton's method with a search along each step, on vectors: for roots and for minima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gradkit.ops._krylov import cg, gmres
from gradkit.ops._loops import iterate, vary, varying_axes
from gradkit.ops._outcome import Found

# Below, a matrix is built and factorised: on a CPU about as fast as a dozen products with it.
DENSE_UP_TO = 128
# Conjugate gradients need fewer products, and no memory.
POSITIVE_DENSE_UP_TO = 32
_HALVINGS = 12


@dataclass(frozen=True)
class Newton:
    r"""Newton's method, with each step halved until it helps.

    $$ z_{k+1} = z_k + t\,d, \qquad F'(z_k)\, d = -F(z_k) $$

    For a minimum `F` is the gradient, and `d` comes from conjugate gradients that stop early far
    from it and at negative curvature, so that it always descends. For a root `d` comes from the
    matrix up to 128 unknowns, and from GMRES above.

    It ends where the whole step has a norm of at most `tol * (1 + |z|)`: the distance to the
    solution, in the units of `z`, whatever those of `F`. Where rounding forbids that, it ends next
    to the solution where no step helps.

    Args:
        inner_steps: Products with the derivative a step at most, where no matrix is built.

    Source:
        Nocedal & Wright, *Numerical Optimization* (2006), chapters 7 and 11.
    """

    inner_steps: int = 100

    def find_fixed_point(
        self, f: Callable[[jax.Array], jax.Array], init: jax.Array, tol: float, max_steps: int
    ) -> Found:
        """Look for `z = f(z)`."""
        return self.find_root(lambda z: z - f(z), init, tol, max_steps)

    def find_root(
        self, f: Callable[[jax.Array], jax.Array], init: jax.Array, tol: float, max_steps: int
    ) -> Found:
        """Look for `f(z) = 0`."""
        rounding = float(jnp.finfo(init.dtype).eps)

        def direction(z):
            fz, linear = jax.linearize(f, z)
            if z.size <= DENSE_UP_TO:
                return jnp.linalg.solve(materialize(linear, z), -fz), jnp.asarray(True)
            d, residual, _ = gmres(linear, -fz, tol=1e-2, max_steps=self.inner_steps)
            return d, residual <= 0.1 * jnp.linalg.norm(fz)

        def step(state):
            k, z, norm, _, _ = state
            d, is_newton = direction(z)

            def helps(t):
                return jnp.linalg.norm(f(z + t * d)) <= (1 - 1e-4 * t) * norm

            t, helped = _search(helps, z.dtype)
            # Next to the root rounding decides which of two points has the smaller norm: where no
            # step helps, a short one says that there is no getting nearer.
            within = jnp.where(helped, tol, max(tol, rounding**0.5))
            close = is_newton & (jnp.linalg.norm(d) <= within * (1 + jnp.linalg.norm(z)))
            z = jnp.where(helped, z + t * d, z)
            return k + 1, z, jnp.linalg.norm(f(z)), close, helped

        def unfinished(state):
            k, _, norm, close, helped = state
            return ~close & helped & (norm > 0) & (k < max_steps)

        start = (jnp.zeros((), jnp.int32), init, jnp.linalg.norm(f(init)), *_flags())
        k, z, norm, close, _ = iterate(unfinished, step, start)
        return Found(z, (close | (norm == 0)) & jnp.isfinite(norm), k, norm)

    def find_minimum(
        self, f: Callable[[jax.Array], jax.Array], init: jax.Array, tol: float, max_steps: int
    ) -> Found:
        """Look for a minimum of `f`, a function with one number as its value."""
        gradient = jax.grad(f)
        rounding = 8 * float(jnp.finfo(init.dtype).eps)
        limit = min(self.inner_steps, 2 * init.size)

        def step(state):
            k, z, fz, g, norm, _, _ = state
            _, hessian = jax.linearize(gradient, z)
            forcing = jnp.minimum(0.1, jnp.sqrt(norm))
            d, rest, bounded = cg(hessian, -g, tol=forcing, max_steps=limit)
            is_newton = bounded & (rest <= 0.1 * norm)
            slope = jnp.vdot(g, d)
            # Values that differ by less than their rounding say nothing: the gradient has to.
            blind = -slope <= rounding * jnp.abs(fz)

            def helps(t):
                descends = f(z + t * d) <= fz + 1e-4 * t * slope
                return descends | (blind & (jnp.linalg.norm(gradient(z + t * d)) < norm))

            t, helped = _search(helps, z.dtype)
            close = is_newton & (jnp.linalg.norm(d) <= tol * (1 + jnp.linalg.norm(z)))
            z = jnp.where(helped, z + t * d, z)
            fz, g = jax.value_and_grad(f)(z)
            close = close | (is_newton & blind & ~helped)
            return k + 1, z, fz, g, jnp.linalg.norm(g), close, helped

        def unfinished(state):
            k, _, _, _, norm, close, helped = state
            return ~close & helped & (norm > 0) & (k < max_steps)

        fz, g = jax.value_and_grad(f)(init)
        start = (jnp.zeros((), jnp.int32), init, fz, g, jnp.linalg.norm(g), *_flags())
        k, z, _, _, norm, close, _ = iterate(unfinished, step, start)
        return Found(z, (close | (norm == 0)) & jnp.isfinite(norm), k, norm)


def materialize(matvec: Callable[[jax.Array], jax.Array], like: jax.Array) -> jax.Array:
    """The matrix of a linear function of vectors."""
    columns = vary(jnp.eye(like.size, dtype=like.dtype), varying_axes(like))
    return jax.vmap(matvec, out_axes=1)(columns)


def _search(helps, dtype) -> tuple[jax.Array, jax.Array]:
    """The largest of 1, 1/2, 1/4, ... that helps, and whether one does."""

    def halve(state):
        t, _ = state
        return t / 2, helps(t / 2)

    def unfinished(state):
        t, helped = state
        return ~helped & (t > 0.5**_HALVINGS)

    one = jnp.ones((), dtype)
    return iterate(unfinished, halve, (one, helps(one)))


def _flags() -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(False), jnp.asarray(True)
