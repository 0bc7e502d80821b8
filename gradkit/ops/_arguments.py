"""What the operations do to their arguments at the door."""

from __future__ import annotations

import jax

from gradkit._errors import describe


def axis_index(function: str, x: jax.Array, axis: int) -> int:
    """`axis` counted from the front."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            describe(
                f"gk.{function} got an axis that its array does not have.",
                expected=f"an axis of an array of shape {x.shape}",
                got=f"axis {axis}",
            )
        )
    return axis % x.ndim
