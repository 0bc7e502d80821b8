"""Encoders that meet a large batch in sub-batches, under a loss over the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradkit._errors import LossArgumentError, describe


def grad_cache(
    encoder: Callable[..., Any], *, chunk_size: int, batched: int | Sequence[int] | None = None
) -> Callable[..., Any]:
    r"""An encoder that keeps only its results, and computes sub-batches again for the gradient.

    $$ \bar\theta = \sum_c \Bigl(\frac{\partial f(\theta, x_c)}{\partial \theta}\Bigr)^{\!\top}
       \bar r_c, \qquad r_c = f(\theta, x_c) $$

    so that a loss over all `r`, such as `info_nce`, has the exact gradient of the full batch, and
    the memory of activations is that of one sub-batch. Losses over two encoders wrap each. It is
    `jax.checkpoint` around each step of a `jax.lax.map`, so all of JAX's derivatives are there.

    Args:
        encoder: `encoder(params, inputs, ...)` returns a pytree of arrays whose first axis is that
            of the batch. Examples must not meet inside: with batch normalisation, statistics are
            those of a sub-batch.
        chunk_size: The examples of a sub-batch; the last one may have fewer.
        batched: The positions of the arguments, pytrees, whose first axis is that of the batch
            (for dropout, an array of keys, one for each example). Default: all but the first.

    Returns:
        A function with the arguments and results of `encoder`.

    Raises:
        LossArgumentError: If batched arguments differ in length, or `chunk_size` is not positive.

    Keeps:
        The arguments, and the results.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gradkit.losses import info_nce
        >>> encode = grad_cache(lambda w, x: jnp.tanh(x @ w), chunk_size=2)
        >>> def loss(w, x):
        ...     return info_nce(encode(w, x), encode(w, 2 * x), temperature=1.0).mean()
        >>> print(jax.grad(loss)(jnp.eye(2), jnp.arange(10.0).reshape(5, 2) / 10).shape)
        (2, 2)

    Source:
        Gao et al., *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*
        (2021), arXiv:2101.06983.
    """
    if chunk_size < 1:
        raise LossArgumentError(
            describe(
                "gk.losses.grad_cache got a chunk_size of no examples.",
                expected="a positive integer",
                got=repr(chunk_size),
            )
        )

    @wraps(encoder)
    def in_chunks(*args: Any) -> Any:
        positions = range(1, len(args)) if batched is None else batched
        positions = (positions,) if isinstance(positions, int) else tuple(positions)
        inputs = tuple(args[i] for i in positions)
        size = _batch_size(inputs)
        count, rest = divmod(size, chunk_size)

        def encode(chunk: Any) -> Any:
            every = list(args)
            for i, part in zip(positions, chunk, strict=True):
                every[i] = part
            return encoder(*every)

        if count + bool(rest) < 2:
            return encode(inputs)
        split = jax.tree.map(
            lambda x: x[: count * chunk_size].reshape(count, chunk_size, *x.shape[1:]), inputs
        )
        results = lax.map(jax.checkpoint(encode, prevent_cse=False), split)
        results = jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:]), results)
        if not rest:
            return results
        last = jax.checkpoint(encode)(jax.tree.map(lambda x: x[count * chunk_size :], inputs))
        return jax.tree.map(lambda r, more: jnp.concatenate([r, more]), results, last)

    return in_chunks


def _batch_size(inputs: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    sizes = {shape[0] if shape else None for shape in shapes}
    size = next(iter(sizes), None)
    if len(sizes) != 1 or size is None:
        raise LossArgumentError(
            describe(
                "gk.losses.grad_cache got batched arguments that do not fit.",
                expected="arrays with one length of their first axes",
                got=f"shapes {', '.join(map(str, shapes))}" if shapes else "no arrays",
                fix="name the arguments that hold examples: batched=(1, 2)",
            )
        )
    return size
