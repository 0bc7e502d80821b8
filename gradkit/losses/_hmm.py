"""Hidden Markov models: the likelihood of what was observed."""

from __future__ import annotations

import jax
from jax.typing import ArrayLike

from gradkit.losses import _chain
from gradkit.losses._crf import chain_arguments


def hmm_log_likelihood(
    log_initial: ArrayLike,
    log_transitions: ArrayLike,
    log_observations: ArrayLike,
    lengths: ArrayLike | None = None,
) -> jax.Array:
    r"""Log-likelihood of a hidden Markov model, summed over all paths of its states.

    $$ L = \log \sum_z e^{\pi_{z_1} + \sum_t A_{z_t, z_{t+1}} + \sum_t O_{t, z_t}}, \qquad
       \bar O_{tk} = p(z_t = k \mid \text{observed})\,\bar L $$

    The same two passes as of `crf_log_likelihood`, and the same choice between probabilities and
    logarithms. The gradient in `log_transitions` are expected counts, as the Baum-Welch algorithm
    takes them; `crf_marginals` and `viterbi` take the same arguments by other names.

    Args:
        log_initial: `pi`, real `[k]`.
        log_transitions: `A`, real `[k, k]`, from row to column; `-inf` forbids one. Neither need be
            normalised.
        log_observations: `O`, real `[..., n, k]`: log-density of each observation in each state.
        lengths: How many steps of each sequence count, integers `[...]` from 1 to n. Default: all.

    Returns:
        `L`, `[...]`. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    Keeps:
        Three numbers a state and step.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> initial, stay = jnp.array([0.5, 0.5]), jnp.array([[0.9, 0.1], [0.1, 0.9]])
        >>> seen = jnp.array([[0.8, 0.2], [0.8, 0.2]])
        >>> log_p = jax.jit(hmm_log_likelihood)(*map(jnp.log, (initial, stay, seen)))
        >>> print(f"{jnp.exp(log_p):.4f}")
        0.3220

    Source:
        Rabiner, *A Tutorial on Hidden Markov Models* (1989), section III.A; the gradient: Fisher's
        identity.
    """
    name = "losses.hmm_log_likelihood"
    steps, transitions, lengths, dtype, batch = chain_arguments(
        name, log_observations, log_transitions, lengths, log_initial, None
    )
    return _chain.log_partition(steps, transitions, lengths).reshape(batch).astype(dtype)
