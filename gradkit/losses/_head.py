"""A linear head over many classes: what is summed over its logits, a block of classes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from gradkit import _jax_compat as compat
from gradkit._custom import custom_gradient

Carry = TypeVar("Carry")
Logits = tuple[jax.Array, ...]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("hidden", "weight", "bias"),
    meta_fields=("soft_cap", "transposed"),
)
@dataclass(frozen=True)
class Head:
    r"""Logits that are never all there: `cap(hidden @ weight + bias)`, `float[N, V]`.

    Attributes:
        hidden: `[N, D]`.
        weight: `[D, V]`, or `[V, D]` where `transposed`.
        bias: `[V]`, or None.
        soft_cap: `c` of `cap(a) = c tanh(a / c)`; None for the identity.
        transposed: Whether the classes are the weight's first axis, and its cotangent's.
    """

    hidden: jax.Array
    weight: jax.Array
    bias: jax.Array | None = None
    soft_cap: float | None = None
    transposed: bool = False

    @property
    def class_axis(self) -> int:
        """The weight's axis of classes."""
        return 0 if self.transposed else 1

    @property
    def size(self) -> int:
        """`V`."""
        return self.weight.shape[self.class_axis]

    @property
    def dtype(self) -> Any:
        """What logits and sums are computed in: float32 for half precision."""
        return jnp.promote_types(jnp.result_type(self.hidden, self.weight), jnp.float32)

    def zeros(self, *shape: int) -> jax.Array:
        """Zeros that vary over the mesh axes that the head varies over, as `lax.scan` wants."""
        return lax.full_like(self.hidden, 0, self.dtype, shape)

    def over(self, temperature: Any) -> Head:
        """The head whose logits, before the cap, are divided by a temperature, in `dtype`."""
        if isinstance(temperature, (int, float)) and temperature == 1:
            return self
        hidden, bias = (
            None if x is None else x.astype(self.dtype) / temperature
            for x in (self.hidden, self.bias)
        )
        return replace(self, hidden=hidden, bias=bias)

    def at(self, start: Any, width: int) -> Head:
        """The head of `width` classes from `start` on."""
        weight = lax.dynamic_slice_in_dim(self.weight, start, width, self.class_axis)
        bias = self.bias
        if bias is not None:
            bias = lax.dynamic_slice_in_dim(bias, start, width)
        return replace(self, weight=weight, bias=bias)

    def logits(self) -> jax.Array:
        """All logits of this head: meant for blocks."""
        weight = self.weight.T if self.transposed else self.weight
        z = jnp.matmul(self.hidden, weight, preferred_element_type=self.dtype)
        if self.bias is not None:
            z = z + self.bias.astype(self.dtype)[None]
        return z if self.soft_cap is None else self.soft_cap * jnp.tanh(z / self.soft_cap)

    def pull(self, z: jax.Array, z_bar: jax.Array) -> Head:
        """The cotangent of this head, in `dtype`, from that of its logits `z`."""
        if self.soft_cap is not None:
            z_bar = z_bar * (1 - (z / self.soft_cap) ** 2)
        bias_bar = None if self.bias is None else z_bar.sum(0)
        # Matrix units want both operands in half precision, if one is.
        z_bar = z_bar.astype(jnp.result_type(self.hidden, self.weight))
        product = partial(jnp.matmul, preferred_element_type=self.dtype)
        if self.transposed:
            hidden_bar, weight_bar = product(z_bar, self.weight), product(z_bar.T, self.hidden)
        else:
            hidden_bar, weight_bar = product(z_bar, self.weight.T), product(self.hidden.T, z_bar)
        return replace(self, hidden=hidden_bar, weight=weight_bar, bias=bias_bar)


def by_blocks(statistics: Callable[..., Any]) -> Callable[..., Any]:
    """A function of heads with a rule of its own, which is used where the logits are many.

    Few logits are better kept than computed again, so JAX's own derivative is left to work there.

    Args:
        statistics: `statistics(heads, *operands, **options)` returns `(y, grad)`, as
            `custom_gradient` has it. `y` is written in differentiable code.
    """
    ruled = custom_gradient(statistics)

    @wraps(statistics)
    def either(heads: tuple[Head, ...], *operands: Any, **options: Any) -> Any:
        if _width(heads) == heads[0].size:
            return statistics(heads, *operands, **options)[0]
        return ruled(heads, *operands, **options)

    return either


def fold(
    step: Callable[[Carry, Logits, jax.Array], Carry], carry: Carry, heads: Sequence[Head]
) -> Carry:
    """`carry = step(carry, logits, classes)` over all blocks of classes.

    Args:
        step: It gets the block's logits of each head, `[N, width]`, and the numbers of its
            classes, `int[width]`.
        carry: What it starts from.
        heads: Heads with the same `N` and `V`.
    """

    def block(carry: Carry, start: Any, width: int) -> Carry:
        logits = tuple(head.at(start, width).logits() for head in heads)
        return step(carry, logits, start + jnp.arange(width))

    return _over_blocks(block, carry, heads)


def pull(
    logits_bar: Callable[[Logits, jax.Array], Logits],
    heads: Sequence[Head],
    others: Sequence[Head] = (),
) -> tuple[Head, ...]:
    """The cotangents of the heads, from those of their logits.

    Args:
        logits_bar: It gets what the step of `fold` gets, for all heads, and returns cotangents of
            the logits of `heads`.
        heads: The heads whose cotangents are returned.
        others: Heads whose logits it needs, too.
    """

    def block(bars: tuple[Head, ...], start: Any, width: int) -> tuple[Head, ...]:
        parts = [head.at(start, width) for head in (*heads, *others)]
        logits = tuple(part.logits() for part in parts)
        z_bars = logits_bar(logits, start + jnp.arange(width))
        return tuple(
            _put(bar, part.pull(z, z_bar), start)
            for bar, part, z, z_bar in zip(bars, parts, logits, z_bars, strict=False)
        )

    bars = _over_blocks(block, tuple(map(_zero_bar, heads)), heads)
    return tuple(
        replace(bar, hidden=bar.hidden.astype(head.hidden.dtype))
        for bar, head in zip(bars, heads, strict=True)
    )


def by_rows(rows: Callable[[Logits], Any], heads: Sequence[Head]) -> Any:
    """`rows(logits)` with whole rows of logits, a block of tokens at a time.

    Args:
        rows: It gets the logits of each head, `[n, V]`, and returns a pytree of `[n]`.
        heads: Heads with the same `N` and `V`.
    """
    tokens = heads[0].hidden.shape[0]
    if _width(heads) == heads[0].size:
        return rows(tuple(head.logits() for head in heads))

    def block(start: Any, height: int) -> Any:
        parts = [
            replace(head, hidden=lax.dynamic_slice_in_dim(head.hidden, start, height))
            for head in heads
        ]
        return rows(tuple(part.logits() for part in parts))

    # Each block reads the whole weight, which has to pay.
    height = min(tokens, max(64, _room() // heads[0].size))
    count, rest = divmod(tokens, height)
    again = jax.checkpoint(lambda start: block(start, height), prevent_cse=False)
    found = lax.map(again, _starts(heads[0], height, count))
    found = jax.tree.map(lambda blocks: blocks.reshape(-1), found)
    if rest:
        last = jax.checkpoint(lambda: block(tokens - rest, rest))()
        found = jax.tree.map(lambda some, more: jnp.concatenate([some, more]), found, last)
    return found


def _zero_bar(head: Head) -> Head:
    # Sums over the blocks are wide; what belongs to one block's classes is complete at once.
    zeros = jax.tree.map(lambda leaf: head.zeros(*leaf.shape).astype(leaf.dtype), head)
    return replace(zeros, hidden=head.zeros(*head.hidden.shape))


def _put(bar: Head, part: Head, start: Any) -> Head:
    """`bar` with the cotangent of a block in its place."""
    put = lax.dynamic_update_slice_in_dim
    bias = bar.bias
    if bias is not None and part.bias is not None:
        bias = put(bias, part.bias.astype(bias.dtype), start, 0)
    weight = put(bar.weight, part.weight.astype(bar.weight.dtype), start, bar.class_axis)
    return replace(bar, hidden=bar.hidden + part.hidden, weight=weight, bias=bias)


def _over_blocks(
    block: Callable[[Carry, Any, int], Carry], carry: Carry, heads: Sequence[Head]
) -> Carry:
    """`carry = block(carry, start, width)` over all blocks; derivatives compute them again."""
    size, width = heads[0].size, _width(heads)
    count, rest = divmod(size, width)
    if count == 1:
        carry = block(carry, 0, width)
    else:
        again = jax.checkpoint(lambda carry, start: block(carry, start, width), prevent_cse=False)
        starts = _starts(heads[0], width, count)
        carry, _ = lax.scan(lambda carry, start: (again(carry, start), None), carry, starts)
    if rest:
        carry = jax.checkpoint(lambda carry: block(carry, size - rest, rest))(carry)
    return carry


def _starts(head: Head, width: int, count: int) -> jax.Array:
    axes = compat.varying_axes(jax.typeof(head.hidden))
    return compat.vary_over(width * jnp.arange(count), axes)


def _width(heads: Sequence[Head]) -> int:
    """How many classes are a block; all of them where the logits are few."""
    (tokens, _), size = heads[0].hidden.shape, heads[0].size
    if tokens * size <= 4 * _room():
        return size
    return min(size, max(128, _room() // tokens // 128 * 128))


def _room() -> int:
    """How many logits are a block: the platform's number, as nothing else can be known here."""
    # On a CPU, 2 MB stay in the cache. Matrix units of accelerators are busy from some thousand
    # rows and columns on.
    return 2**19 if jax.default_backend() == "cpu" else 2**24
