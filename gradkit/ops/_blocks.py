"""An axis cut into equal blocks, without padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@dataclass(frozen=True)
class Blocks:
    """Blocks of an axis; the last one is moved back where it would reach over the end.

    Attributes:
        n: The length of the axis.
        length: That of a block.
    """

    n: int
    length: int

    @staticmethod
    def of(n: int, most: int) -> Blocks:
        """As few blocks as do with about `most` a block, of lengths that leave little over."""
        count = max(1, -(-n // max(1, most)))
        return Blocks(n, min(n, -(-n // (8 * count)) * 8))

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return -(-self.n // self.length)

    def start(self, i: Any) -> Any:
        """Where block `i` begins."""
        return jnp.minimum(i * self.length, self.n - self.length)

    def positions(self, i: Any) -> jax.Array:
        """The positions in block `i`."""
        return self.start(i) + jnp.arange(self.length)

    def is_fresh(self, i: Any) -> jax.Array | None:
        """Which positions of block `i` were in no block before; None if all, whatever the block."""
        return self.positions(i) >= i * self.length if self.n % self.length else None


def transposed_product(large: jax.Array, small: jax.Array) -> jax.Array:
    """`large.T @ small`, without a transposed copy of the large factor.

    XLA on a CPU makes one, and takes longer for it than for the product. The barrier keeps it from
    finding that this is the same.
    """
    return lax.optimization_barrier(small.T @ large).T
