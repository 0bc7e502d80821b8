"""Which keys a query sees, and with what score; the same for all ways to compute attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Scores:
    """What is known of the scores before the arrays are.

    Attributes:
        causal: Whether a query sees no key behind its own position.
        window: How many positions a query sees to its left and to its right, or None for all.
        softcap: `c` where scores `s` become `c tanh(s / c)`, or None.
    """

    causal: bool
    window: tuple[int, int] | None
    softcap: float | None

    @property
    def reach(self) -> tuple[int | None, int | None]:
        """How far a query sees to its left and to its right; None for all the way."""
        left, right = (None, None) if self.window is None else self.window
        return left, (0 if right is None else min(right, 0)) if self.causal else right

    def span(self, first: Any, last: Any, n_keys: int) -> tuple[Any, Any]:
        """From which key, and up to which, the queries from `first` to `last` see any."""
        left, right = self.reach
        start = 0 if left is None else jnp.maximum(first - left, 0)
        stop = n_keys if right is None else jnp.minimum(last + right + 1, n_keys)
        return start, stop

    def visible(
        self, rows: jax.Array, cols: jax.Array, q_length: Any = None, k_length: Any = None
    ) -> jax.Array | None:
        """Whether queries see keys, as far as positions tell; None for always.

        Args:
            rows: Positions of queries.
            cols: Positions of keys, to be broadcast with `rows`.
            q_length: How many queries count, or None for all.
            k_length: How many keys count.
        """
        left, right = self.reach
        conditions = [
            None if left is None else cols >= rows - left,
            None if right is None else cols <= rows + right,
            None if q_length is None else rows < q_length,
            None if k_length is None else cols < k_length,
        ]
        return both(*conditions)

    def capped(self, scores: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The scores under their soft cap, and the slope that it has there; None for 1."""
        if self.softcap is None:
            return scores, None
        tanh = jnp.tanh(scores / self.softcap)
        return tanh * self.softcap, 1 - tanh**2


def both(*conditions: Any) -> Any:
    """Whether all of the conditions hold; None is no condition."""
    joint = None
    for condition in conditions:
        if condition is not None:
            joint = condition if joint is None else joint & condition
    return joint
