"""Norms of per-example gradients, and sums of clipped ones, without the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._errors import RuleError, describe
from gradkit.ops._example_losses import ExampleLosses

Tree = Any


class ClippedSum(NamedTuple):
    """A sum of clipped per-example gradients.

    Attributes:
        gradient: The sum, of the structure of the parameters.
        norms: The norms before clipping, shape `(examples,)`.
        losses: The losses, shape `(examples,)`.
    """

    gradient: Tree
    norms: jax.Array
    losses: jax.Array


def per_example_norms(
    loss_fn: Callable[[Tree, Tree], jax.Array], params: Tree, batch: Tree
) -> jax.Array:
    r"""The norm of each example's gradient, without computing the gradients.

    $$ n_b = \|\nabla_\theta\, \ell(\theta, x_b)\|_2 $$

    as `jax.vmap(jax.grad(loss_fn), (None, 0))` gives it, for the price of a backward pass that
    stops at the activations. The loss is any function; it is traced, and the uses of its
    parameters are found:

    - products with a matrix (`dot`, `einsum`; in flax, equinox or plain), convolutions of any
      stride, dilation and grouping, and rows of a table (`table[i]`): from the operand and the
      cotangent of the output, by whichever formula is cheaper for the sizes at hand;
    - inside `jit`, `jax.checkpoint`, and a `scan` over layers;
    - everything else, such as scales, biases, shared weights and weights of recurrent layers:
      from the gradient of that parameter, computed for each example. Exact in any case.

    Put it inside `jax.jit`. Inside `jax.shard_map` the examples are those of the device.

    Args:
        loss_fn: `(params, example) -> loss`, a real number.
        params: A pytree. Leaves that are no floating-point arrays have no gradient.
        batch: A pytree of arrays with the examples along axis 0. Random keys may be among them.

    Returns:
        `n`, shape `(examples,)`, float32 or wider.

    Raises:
        RuleError: If the loss is not one real number, or the batch has no axis of examples.

    At the kink:
        Where a gradient is 0, its norm has the derivative 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, example):
        ...     x, y = example
        ...     return 0.5 * jnp.sum((x @ w - y) ** 2)
        >>> x, y = jnp.array([[3.0, 4.0], [1.0, 0.0]]), jnp.array([[1.0], [2.0]])
        >>> print(per_example_norms(loss, jnp.zeros((2, 1)), (x, y)))  # |x| * |y| at zero
        [5. 2.]

    Source:
        Goodfellow (2015), arXiv:1510.01799; Bu et al., *Scalable and efficient training of large
        convolutional neural networks with differential privacy* (2022), arXiv:2205.10683.
    """
    return ExampleLosses(loss_fn, params, batch, "per_example_norms").norms()[1]


def clipped_sum(
    loss_fn: Callable[[Tree, Tree], jax.Array],
    params: Tree,
    batch: Tree,
    max_norm: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> ClippedSum:
    r"""The sum of per-example gradients, each clipped to a norm, without computing them.

    $$ \sum_b w_b \min(1, C / n_b)\, \nabla_\theta\, \ell(\theta, x_b), \qquad
       n_b = \|\nabla_\theta\, \ell(\theta, x_b)\|_2 $$

    which differentially private training (DP-SGD) adds noise to. The norms are those of
    `per_example_norms`; a second backward pass, of losses weighted by them, gives the sum. Put it
    inside `jax.jit`, which lets both share the forward pass. Small parameters used at many places
    of an example (a narrow network over a long sequence) have gradients no larger than what flows
    by; these are computed and clipped as they are, in one pass, and so are all where most have no
    short way. Inside `jax.shard_map` all of it is of the device's examples: `jax.lax.psum` the sum.

    Args:
        loss_fn: As in `per_example_norms`.
        params: Likewise.
        batch: Likewise.
        max_norm: `C`, positive; it may be traced, and infinite.
        weights: `w`, shape `(examples,)`: 0 for examples that only fill the batch up. Default: 1.

    Returns:
        The sum, the norms before clipping, and the losses. A gradient that is not finite makes the
        sum NaN.

    Raises:
        RuleError: As `per_example_norms`; or if the weights do not fit.
        ValueError: If `max_norm` is a number that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, x):
        ...     return w @ x
        >>> x = jnp.array([[3.0, 4.0], [0.5, 0.0]])
        >>> print(clipped_sum(loss, jnp.zeros(2), x, 1.0).gradient)
        [1.1 0.8]

    Source:
        Abadi et al., *Deep learning with differential privacy* (2016), arXiv:1607.00133; Lee &
        Kifer, *Scaling up differentially private deep learning with fast per-example gradient
        clipping* (2020), arXiv:2009.03106, section 4.
    """
    if isinstance(max_norm, (int, float)) and not max_norm > 0:
        raise ValueError(
            describe(
                "gk.ops.clipped_sum needs a positive 'max_norm'.",
                expected="max_norm > 0",
                got=f"max_norm = {max_norm}",
            )
        )
    problem = ExampleLosses(loss_fn, params, batch, "clipped_sum")
    losses, norms, gradients = problem.norms_and_small_gradients()
    weights = jnp.ones_like(norms) if weights is None else jnp.asarray(weights, norms.dtype)
    if weights.shape != norms.shape:
        raise RuleError(
            describe(
                "weights= of gk.ops.clipped_sum does not fit the batch.",
                expected=f"shape {norms.shape}",
                got=f"shape {weights.shape}",
            )
        )
    too_long = norms > max_norm
    factors = jnp.where(too_long, max_norm / jnp.where(too_long, norms, 1), 1)
    # A factor of 0 would hide that a gradient is infinite, and cannot help where it is NaN.
    factors = jnp.where(jnp.isfinite(norms), factors, jnp.nan)
    return ClippedSum(problem.weighted_gradient(weights * factors, gradients), norms, losses)
