"""Conditional random fields over sequences: likelihood, marginals and the best path."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit.losses import _chain
from gradkit.losses._reals import as_reals, check_fits, check_integers


def crf_log_likelihood(
    unary: ArrayLike,
    transitions: ArrayLike,
    tags: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> jax.Array:
    r"""Log-probability of tags under a linear-chain CRF; the loss is its negative.

    $$ L = s(z) - \log \sum_{z'} e^{s(z')}, \qquad
       s(z) = \sum_t U_{t, z_t} + \sum_t A_{z_t, z_{t+1}} + b_{z_1} + e_{z_n} $$

    $$ \bar U_{tk} = ([z_t = k] - p(z_t = k))\,\bar L, \qquad
       \bar A_{ij} = \sum_t ([z_t = i, z_{t+1} = j] - p(z_t = i, z_{t+1} = j))\,\bar L $$

    The marginals come from one pass forward and one back over rescaled probabilities: neither
    exponentials nor logarithms are taken on the way, and a step is a matrix product from 64 states
    on. Where the potentials of a sequence are so far apart that probabilities would round to 0 and
    matter, the logarithms are summed instead, which is slower. (Under `jax.vmap` both are computed:
    give batches as leading axes.)

    Args:
        unary: `U`, real `[..., n, k]`.
        transitions: `A`, real `[k, k]`, from row to column; `-inf` forbids one.
        tags: `z`, integers `[..., n]`; what they are after the end does not matter.
        lengths: How many steps of each sequence count, integers `[...]` from 1 to n. Default: all.
        start: `b`, real `[k]`. Default: zeros.
        end: `e`, real `[k]`. Default: zeros.

    Returns:
        `L`, `[...]`: a sum over steps, not divided by the length. Half precision is computed in
        float32.

    Raises:
        TypeError: If an argument is complex, or `tags` are not integers.
        ValueError: If shapes do not fit.

    Keeps:
        Three numbers a state and step, and nothing a pair of states and step.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> unary, transitions = jnp.zeros((3, 2)), jnp.zeros((2, 2))
        >>> log_p = jax.jit(crf_log_likelihood)(unary, transitions, jnp.array([0, 1, 1]))
        >>> print(f"{jnp.exp(log_p):.3f}")
        0.125

    Source:
        Lafferty, McCallum & Pereira, *Conditional Random Fields* (2001); the rescaling: Rabiner, *A
        Tutorial on Hidden Markov Models* (1989), section V.A.
    """
    name = "losses.crf_log_likelihood"
    unary, transitions, lengths, dtype, batch = chain_arguments(
        name, unary, transitions, lengths, start, end
    )
    tags = check_integers(name, "tags", tags)
    count = unary.shape[0]
    check_fits(name, "tags", tags.shape, (*batch, count), "one for each step")
    score = _score(unary, transitions, tags.reshape(-1, count).T, lengths)
    total = _chain.log_partition(unary, transitions, lengths)
    return (score - total).reshape(batch).astype(dtype)


def crf_marginals(
    unary: ArrayLike,
    transitions: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> jax.Array:
    r"""Probability of each tag at each step under a linear-chain CRF.

    $$ p_{tk} = p(z_t = k) = \partial \log Z / \partial U_{tk} $$

    Args:
        unary: Real `[..., n, k]`.
        transitions: Real `[k, k]`.
        lengths: As for `crf_log_likelihood`.
        start: Real `[k]`.
        end: Real `[k]`.

    Returns:
        `p`, `[..., n, k]`, 0 after the end.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> unary, transitions = jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.eye(2)
        >>> print(jax.jit(crf_marginals)(unary, transitions).round(2))
        [[0.88 0.12]
         [0.68 0.32]]
    """
    name = "losses.crf_marginals"
    unary, transitions, lengths, dtype, batch = chain_arguments(
        name, unary, transitions, lengths, start, end
    )
    p = _chain.marginals(unary, transitions, lengths)
    return jnp.moveaxis(p, 0, 1).reshape(*batch, *p.shape[::2]).astype(dtype)


def viterbi(
    unary: ArrayLike,
    transitions: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""The most probable tags of a linear-chain CRF or HMM, and their score.

    $$ z = \arg\max_{z'} s(z'), \qquad s = s(z), \qquad \bar U_{tk} = [z_t = k]\,\bar s $$

    Args:
        unary: Real `[..., n, k]`; of an HMM the log-probabilities of what was observed.
        transitions: Real `[k, k]`.
        lengths: As for `crf_log_likelihood`.
        start: Real `[k]`.
        end: Real `[k]`.

    Returns:
        `z`, int32 `[..., n]`, which repeats its last tag after the end, and `s`, `[...]`.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    At the kink:
        Among equal paths one is chosen, and the derivatives of `s` are that path's.

    Example:
        >>> import jax.numpy as jnp
        >>> unary = jnp.array([[2.0, 0.0], [0.0, 0.5], [0.0, 3.0]])
        >>> tags, score = viterbi(unary, jnp.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> print(tags, score)
        [0 1 1] 6.5

    Source:
        Viterbi (1967), *IEEE Transactions on Information Theory* 13(2).
    """
    name = "losses.viterbi"
    unary, transitions, lengths, dtype, batch = chain_arguments(
        name, unary, transitions, lengths, start, end
    )
    stopped = jax.lax.stop_gradient((unary, transitions))
    tags = _chain.viterbi(*stopped, lengths)
    score = _score(unary, transitions, tags, lengths)
    return tags.T.reshape(*batch, -1).astype(jnp.int32), score.reshape(batch).astype(dtype)


def chain_arguments(name, unary, transitions, lengths, start, end):
    """Steps first, one batch axis, and the ends' potentials added to the first and last step."""
    k = jnp.shape(unary)[-1] if jnp.ndim(unary) else 0
    extras = [jnp.zeros(k, jnp.result_type(unary)) if x is None else x for x in (start, end)]
    (unary, transitions, *extras), dtype = as_reals(name, unary, transitions, *extras)
    if unary.ndim < 2 or 0 in unary.shape[-2:]:
        check_fits(name, "unary", unary.shape, ("...", "n", "k"), "with at least one step")
    check_fits(name, "transitions", transitions.shape, (k, k), "from tag to tag")
    *batch, count, _ = unary.shape
    size = math.prod(batch)
    if lengths is None:
        lengths = jnp.full(size, count)
    else:
        lengths = check_integers(name, "lengths", lengths)
        check_fits(name, "lengths", lengths.shape, tuple(batch), "one for each sequence")
        lengths = lengths.reshape(-1)
    steps = jnp.moveaxis(unary.reshape(size, count, k), 1, 0)
    for argument, extra, at in zip(("start", "end"), extras, (0, lengths - 1), strict=True):
        check_fits(name, argument, extra.shape, (k,), "one for each tag")
        if (start, end)[argument == "end"] is not None:
            here = jnp.arange(count)[:, None] == jnp.broadcast_to(at, lengths.shape)[None]
            steps = jnp.where(here[..., None], steps + extra[None, None], steps)
    return steps, transitions, lengths, dtype, tuple(batch)


def _score(unary, transitions, tags, lengths) -> jax.Array:
    inside = jnp.arange(unary.shape[0])[:, None] < lengths[None]
    tags = jnp.where(inside, tags, 0)
    chosen = jnp.take_along_axis(unary, tags[..., None], 2)[..., 0]
    moved = transitions[tags[:-1], tags[1:]]
    return jnp.sum(jnp.where(inside, chosen, 0), 0) + jnp.sum(jnp.where(inside[1:], moved, 0), 0)
