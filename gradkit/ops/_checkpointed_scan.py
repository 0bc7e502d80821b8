"""A scan whose gradient keeps a few states for each order of magnitude of its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradkit._errors import describe

Tree = Any
Step = Callable[[Tree, Tree], tuple[Tree, Tree]]


def checkpointed_scan(
    f: Step,
    init: Tree,
    xs: Tree = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    branching: int = 8,
) -> tuple[Tree, Tree]:
    r"""`lax.scan` whose gradient keeps `O(b log_b n)` states, instead of all `n`.

    $$ c_t, y_t = f(c_{t-1}, x_t), \qquad t = 1, \dots, n $$

    The steps are a tree: segments of `b` steps, segments of `b` segments, and so on. Backwards,
    each segment starts again from the one state that was kept at its beginning, and keeps those of
    its parts; only the residuals of `b` single steps are there at a time. Each level of the tree
    costs one more run of the steps: `log_b n` of them in all. The value costs what it costs with
    `lax.scan`, and it is the same.

    Args:
        f: `(carry, x) -> (carry, y)`, as for `lax.scan`.
        init: The first carry, a pytree.
        xs: A pytree of arrays whose first axis is the steps, or None.
        length: `n`, where there are no `xs`.
        reverse: Whether to go from the last step to the first.
        branching: `b`, 2 or more. Larger numbers run the steps fewer times, `ceil(sqrt(n))` no more
            than twice more, and keep more states.

    Returns:
        The last carry, and `y` of all steps. `xs` and `y` are there in full, as ever.

    Raises:
        ValueError: If `branching` is no number of branches, or the arrays of `xs` and `length` do
            not agree.

    Keeps:
        `2 b log_b n` carries at most, and the residuals of `b` steps. Both modes and every order
        are JAX's own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def rotate(c, _):
        ...     return jnp.array([c[0] - 0.01 * c[1], c[1] + 0.01 * c[0]]), None
        >>> def end(c):
        ...     return checkpointed_scan(rotate, c, length=1000)[0][0]
        >>> slope = jax.jit(jax.grad(end))(jnp.array([1.0, 0.0]))
        >>> print(f"{slope[0]:.3f} = 1.0001^500 cos(1000 atan(0.01))")
        -0.882 = 1.0001^500 cos(1000 atan(0.01))

    Source:
        Griewank, *Achieving logarithmic growth of temporal and spatial complexity in reverse
        automatic differentiation* (1992); Chen et al. (2016), arXiv:1604.06174, section 4.3.
    """
    if not isinstance(branching, int) or branching < 2:
        raise ValueError(
            describe(
                "gk.ops.checkpointed_scan divides steps into at least two parts.",
                expected="branching, a whole number from 2 on",
                got=f"branching={branching!r}",
            )
        )
    n = _count_steps(xs, length)
    parts = _by_digits(n, branching)
    carry, found = init, []
    for start, count, level in reversed(parts) if reverse else parts:
        size = branching**level
        step, part = f, _slice(xs, start, count * size)
        if level:
            step = jax.checkpoint(_segment(f, level, branching, reverse), prevent_cse=False)
            part = _reshape(part, count, size)
        carry, ys = lax.scan(step, carry, part, count, reverse)
        found.append(_flatten(ys) if level else ys)
    if reverse:
        found.reverse()
    if len(found) == 1:
        return carry, found[0]
    return carry, jax.tree.map(lambda *ys: jnp.concatenate(ys), *found)


def _segment(f: Step, level: int, branching: int, reverse: bool) -> Step:
    """`branching**level` steps as one, which keeps the states between its parts."""
    if level == 1:
        return lambda carry, xs: lax.scan(f, carry, xs, branching, reverse)
    inner = _segment(f, level - 1, branching, reverse)

    def run(carry: Tree, xs: Tree) -> tuple[Tree, Tree]:
        part = jax.checkpoint(inner, prevent_cse=False)
        xs = _reshape(xs, branching, branching ** (level - 1))
        carry, ys = lax.scan(part, carry, xs, branching, reverse)
        return carry, _flatten(ys)

    return run


def _by_digits(n: int, branching: int) -> list[tuple[int, int, int]]:
    """The steps as runs of equal segments: `(first step, segments, level)`, large ones first."""
    digits, rest = [], n
    while rest:
        rest, digit = divmod(rest, branching)
        digits.append(digit)
    parts, start = [], 0
    for level in reversed(range(len(digits))):
        if digits[level]:
            parts.append((start, digits[level], level))
            start += digits[level] * branching**level
    return parts or [(0, 0, 0)]


def _count_steps(xs: Tree, length: int | None) -> int:
    # An array without axes has no number of steps, and agrees with nothing.
    counts = {jnp.shape(x)[0] if jnp.ndim(x) else -1 for x in jax.tree.leaves(xs)}
    if length is not None:
        counts.add(length)
    if len(counts) != 1 or min(counts) < 0:
        raise ValueError(
            describe(
                "gk.ops.checkpointed_scan does not know how many steps there are.",
                expected="xs of arrays with equal first axes, or length",
                got=f"first axes and lengths {sorted(counts)}, -1 for none",
            )
        )
    return counts.pop()


def _slice(xs: Tree, start: int, count: int) -> Tree:
    return jax.tree.map(lambda x: lax.slice_in_dim(jnp.asarray(x), start, start + count), xs)


def _reshape(xs: Tree, count: int, size: int) -> Tree:
    return jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), xs)


def _flatten(ys: Tree) -> Tree:
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), ys)
