"""Losses that tell matching pairs of embeddings from all others, without their similarities."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.losses._head import Head, by_blocks, fold, pull
from gradkit.losses._head_arguments import along, flat_head, flat_labels, misfit, real
from gradkit.losses._linear_cross_entropy import (
    add_exponentials,
    linear_cross_entropy,
    no_exponentials,
)


def info_nce(
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    temperature: ArrayLike = 0.07,
    positives: ArrayLike | None = None,
    symmetric: bool = False,
) -> jax.Array:
    r"""Contrastive cross-entropy of queries over keys, without holding their similarities.

    $$ L_i = \log \sum_j e^{s_{ij}} - s_{i y_i}, \qquad s_{ij} = \langle q_i, k_j \rangle / \tau $$

    and, if symmetric (CLIP), half of it together with half of the same from key `i` over all
    queries, in which case similarities are computed once for both. Memory is that of a block of
    keys. Few similarities (2 million on a CPU, 67 million elsewhere) are held whole.

    Args:
        queries: `q`, real, `[N, D]`; of length one (`gk.safe.normalize`), if cosines are meant.
        keys: `k`, `[M, D]`. Keys beyond the positives serve as negatives for all queries.
        temperature: `tau`, a number; it may be traced and is differentiated.
        positives: `y`, integers `[N]`, the key of each query; such as
            `N * jax.lax.axis_index(axis) + jnp.arange(N)` for keys that were gathered over a mesh
            axis with `jax.lax.all_gather(keys, axis, tiled=True)`. Default: key `i` for query `i`.
        symmetric: Whether keys choose among queries, too. Needs as many, paired in order.

    Returns:
        `L`, `[N]`, not reduced, in float32 or wider.

    Raises:
        LossArgumentError: If shapes or types do not fit.

    Keeps:
        Its arguments, and the logarithm of the sum for each query, and key.

    Example:
        >>> import jax.numpy as jnp
        >>> q, k = jnp.eye(3), jnp.eye(3)[:, ::-1]
        >>> with jnp.printoptions(precision=3):
        ...     print(info_nce(q, k, temperature=1.0))
        [1.551 0.551 1.551]

    Source:
        van den Oord et al., *Representation Learning with Contrastive Predictive Coding* (2018),
        arXiv:1807.03748, equation 4; symmetric, Radford et al., *CLIP* (2021), arXiv:2103.00020,
        figure 3.
    """
    head = _pairs("info_nce", queries, keys, temperature)
    rows = len(head.hidden)
    if symmetric and (positives is not None or head.size != rows):
        raise misfit(
            "info_nce", "no pairs, which symmetric=True needs.",
            expected=f"{rows} keys for {rows} queries, in the same order",
            got=f"{head.size} keys" + ("" if positives is None else ", and positives"),
        )  # fmt: skip
    if positives is None and head.size < rows:
        raise misfit(
            "info_nce", "fewer keys than queries.", expected=f"at least {rows} keys",
            got=f"{head.size} keys", fix="pass positives, the number of each query's key",
        )  # fmt: skip
    if symmetric:
        of_rows, of_columns = _both_ways((head,))
        return (of_rows + of_columns) / 2 - _diagonal(head)
    if positives is None:
        positives = jnp.arange(rows)
    return linear_cross_entropy(
        head.hidden, head.weight, positives, ignore_index=None, transposed=True
    )


def siglip(
    images: ArrayLike,
    texts: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    bias: ArrayLike = -10.0,
) -> jax.Array:
    r"""Sigmoid loss of all pairs of images and texts, without holding their similarities.

    $$ L_i = \sum_j \log\bigl(1 + e^{-t_{ij} s_{ij}}\bigr), \qquad
       s_{ij} = \langle x_i, y_j \rangle / \tau + b, \qquad
       t_{ij} = 2\,[i = j] - 1, $$
    $$ \bar s_{ij} = (\sigma(s_{ij}) - [i = j])\,\bar L_i $$

    Args:
        images: `x`, real, `[N, D]`, of length one.
        texts: `y`, `[N, D]`, of length one, in the order of the images.
        temperature: `tau`, a number; it may be traced and is differentiated. The paper learns
            `log(1 / tau)`, from `tau = 0.1` on.
        bias: `b`, a number; likewise. It starts where most pairs, which do not match, are right.

    Returns:
        `L`, `[N]`, in float32 or wider; the paper's loss is its mean.

    Raises:
        LossArgumentError: If shapes or types do not fit.

    Keeps:
        Its arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> with jnp.printoptions(precision=3):
        ...     print(siglip(jnp.eye(3), jnp.eye(3), bias=0.0))
        [1.386 1.386 1.386]

    Source:
        Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (2023), arXiv:2303.15343,
        section 3.2.
    """
    bias = jnp.asarray(bias)
    head = _pairs("siglip", images, texts, temperature, bias)
    if len(head.hidden) != head.size:
        raise misfit(
            "siglip", "no pairs.", expected="as many texts as images",
            got=f"{len(head.hidden)} images and {head.size} texts",
        )  # fmt: skip
    return _softplus_sums((head,)) - _diagonal(head) - bias.astype(head.dtype)


def supervised_contrastive(
    features: ArrayLike, labels: ArrayLike, *, temperature: ArrayLike = 0.1
) -> jax.Array:
    r"""Contrastive loss that draws together all examples of one class.

    $$ L_i = \log \sum_{a \ne i} e^{s_{ia}} - \frac{1}{|P_i|} \sum_{j \in P_i} s_{ij}, \qquad
       s_{ij} = \langle x_i, x_j \rangle / \tau, \qquad P_i = \{j \ne i : y_j = y_i\} $$

    with the `N x N` similarities computed in blocks, and again for the gradient.

    Args:
        features: `x`, real, `[N, D]`, of length one: two or more views of each example.
        labels: `y`, integers, `[N]`.
        temperature: `tau`, a number; it may be traced and is differentiated.

    Returns:
        `L`, `[N]`, not reduced, in float32 or wider; 0 for the only example of its class. The
        paper's loss multiplies by `tau / 0.07`, where its code is followed.

    Raises:
        LossArgumentError: If shapes or types do not fit.

    Keeps:
        Its arguments, and two numbers for each example.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> with jnp.printoptions(precision=3):
        ...     print(supervised_contrastive(x, jnp.array([0, 0, 1]), temperature=1.0))
        [0.437 0.798 0.   ]

    Source:
        Khosla et al., *Supervised Contrastive Learning* (2020), arXiv:2004.11362, equation 2.
    """
    name = "supervised_contrastive"
    head = _pairs(name, features, features, temperature)
    labels = along(flat_labels(name, labels, (len(head.hidden),)), head)
    normalizer, positive, count = _same_label((head,), labels)
    return jnp.where(count > 0, normalizer - positive / jnp.maximum(count, 1), 0)


def _pairs(
    name: str, rows: ArrayLike, columns: ArrayLike, temperature: ArrayLike, bias: Any = None
) -> Head:
    """The head whose logits are the similarities."""
    rows, columns = real(name, "queries", rows), real(name, "keys", columns)
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        raise misfit(
            name, "embeddings that do not fit.", expected="[N, D] and [M, D]",
            got=f"shapes {rows.shape} and {columns.shape}",
        )  # fmt: skip
    for what, x in (("temperature", temperature), ("bias", bias)):
        if x is not None and jnp.ndim(x):
            raise misfit(
                name, f"a {what} that is no number.", expected="a scalar",
                got=f"shape {jnp.shape(x)}",
            )  # fmt: skip
    scaled = rows.astype(jnp.promote_types(rows.dtype, jnp.float32)) / temperature
    if bias is not None:
        bias = jnp.broadcast_to(jnp.asarray(bias, scaled.dtype), columns.shape[:1])
    head, _ = flat_head(name, scaled, columns, bias, transposed=True)
    return head


def _diagonal(head: Head) -> jax.Array:
    return jnp.sum(head.hidden.astype(head.dtype) * head.weight.astype(head.dtype), 1)


@by_blocks
def _both_ways(heads: tuple[Head]) -> Any:
    """`log sum exp` of each row and of each column."""
    (head,) = heads

    def step(carry, logits, classes):
        (z,) = logits
        *sums, columns = carry
        column = jax.nn.logsumexp(z, axis=0)
        columns = lax.dynamic_update_slice_in_dim(columns, column, classes[0], 0)
        return *add_exponentials(tuple(sums), z), columns

    zeros = head.zeros(len(head.hidden))
    top, total, columns = fold(step, (*no_exponentials(zeros), head.zeros(head.size)), heads)
    rows = top + jnp.log(total)

    def grad(rows_bar, columns_bar):
        def logits_bar(logits, classes):
            (z,) = logits
            column, column_bar = (
                lax.dynamic_slice_in_dim(x, classes[0], len(classes))[None]
                for x in (columns, columns_bar)
            )
            of_rows = rows_bar[:, None] * jnp.exp(z - rows[:, None])
            return (of_rows + column_bar * jnp.exp(z - column),)

        return pull(logits_bar, heads)

    return (rows, columns), grad


@by_blocks
def _softplus_sums(heads: tuple[Head]) -> Any:
    """The sum of `log(1 + exp(z))` of each row."""
    (head,) = heads

    def step(total, logits, classes):
        del classes
        return total + jax.nn.softplus(logits[0]).sum(1)

    def grad(total_bar):
        def logits_bar(logits, classes):
            del classes
            return (total_bar[:, None] * jax.nn.sigmoid(logits[0]),)

        return pull(logits_bar, heads)

    return fold(step, head.zeros(len(head.hidden)), heads), grad


@by_blocks
def _same_label(heads: tuple[Head], labels: jax.Array) -> Any:
    """Of each row, without the diagonal: `log sum exp`, the sum and number of those it matches."""
    (head,) = heads
    numbers = jnp.arange(len(labels))

    def masks(classes):
        own = numbers[:, None] == classes[None]
        columns = lax.dynamic_slice_in_dim(labels, classes[0], len(classes))
        return own, (labels[:, None] == columns[None]) & ~own

    def step(carry, logits, classes):
        *sums, positive, count = carry
        (z,) = logits
        own, same = masks(classes)
        positive = positive + jnp.where(same, z, 0).sum(1)
        sums = add_exponentials(tuple(sums), jnp.where(own, -jnp.inf, z))
        return *sums, positive, count + same.sum(1)

    zeros = head.zeros(len(labels))
    start = (*no_exponentials(zeros), zeros, zeros)
    top, total, positive, count = fold(step, start, heads)
    normalizer = top + jnp.log(jnp.where(total > 0, total, 1))  # of one example, nothing is left

    def grad(normalizer_bar, positive_bar, _):
        def logits_bar(logits, classes):
            (z,) = logits
            own, same = masks(classes)
            soft = jnp.where(own, 0, jnp.exp(jnp.where(own, 0, z - normalizer[:, None])))
            z_bar = normalizer_bar[:, None] * soft
            return (z_bar + jnp.where(same, positive_bar[:, None], 0),)

        return pull(logits_bar, heads), None

    return (normalizer, positive, count), grad
