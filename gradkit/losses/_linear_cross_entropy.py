"""Cross-entropy of a linear head, and log-probabilities, without holding the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.losses._head import Head, by_blocks, fold, pull
from gradkit.losses._head_arguments import along, flat_head, flat_labels, per_token


def linear_cross_entropy(
    hidden: ArrayLike,
    weight: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int | None = -100,
    soft_cap: float | None = None,
    weights: ArrayLike | None = None,
    transposed: bool = False,
    axis_name: Any = None,
) -> jax.Array:
    r"""Softmax cross-entropy of `hidden @ weight`, token by token, without holding the logits.

    $$ L_i = w_i \Bigl(\ell_i - (1 - \epsilon) z_{i y_i} - \frac{\epsilon}{V} \sum_v z_{iv}
       + \lambda \ell_i^2\Bigr), \qquad
       z = \operatorname{cap}(h W + b), \qquad \ell_i = \log \sum_v e^{z_{iv}} $$

    The `[N, V]` logits are computed in blocks of classes, and again for the gradient, with
    `p = exp(z - l)` of the block:

    $$ \bar z_{iv} = \bar L_i w_i \bigl((1 + 2 \lambda \ell_i)\, p_{iv} - (1 - \epsilon) [v = y_i]
       - \epsilon / V\bigr), \qquad \bar h = \bar z W^\top, \qquad \bar W = h^\top \bar z $$

    Few logits (2 million on a CPU, 67 million elsewhere) are held whole, and differentiated by JAX.

    Args:
        hidden: `h`, real, `[..., D]`.
        weight: `W`, `[D, V]`.
        labels: `y`, integers `[...]`. One that is out of range makes its loss NaN.
        bias: `b`, `[V]`.
        z_loss: `lambda`, which keeps the logits' scale near 0; 1e-4 in PaLM.
        label_smoothing: `epsilon`, the share of the target that is spread over all classes.
        ignore_index: The label of tokens whose loss is 0, whatever their hidden state; None for
            no such label.
        soft_cap: `c` of `cap(a) = c tanh(a / c)`. Default: no cap.
        weights: `w`, `[...]`, a weight for each token. It is differentiated too.
        transposed: Whether `weight` is `[V, D]`, such as an embedding that is tied to the head.
            (`embedding.T` is the same, for the price of a copy of its gradient.)
        axis_name: The mesh axis, inside `jax.shard_map`, that `W` and `b` are split over along
            their classes: the device with index `k` has classes `k V / n` up to `(k + 1) V / n`.
            Labels count through all of them.

    Returns:
        `L`, `[...]`, not reduced, in float32 or wider. For the mean over what counts, divide the
        sum by the sum of the weights of tokens that are not ignored.

    Raises:
        LossArgumentError: If shapes or types do not fit.

    Keeps:
        Its arguments and `l`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> hidden, weight = jnp.eye(3), jnp.eye(3, 4)
        >>> with jnp.printoptions(precision=3):
        ...     print(linear_cross_entropy(hidden, weight, jnp.array([0, 3, -100])))
        [0.744 1.744 0.   ]

    Source:
        Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models* (2025),
        arXiv:2411.09009; the penalty, Chowdhery et al., *PaLM* (2022), arXiv:2204.02311, section 5;
        the cap, Gemma Team, *Gemma 2* (2024), arXiv:2408.00118, equation 1.
    """
    name = "linear_cross_entropy"
    head, shape = flat_head(name, hidden, weight, bias, soft_cap, transposed=transposed)
    labels = flat_labels(name, labels, shape)
    kept = labels != ignore_index if ignore_index is not None else jnp.full_like(labels, True, bool)
    normalizer, target = _statistics(head, labels, kept, axis_name, label_smoothing)
    loss = jnp.where(kept, normalizer - target + z_loss * normalizer**2, 0)
    if weights is not None:
        loss = loss * per_token(name, weights, shape, loss.dtype)
    return loss.reshape(shape)


def linear_log_probs(
    hidden: ArrayLike,
    weight: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    ignore_index: int | None = -100,
    soft_cap: float | None = None,
    transposed: bool = False,
    axis_name: Any = None,
) -> jax.Array:
    r"""The log-probability that a linear head gives each label, without holding the logits.

    $$ \log p_i = z_{i y_i} - \log \sum_v e^{z_{iv}}, \qquad z = \operatorname{cap}(h W + b) $$

    The negative of `linear_cross_entropy`; what `dpo`, `grpo` and their kin are made of.

    Args:
        hidden: `h`, real, `[..., D]`; divided by a temperature, if there is one.
        weight: `W`, `[D, V]`.
        labels: `y`, integers `[...]`.
        bias: `b`, `[V]`.
        ignore_index: The label of tokens whose value is 0: prompts, padding. A sum over tokens is
            then that of the response.
        soft_cap: `c` of `cap(a) = c tanh(a / c)`. Default: no cap.
        transposed: Whether `weight` is `[V, D]`.
        axis_name: As in `linear_cross_entropy`.

    Returns:
        `log p`, `[...]`, in float32 or wider.

    Raises:
        LossArgumentError: If shapes or types do not fit.

    Keeps:
        Its arguments and the logarithm of the sum.

    Example:
        >>> import jax.numpy as jnp
        >>> tokens = linear_log_probs(jnp.eye(3), jnp.eye(3, 4), jnp.array([0, 1, -100]))
        >>> print(f"{tokens.sum():.4f}")  # of a response of two tokens
        -1.4873
    """
    return 0 - linear_cross_entropy(
        hidden, weight, labels, bias=bias, ignore_index=ignore_index, soft_cap=soft_cap,
        transposed=transposed, axis_name=axis_name,
    )  # fmt: skip


def _statistics(
    head: Head, labels: jax.Array, kept: jax.Array, axis_name: Any, smoothing: float
) -> tuple[jax.Array, jax.Array]:
    """The logarithm of the sum of exponentials, and the target's logit, of each token."""
    # The hidden state of a token that is ignored may be anything, NaN included.
    head = replace(head, hidden=jnp.where(kept[:, None], head.hidden, 0))
    local = along(labels, head)
    if axis_name is None:
        normalizer, target = _label_statistics((head,), local, smoothing=smoothing, of=head.size)
        size = head.size
    else:
        size = head.size * lax.axis_size(axis_name)
        local = local - head.size * lax.axis_index(axis_name)
        normalizer, target = _label_statistics((head,), local, smoothing=smoothing, of=size)
        top = lax.pmax(lax.stop_gradient(normalizer), axis_name)
        normalizer = top + jnp.log(lax.psum(jnp.exp(normalizer - top), axis_name))
        target = lax.psum(target, axis_name)
    return normalizer, jnp.where((labels >= 0) & (labels < size), target, jnp.nan)


@by_blocks
def _label_statistics(heads: tuple[Head], labels: jax.Array, *, smoothing: float, of: int) -> Any:
    """`log sum exp(z)` and `(1 - smoothing) z[label] + smoothing * sum(z) / of`, for each row."""
    (head,) = heads
    share = smoothing / of

    def step(carry, logits, classes):
        top, total, target = carry
        (z,) = logits
        local = labels - classes[0]
        inside = (local >= 0) & (local < len(classes))
        picked = jnp.take_along_axis(z, jnp.clip(local, 0, len(classes) - 1)[:, None], 1)[:, 0]
        target = target + jnp.where(inside, (1 - smoothing) * picked, 0)
        if smoothing:
            target = target + share * z.sum(1)
        return *add_exponentials((top, total), z), target

    zeros = head.zeros(len(labels))
    top, total, target = fold(step, (*no_exponentials(zeros), zeros), heads)
    normalizer = top + jnp.log(total)

    def grad(normalizer_bar, target_bar):
        def logits_bar(logits, classes):
            (z,) = logits
            hit = labels[:, None] == classes[None]
            off = -share * target_bar[:, None] if smoothing else 0
            soft = normalizer_bar[:, None] * jnp.exp(z - normalizer[:, None]) - off
            return (soft + jnp.where(hit, (1 - smoothing) * target_bar[:, None], 0),)

        return pull(logits_bar, heads), None

    return (normalizer, target), grad


def no_exponentials(zeros: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of no exponentials, as `add_exponentials` has it."""
    # A finite start, so that classes with a bias of -inf may fill the first block.
    return zeros + jnp.finfo(zeros.dtype).min, zeros


def add_exponentials(
    top_and_total: tuple[jax.Array, jax.Array], z: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Add `exp(z)` along the last axis to sums that are held as `exp(top) * total`."""
    top, total = top_and_total
    # Derivatives with respect to `top` cancel.
    new = lax.stop_gradient(jnp.maximum(top, z.max(1)))
    return new, total * jnp.exp(top - new) + jnp.exp(z - new[:, None]).sum(1)
