"""Losses that prefer some responses of a language model, from log-probabilities of tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._errors import LossArgumentError, describe


def dpo(
    chosen: ArrayLike,
    rejected: ArrayLike,
    reference_chosen: ArrayLike,
    reference_rejected: ArrayLike,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> jax.Array:
    r"""Direct preference optimisation, from log-probabilities of whole responses.

    $$ L = -(1 - \epsilon) \log \sigma(x) - \epsilon \log \sigma(-x), \qquad
       x = \beta \bigl((\log p_c - \log q_c) - (\log p_r - \log q_r)\bigr) $$

    `linear_log_probs` gives log-probabilities of tokens without holding logits; a response's is
    their sum.

    Args:
        chosen: `log p_c`, `[...]`: what the policy gives to the response that is preferred.
        rejected: `log p_r`, `[...]`: to the other one.
        reference_chosen: `log q_c`, `[...]`: what the reference model gives. It is held still.
        reference_rejected: `log q_r`, `[...]`; likewise.
        beta: How close the policy stays to the reference: the larger, the closer.
        label_smoothing: `epsilon`, the share of preferences that are expected to be wrong.

    Returns:
        `L`, `[...]`, a value for each pair, not reduced; `log 2` where the policy is the reference.

    Example:
        >>> import jax.numpy as jnp
        >>> from gradkit.losses import linear_log_probs
        >>> weight = jnp.eye(3, 4)
        >>> chosen = linear_log_probs(jnp.ones((1, 2, 3)), weight, jnp.array([[0, 1]])).sum(-1)
        >>> rejected = linear_log_probs(jnp.ones((1, 2, 3)), weight, jnp.array([[3, 3]])).sum(-1)
        >>> with jnp.printoptions(precision=3):
        ...     print(dpo(chosen, rejected, jnp.zeros(1), jnp.zeros(1)))
        [0.598]

    Source:
        Rafailov et al., *Direct Preference Optimization* (2023), arXiv:2305.18290, equation 7;
        label smoothing, Mitchell, *A note on DPO with noisy preferences* (2023).
    """
    references = lax.stop_gradient((reference_chosen, reference_rejected))
    margin = (chosen - jnp.asarray(references[0])) - (rejected - jnp.asarray(references[1]))
    x = beta * margin
    return (1 - label_smoothing) * jax.nn.softplus(-x) + label_smoothing * jax.nn.softplus(x)


def grpo(
    log_probs: ArrayLike,
    advantages: ArrayLike,
    *,
    old_log_probs: ArrayLike | None = None,
    reference_log_probs: ArrayLike | None = None,
    clip: float | tuple[float, float] = 0.2,
    beta: float = 0.04,
) -> jax.Array:
    r"""Group relative policy optimisation, token by token.

    $$ L = -\min\bigl(r A,\; \operatorname{clip}(r, 1 - \epsilon_l, 1 + \epsilon_h) A\bigr)
       + \beta \bigl(e^{d} - d - 1\bigr), \qquad r = p / p_{old}, \quad
       d = \log q - \log p $$

    The penalty estimates `KL(p || q)` from the sampled token, without bias and never below 0.

    Args:
        log_probs: `log p`, `[..., T]`: what the policy gives to the sampled tokens, such as from
            `linear_log_probs`.
        advantages: `A`, `[...]` for whole responses, or `[..., T]`. GRPO's are the rewards of a
            group of responses to one prompt, less their mean, over their standard deviation. They
            are held still.
        old_log_probs: `log p_old`, what the policy gave that the tokens were sampled from; held
            still. Default: the same policy, so that `r = 1` and its slope that of `log p`.
        reference_log_probs: `log q`, what the reference model gives; held still. Default: no
            penalty.
        clip: `epsilon`; or `(epsilon_l, epsilon_h)`, of which DAPO takes (0.2, 0.28).
        beta: The weight of the penalty.

    Returns:
        `L`, `[..., T]`, not reduced. GRPO takes the mean over each response's tokens, then over
        responses; DAPO the mean over all tokens. Leave padding out of both.

    Raises:
        LossArgumentError: If the advantages have another shape.

    At the kink:
        At both ends of the clipping range the derivative is that from inside.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> log_probs = jnp.array([[-1.0, -2.0], [-1.5, -0.5]])
        >>> with jnp.printoptions(precision=3):
        ...     print(grpo(log_probs, jnp.array([1.0, -1.0]), old_log_probs=log_probs - 0.5))
        [[-1.2   -1.2  ]
         [ 1.649  1.649]]

    Source:
        Shao et al., *DeepSeekMath* (2024), arXiv:2402.03300, equations 3 and 4; Yu et al., *DAPO*
        (2025), arXiv:2503.14476, for the two-sided range.
    """
    log_probs, advantages = jnp.asarray(log_probs), lax.stop_gradient(jnp.asarray(advantages))
    if advantages.shape == log_probs.shape[:-1]:
        advantages = advantages[..., None]
    elif advantages.shape != log_probs.shape:
        raise LossArgumentError(
            describe(
                "gk.losses.grpo got advantages that do not fit.",
                expected=f"shape {log_probs.shape[:-1]} or {log_probs.shape}",
                got=f"shape {advantages.shape}",
            )
        )
    low, high = clip if isinstance(clip, tuple) else (clip, clip)
    old = log_probs if old_log_probs is None else jnp.asarray(old_log_probs)
    ratio = jnp.exp(log_probs - lax.stop_gradient(old))
    bound = jnp.where(advantages >= 0, 1 + high, 1 - low).astype(ratio.dtype)
    beyond = jnp.where(advantages >= 0, ratio > bound, ratio < bound)
    loss = -jnp.where(beyond, bound, ratio) * advantages
    if reference_log_probs is None:
        return loss
    gap = lax.stop_gradient(jnp.asarray(reference_log_probs)) - log_probs
    return loss + beta * (jnp.expm1(gap) - gap)
