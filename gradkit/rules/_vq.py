"""Vector quantisation with a codebook."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit.rules._elementwise import as_floating
from gradkit.rules._straight_through import straight_through


class VectorQuantized(NamedTuple):
    """What `vector_quantize` returns.

    Attributes:
        values: The codes of the vectors, of their shape and dtype.
        indices: Their numbers, int32[...].
        loss: What to add to the loss: `codebook_loss + commitment * commitment_loss`.
        codebook_loss: Pulls codes to vectors.
        commitment_loss: Pulls vectors to codes; the same number.
    """

    values: jax.Array
    indices: jax.Array
    loss: jax.Array
    codebook_loss: jax.Array
    commitment_loss: jax.Array


def vector_quantize(
    z: ArrayLike, codebook: ArrayLike, *, commitment: ArrayLike = 0.25
) -> VectorQuantized:
    r"""Replace each vector by the nearest code; cotangents go straight through to the vectors.

    $$ k = \arg\min_j \|z - e_j\|_2, \qquad y = e_k, \qquad \bar z = \bar y, $$
    $$ L = \langle (\mathrm{sg}[z] - e_k)^2 \rangle
         + \beta\, \langle (z - \mathrm{sg}[e_k])^2 \rangle $$

    The mean is over all vectors and their elements; `sg` stops the gradient. Codes learn from the
    first term alone, and `y` gives them no gradient.

    Args:
        z: Vectors, float[..., D].
        codebook: Codes `e`, float[K, D].
        commitment: `beta`.

    Returns:
        `values`, `indices`, `loss` and its two terms. The losses are in float32 or wider.

    Raises:
        ValueError: If the shapes do not fit.

    At the kink:
        At equal distances the first code is taken.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> codebook = jnp.array([[0.0, 0.0], [1.0, 1.0]])
        >>> z = jnp.array([[0.9, 0.8], [0.1, 0.2]])
        >>> coded = vector_quantize(z, codebook)
        >>> print(coded.indices, coded.values[0], f"{coded.codebook_loss:.3f}")
        [1 0] [1. 1.] 0.025
        >>> print(jax.grad(lambda z: vector_quantize(z, codebook).values.sum())(z))
        [[1. 1.]
         [1. 1.]]

    Source:
        van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning* (2017),
        arXiv:1711.00937, equation 3.
    """
    z, codebook = as_floating("vector_quantize", z), as_floating("vector_quantize", codebook)
    if codebook.ndim != 2 or z.ndim == 0 or z.shape[-1] != codebook.shape[-1]:
        raise ValueError(
            describe(
                "gk.rules.vector_quantize takes vectors and a codebook of one width.",
                expected="z [..., D], codebook [K, D]",
                got=f"z {z.shape}, codebook {codebook.shape}",
            )
        )
    dtype = jnp.promote_types(jnp.promote_types(z.dtype, codebook.dtype), jnp.float32)
    vectors, codes = z.astype(dtype), codebook.astype(dtype)
    indices = _nearest(lax.stop_gradient(vectors), lax.stop_gradient(codes))
    chosen = jnp.take(codes, indices, axis=0)
    codebook_loss = jnp.mean((lax.stop_gradient(vectors) - chosen) ** 2)
    commitment_loss = jnp.mean((vectors - lax.stop_gradient(chosen)) ** 2)
    return VectorQuantized(
        straight_through(_second)(z, lax.stop_gradient(chosen).astype(z.dtype)),
        indices,
        codebook_loss + commitment * commitment_loss,
        codebook_loss,
        commitment_loss,
    )


def _nearest(vectors: jax.Array, codes: jax.Array) -> jax.Array:
    # |z|^2 is the same for all codes. Distances from the codes' mean cancel less.
    center = jnp.mean(codes, axis=0)
    shift = lambda x: x - jnp.reshape(center, (1,) * (x.ndim - 1) + center.shape)  # noqa: E731
    vectors, codes = shift(vectors), shift(codes)
    products = jnp.matmul(vectors, codes.T, precision=lax.Precision.HIGHEST)
    sizes = jnp.sum(codes**2, axis=-1) / 2
    scores = jnp.reshape(sizes, (1,) * (vectors.ndim - 1) + sizes.shape) - products
    return jnp.argmin(scores, axis=-1).astype(jnp.int32)


def _second(z: jax.Array, chosen: jax.Array) -> jax.Array:
    del z
    return chosen
