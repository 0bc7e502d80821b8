"""Divergences between two linear heads over the same classes: distillation without logits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit import safe
from gradkit.losses._head import Head, by_blocks, by_rows, pull
from gradkit.losses._head_arguments import flat_head, misfit


def linear_kl_divergence(
    hidden: ArrayLike,
    weight: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_weight: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    teacher_bias: ArrayLike | None = None,
    temperature: float = 1.0,
    soft_cap: float | None = None,
    teacher_soft_cap: float | None = None,
    transposed: bool = False,
    reverse: bool = False,
) -> jax.Array:
    r"""Kullback-Leibler divergence of a student head from a teacher head, token by token.

    $$ L_i = \sum_v p_{iv} (\log p_{iv} - \log q_{iv}), \qquad
       q = \operatorname{softmax}\bigl(\operatorname{cap}(h W + b) / \tau\bigr), \qquad
       \bar z_i = (q_i - p_i)\,\bar L_i / \tau, $$

    with `p` the teacher's and `z` the student's logits; the other way round, `sum(q log(q / p))`,
    if `reverse`. Neither the student's nor the teacher's `[N, V]` logits are held: values take
    blocks of tokens, gradients blocks of classes. The teacher is held still.

    Args:
        hidden: `h`, the student's, real, `[..., D]`.
        weight: `W`, the student's, `[D, V]`.
        teacher_hidden: The teacher's, `[..., E]`, for the same tokens.
        teacher_weight: The teacher's, `[E, V]`.
        bias: `b`, `[V]`.
        teacher_bias: The teacher's, `[V]`.
        temperature: `tau`, of both. The gradient falls as its square, which Hinton et al. make up
            for by a factor `tau**2`; it is not in here.
        soft_cap: `c` of `cap(a) = c tanh(a / c)`. Default: no cap.
        teacher_soft_cap: The teacher's.
        transposed: Whether both weights have their classes first: `[V, D]` and `[V, E]`.
        reverse: Whether it is the divergence of the teacher from the student, which seeks one mode.

    Returns:
        `L`, `[...]`, not reduced, in float32 or wider.

    Raises:
        LossArgumentError: If shapes or types do not fit.

    Keeps:
        Its arguments, and two or three numbers for each token.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> with jnp.printoptions(precision=3):
        ...     print(linear_kl_divergence(h, jnp.eye(2), jnp.zeros((2, 2)), jnp.eye(2)))
        [0.12  0.434]

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network* (2015),
        arXiv:1503.02531; reversed, Gu et al., *MiniLLM* (2024), arXiv:2306.08543.
    """
    student = (hidden, weight, bias, soft_cap)
    teacher = (teacher_hidden, teacher_weight, teacher_bias, teacher_soft_cap)
    kind = _REVERSE if reverse else _FORWARD
    return _divergence("linear_kl_divergence", student, teacher, transposed, temperature, kind)


def linear_js_divergence(
    hidden: ArrayLike,
    weight: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_weight: ArrayLike,
    *,
    beta: float = 0.5,
    bias: ArrayLike | None = None,
    teacher_bias: ArrayLike | None = None,
    temperature: float = 1.0,
    soft_cap: float | None = None,
    teacher_soft_cap: float | None = None,
    transposed: bool = False,
) -> jax.Array:
    r"""Generalised Jensen-Shannon divergence between a student and a teacher head, token by token.

    $$ L = \beta\,\mathrm{KL}(p \,\|\, m) + (1 - \beta)\,\mathrm{KL}(q \,\|\, m), \qquad
       m = \beta p + (1 - \beta) q, $$
    $$ \bar z_v = (1 - \beta)\, q_v \bigl(\log (q_v / m_v) - \mathrm{KL}(q \,\|\, m)\bigr)\,
       \bar L / \tau $$

    with `p` the teacher's probabilities, and `q` and `z` the student's probabilities and logits. It
    is at most `log 2`, whatever the two say. The rest is as in `linear_kl_divergence`.

    Args:
        hidden: `h`, the student's, real, `[..., D]`.
        weight: `W`, the student's, `[D, V]`.
        teacher_hidden: The teacher's, `[..., E]`, for the same tokens.
        teacher_weight: The teacher's, `[E, V]`.
        beta: Between 0 and 1. Near 0, `L / beta` is `KL(p || q)`; near 1, `L / (1 - beta)` is
            `KL(q || p)`.
        bias: `b`, `[V]`.
        teacher_bias: The teacher's, `[V]`.
        temperature: `tau`, of both.
        soft_cap: `c` of `cap(a) = c tanh(a / c)`. Default: no cap.
        teacher_soft_cap: The teacher's.
        transposed: Whether both weights have their classes first.

    Returns:
        `L`, `[...]`, not reduced, in float32 or wider.

    Raises:
        LossArgumentError: If shapes or types do not fit, or `beta` is not between 0 and 1.

    Keeps:
        Its arguments, and three numbers for each token.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[1.0, 0.0], [0.0, 99.0]])
        >>> with jnp.printoptions(precision=3):
        ...     print(linear_js_divergence(h, jnp.eye(2), jnp.zeros((2, 2)), jnp.eye(2)))
        [0.029 0.216]

    Source:
        Agarwal et al., *On-Policy Distillation of Language Models* (2024), arXiv:2306.13649,
        equation 1.
    """
    if not 0 < beta < 1:
        raise misfit(
            "linear_js_divergence", "a beta that mixes nothing.", expected="0 < beta < 1",
            got=repr(beta), fix="use linear_kl_divergence for the limits",
        )  # fmt: skip
    student = (hidden, weight, bias, soft_cap)
    teacher = (teacher_hidden, teacher_weight, teacher_bias, teacher_soft_cap)
    kind = _JensenShannon(beta)
    return _divergence("linear_js_divergence", student, teacher, transposed, temperature, kind)


_Given = tuple[Any, Any, Any, Any]


class _Forward(NamedTuple):
    """`KL(p || q)`."""

    def rows(self, log_q: jax.Array, log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The divergence of each row, and what `slope` needs of it."""
        value = _expected_gap(log_p, log_q)
        return value, value

    def slope(self, log_q: jax.Array, log_p: jax.Array, inner: jax.Array) -> jax.Array:
        """The derivative with respect to the student's logits."""
        del inner
        return jnp.exp(log_q) - jnp.exp(log_p)


class _Reverse(NamedTuple):
    """`KL(q || p)`."""

    def rows(self, log_q: jax.Array, log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = _expected_gap(log_q, log_p)
        return value, value

    def slope(self, log_q: jax.Array, log_p: jax.Array, inner: jax.Array) -> jax.Array:
        return jnp.exp(log_q) * (_gap(log_q, log_p) - inner)


class _JensenShannon(NamedTuple):
    """`beta KL(p || m) + (1 - beta) KL(q || m)`."""

    beta: float

    def rows(self, log_q: jax.Array, log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_m = self._mixture(log_q, log_p)
        inner = _expected_gap(log_q, log_m)
        return self.beta * _expected_gap(log_p, log_m) + (1 - self.beta) * inner, inner

    def slope(self, log_q: jax.Array, log_p: jax.Array, inner: jax.Array) -> jax.Array:
        gap = _gap(log_q, self._mixture(log_q, log_p))
        return (1 - self.beta) * jnp.exp(log_q) * (gap - inner)

    def _mixture(self, log_q: jax.Array, log_p: jax.Array) -> jax.Array:
        return safe.logaddexp(log_p + math.log(self.beta), log_q + math.log1p(-self.beta))


_FORWARD, _REVERSE = _Forward(), _Reverse()


def _gap(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """`log p - log q`; 0 for classes that `p` rules out."""
    return jnp.where(log_p > -jnp.inf, log_p - log_q, 0)


def _expected_gap(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(log_p) * _gap(log_p, log_q), 1)


def _divergence(
    name: str, student: _Given, teacher: _Given, transposed: bool, temperature: Any, kind: Any
) -> jax.Array:
    q, shape = _head(name, *student, temperature, transposed)
    p, teacher_shape = _head(name, *teacher, temperature, transposed)
    p = lax.stop_gradient(p)
    if shape != teacher_shape or q.size != p.size:
        raise misfit(
            name,
            "two heads that do not fit.",
            expected=f"a teacher for tokens {shape} and {q.size} classes",
            got=f"tokens {teacher_shape} and {p.size} classes",
        )
    return _value((q,), p, kind=kind).reshape(shape)


def _head(
    name: str, hidden: Any, weight: Any, bias: Any, soft_cap: Any, temperature: Any, transposed: Any
) -> tuple[Head, tuple[int, ...]]:
    """The head whose logits are `cap(h W + b) / temperature`, `c / temperature` being its cap."""
    if soft_cap is not None:
        soft_cap = soft_cap / temperature
    head, shape = flat_head(name, hidden, weight, bias, soft_cap, transposed=transposed)
    return head.over(temperature), shape


@by_blocks
def _value(heads: tuple[Head], teacher: Head, *, kind: Any) -> Any:
    """The divergence of each row."""
    (student,) = heads

    def rows(logits):
        tops = tuple(jax.nn.logsumexp(z, axis=1) for z in logits)
        log_q, log_p = (z - top[:, None] for z, top in zip(logits, tops, strict=True))
        return kind.rows(log_q, log_p), tops

    (value, inner), tops = by_rows(rows, (student, teacher))

    def grad(value_bar):
        def logits_bar(logits, classes):
            del classes
            log_q, log_p = (z - top[:, None] for z, top in zip(logits, tops, strict=True))
            return (value_bar[:, None] * kind.slope(log_q, log_p, inner[:, None]),)

        return pull(logits_bar, heads, (teacher,)), None

    return value, grad
