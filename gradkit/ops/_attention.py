"""Attention: its arguments, and which way it is computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit.ops._attention_blocks import backward, forward
from gradkit.ops._attention_inputs import Inputs, as_inputs, as_softcap, as_window
from gradkit.ops._attention_jax import Way, best_implementation, through_jax
from gradkit.ops._attention_plain import plain_attention
from gradkit.ops._attention_scores import Scores
from gradkit.ops._fused import fused


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    softcap: float | None = None,
    scale: ArrayLike | None = None,
    query_seq_lengths: ArrayLike | None = None,
    key_value_seq_lengths: ArrayLike | None = None,
    implementation: Way | None = None,
) -> jax.Array:
    r"""Dot-product attention whose value and gradient never hold all scores at once.

    $$ y_t = \sum_s w_{ts} v_s, \qquad w_t = \operatorname{softmax}_s(a_{ts} + b_{ts}), \qquad
       a_{ts} = c \tanh(\alpha \langle q_t, k_s \rangle / c) $$

    In the layout of `jax.nn.dot_product_attention`: `T` queries and `S` keys, `N` heads, of which
    `N / K` share a key head, `H` features. On a CPU it goes over blocks of queries and keys, the
    backward pass, too, which computes the scores again from what it keeps:

    $$ \bar a_{ts} = w_{ts} (\langle \bar y_t, v_s \rangle - \langle \bar y_t, y_t \rangle), \qquad
       w_{ts} = e^{a_{ts} + b_{ts} - l_t} $$

    Blocks in which no query sees a key, by `causal`, `window` and lengths, cost nothing.

    Args:
        q: `[B, T, N, H]` or `[T, N, H]`, floating point.
        k: `[B, S, K, H]` or `[S, K, H]`, with `N` a multiple of `K`; dtype of `q`.
        v: As `k`.
        bias: `b`, added to the scores: `[B, N, T, S]`, or `[N, T, S]`; any of them may be 1, and
            its cotangent is then summed over that axis.
        mask: Boolean, of such a shape: whether a query sees a key.
        causal: Whether query `t` sees keys up to `s = t` only.
        window: How many keys before and behind its own position a query sees: `(left, right)`, or
            one number for both.
        softcap: `c`; `a` is `alpha <q, k>` if None.
        scale: `alpha`, a number, which may be traced and differentiated. Default: `1 / sqrt(H)`.
        query_seq_lengths: `int[B]`: queries from there on give 0.
        key_value_seq_lengths: `int[B]`: keys from there on are not seen.
        implementation: `"blocks"` for these loops, `"plain"` for whole matrices, `"xla"` or
            `"cudnn"` for those of `jax.nn`. The default goes by the default backend. On a CPU:
            blocks, but whole matrices up to 9,216 scores a head. On a GPU: cuDNN for half
            precision and `T = S` with nothing but `causal` and `window` (features up to 128, a
            multiple of 8); else "xla", as on a TPU, or "plain" with a cap. That was chosen by
            what is known of them: nothing was measured there.

    Returns:
        `y`, shape and dtype of `q`. Half precision is computed in float32. A query that sees no
        key gives 0, with gradients of 0, where `jax.nn.dot_product_attention` gives the mean of
        all values; so does, but for XLA and cuDNN, one whose biases are all `-inf`.

    Raises:
        TypeError: If an array has another dtype than it should.
        ValueError: If shapes do not fit each other; if `window` or `softcap` is not positive; if
            `implementation` cannot do what is asked.

    Keeps:
        The arguments, `y`, and `l[B, T, N]`, the logarithm of each query's sum of exponentials.
        Forward mode and higher orders differentiate whole matrices, and take their memory.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.linspace(-1, 1, 2048 * 4 * 8).reshape(1, 2048, 4, 8)
        >>> def loss(q, k, v):
        ...     return attention(q, k, v, causal=True, window=(127, 0)).sum()
        >>> [x_bar.shape for x_bar in jax.grad(loss, argnums=(0, 1, 2))(x, x, x)]
        [(1, 2048, 4, 8), (1, 2048, 4, 8), (1, 2048, 4, 8)]

    Source:
        Rabe & Staats, *Self-attention does not need O(n^2) memory* (2021), arXiv:2112.05682; Dao,
        *FlashAttention-2* (2023), arXiv:2307.08691, section 3.1. The cap: Gemma Team (2024),
        arXiv:2408.00118, section 2.
    """
    x = as_inputs(q, k, v, scale, bias, mask, query_seq_lengths, key_value_seq_lengths)
    scores = Scores(bool(causal), as_window(window), as_softcap(softcap))
    way = implementation or best_implementation(scores, x, scale)
    if way == "blocks":
        y = _in_blocks(scores, x)
    elif way == "plain":
        y = plain_attention(scores, *x)
    elif way in ("xla", "cudnn"):
        y = through_jax(scores, x, scale, way)
    else:
        raise ValueError(
            describe(
                "gk.ops.attention has no such implementation.",
                expected="'blocks', 'plain', 'xla', 'cudnn', or None for the best",
                got=repr(implementation),
            )
        )
    return y.reshape(jnp.shape(q))


def _in_blocks(scores: Scores, x: Inputs) -> jax.Array:
    if 0 in (*x.q.shape, *x.k.shape):
        return plain_attention(scores, *x)
    return fused(
        lambda *x: plain_attention(scores, *x),
        lambda *x: forward(scores, Inputs(*x)),
        lambda x, y, logsumexp, y_bar, wanted: backward(
            scores, wanted[4], Inputs(*x), y, logsumexp, y_bar
        ),
        *x,
    )
