"""Anderson acceleration of a fixed-point iteration, on vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gradkit.ops._loops import iterate
from gradkit.ops._outcome import Found

# So many steps have to halve the residual.
PATIENCE = 40


@dataclass(frozen=True)
class Anderson:
    r"""Fixed points by iteration, each step corrected by what the last ones have shown.

    $$ z_{k+1} = z_k + \beta r_k - \sum_i \gamma_i (\Delta z_i + \beta \Delta r_i), \qquad
       r_k = f(z_k) - z_k, \quad \gamma = \arg\min \|r_k - \sum_i \gamma_i \Delta r_i\| $$

    One evaluation of `f` a step, where the plain iteration (`memory=0`) needs many steps, or
    diverges. The small least-squares problem is kept up to date by one row a step.

    Least squares are drawn to places where a solution nearly exists, and may stay there; the plain
    iteration passes them. Where 40 steps have not halved the residual, it takes over.

    Args:
        memory: How many differences to remember; each costs two copies of `z`.
        mixing: `beta`, the part of the step from `z` to `f(z)` that is taken; less than 1 where
            the iteration overshoots.

    Source:
        Walker & Ni, *Anderson acceleration for fixed-point iterations* (2011), SIAM J. Numer.
        Anal. 49(4), the unconstrained form.
    """

    memory: int = 5
    mixing: float = 1.0

    def find_fixed_point(
        self, f: Callable[[jax.Array], jax.Array], init: jax.Array, tol: float, max_steps: int
    ) -> Found:
        """Look for `z = f(z)`, to a residual of at most `tol * (1 + |z|)`."""
        m, n, dtype = max(self.memory, 0), init.size, init.dtype
        # Relative to squares of unit vectors: what rounding leaves of their products.
        ridge = 10 * float(jnp.finfo(dtype).eps) * max(m, 1)

        def evaluate(z):
            r = f(z) - z
            norm = jnp.linalg.norm(r)
            return r, norm, norm <= tol * (1 + jnp.linalg.norm(z))

        def plain(z, r, history):
            z = z + self.mixing * r
            return (z, *evaluate(z), history)

        def accelerated(k, z, r, history, helping):
            moves, changes, gram, scales = history
            # Directions not seen yet have scale 0: their rows of `gram` are those of the identity.
            gamma = jnp.linalg.solve(gram, changes @ r * scales) * scales
            gamma = jnp.where(helping, gamma, 0)
            next_z = z + self.mixing * r - gamma @ moves
            next_r, norm, done = evaluate(next_z)
            i, change = k % m, next_r - r
            length = jnp.linalg.norm(change)
            changes = changes.at[i].set(change)
            moves = moves.at[i].set(next_z - z + self.mixing * change)
            scales = scales.at[i].set(
                jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
            )
            row = ((changes @ change) * scales * scales[i]).at[i].set(1 + ridge)
            gram = gram.at[i].set(row).at[:, i].set(row)
            return next_z, next_r, norm, done, (moves, changes, gram, scales)

        def step(state):
            k, z, r, norm, _, history, (before, helping) = state
            looks = k % PATIENCE == 0
            helping = helping & (~looks | (norm <= before / 2))
            progress = jnp.where(looks, norm, before), helping
            if m == 0:
                return k + 1, *plain(z, r, history), progress
            return k + 1, *accelerated(k, z, r, history, helping), progress

        def unfinished(state):
            k, _, _, norm, done, *_ = state
            return ~done & (k < max_steps) & jnp.isfinite(norm)

        empty = jnp.zeros((m, n), dtype)
        history = (empty, empty, jnp.eye(m, dtype=dtype), jnp.zeros(m, dtype))
        progress = jnp.asarray(jnp.inf, dtype), jnp.asarray(True)
        start: Any = (jnp.zeros((), jnp.int32), init, *evaluate(init), history, progress)
        k, z, _, norm, done, *_ = iterate(unfinished, step, start)
        return Found(z, done, k, norm)
