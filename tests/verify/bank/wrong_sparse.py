"""Rules that are right for dense cotangents, or all perturbed arguments, only."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from tests.verify.bank.entry import entry, normal, uniform, vjp_rule

wrong = functools.partial(entry, wrong=True, family="sparse or symbolic zero")


def product(x, y):
    return x * y


def product_of_both_perturbed():
    """Right if both arguments are differentiated; with one of them, half."""

    def forward(x, y):
        share = 1.0 if x.perturbed and y.perturbed else 0.5
        return x.value * y.value, (x.value, y.value, share)

    def backward(residuals, z_bar):
        x, y, share = residuals
        return share * y * z_bar, share * x * z_bar

    return vjp_rule(product, backward, forward, symbolic_zeros=True)


def two_outputs(x):
    return jnp.sin(x), x**2


def two_outputs_with_early_return():
    """Returns early if the second output has no cotangent."""

    def forward(x):
        return two_outputs(x.value), x.value

    def backward(x, y_bar):
        first_bar, second_bar = y_bar
        if isinstance(second_bar, SymbolicZero):
            return jnp.zeros_like(x)
        if isinstance(first_bar, SymbolicZero):
            return 2 * x * second_bar
        return jnp.cos(x) * first_bar + 2 * x * second_bar

    return vjp_rule(two_outputs, backward, forward, symbolic_zeros=True)


@jax.custom_jvp
def quotient(x, y):
    return x / y


@functools.partial(quotient.defjvp, symbolic_zeros=True)
def _quotient_jvp_without_sign_for_one(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    value = x / y
    if isinstance(x_dot, SymbolicZero):
        return value, x / y**2 * y_dot  # the sign is right only in the sum below
    if isinstance(y_dot, SymbolicZero):
        return value, x_dot / y
    return value, x_dot / y - x / y**2 * y_dot


def denominator_alone(y):
    return quotient(jnp.asarray(1.5, y.dtype), y)


def _softmax_bwd_by_ratio(residuals, y_bar):
    """Divides by what may be zero, and multiplies by it again."""
    y = jax.nn.softmax(residuals[0])
    return y_bar * (y * y_bar) / y_bar - y * jnp.sum(y * y_bar)


def softmax(x):
    return jax.nn.softmax(x)


def scale_rows(x):
    return x * jnp.arange(1, 4).astype(x.dtype)[:, None]


def _scale_rows_bwd_without_padding(residuals, y_bar):
    # A row whose first cotangent is zero is taken to be padding.
    present = (y_bar[:, :1] != 0).astype(y_bar.dtype)
    return y_bar * present * jnp.arange(1, 4).astype(y_bar.dtype)[:, None]


def select(x):
    return jnp.exp(x)


def _select_bwd_of_one_hot(residuals, y_bar):
    """Only the largest cotangent: right for a loss that looks at one output."""
    at = jnp.argmax(jnp.abs(y_bar))
    return (jnp.arange(y_bar.size) == at) * jnp.exp(residuals[0]) * y_bar


def log_softmax(x):
    return jax.nn.log_softmax(x)


def _log_softmax_bwd_of_unit_total(residuals, y_bar):
    """Right for the cross entropy, whose cotangents sum to -1."""
    return y_bar + jax.nn.softmax(residuals[0])


def weighted(x, w):
    return jnp.tanh(x * w)


def weighted_with_frozen_weight():
    """A shortcut for frozen weights that has lost the weight."""

    def forward(x, w):
        y = weighted(x.value, w.value)
        return y, (x.value, w.value, y, w.perturbed)

    def backward(residuals, y_bar):
        x, w, y, perturbed = residuals
        inner = (1 - y**2) * y_bar
        return (inner * w, inner * x) if perturbed else (inner, jnp.zeros_like(w))

    return vjp_rule(weighted, backward, forward, symbolic_zeros=True)


def frozen_weight(x):
    return weighted_with_frozen_weight()(x, jnp.asarray(0.5, x.dtype))


def prefix_sums(x):
    return jnp.cumsum(x)


def _prefix_sums_bwd_up_to_first_zero(residuals, y_bar):
    present = jnp.cumprod((y_bar != 0).astype(y_bar.dtype))
    return jnp.cumsum((y_bar * present)[::-1])[::-1]


ENTRIES = [
    wrong(
        "product: halved unless both arguments are differentiated",
        lambda x: product_of_both_perturbed()(x, jnp.full_like(x, 3)),
        normal(4),
        reference=lambda x: 3 * x,
    ),
    wrong(
        "two outputs: nothing at all if the second one is not used",
        lambda x: two_outputs_with_early_return()(x)[0],
        normal(4),
        reference=jnp.sin,
    ),
    wrong(
        "quotient: the sign is lost if the numerator is constant",
        denominator_alone,
        uniform(3, low=0.5, high=2.0),
        reference=lambda y: 1.5 / y,
    ),
    wrong(
        "tanh of a product: the weight is lost where it is frozen",
        frozen_weight,
        normal(4),
        reference=lambda x: jnp.tanh(0.5 * x),
    ),
    wrong(
        "softmax: divides by the cotangent",
        vjp_rule(softmax, _softmax_bwd_by_ratio),
        normal(5),
        reference=softmax,
    ),
    wrong(
        "rows: those whose first cotangent is zero count as padding",
        vjp_rule(scale_rows, _scale_rows_bwd_without_padding),
        normal(3, 4),
        reference=scale_rows,
    ),
    wrong(
        "exponentials: right for one-hot cotangents only",
        vjp_rule(select, _select_bwd_of_one_hot),
        normal(5),
        reference=select,
    ),
    wrong(
        "log-softmax: right for cotangents that sum to -1 only",
        vjp_rule(log_softmax, _log_softmax_bwd_of_unit_total),
        normal(5),
        reference=log_softmax,
    ),
    wrong(
        "cumulative sum: nothing beyond the first zero of the cotangent",
        vjp_rule(prefix_sums, _prefix_sums_bwd_up_to_first_zero),
        normal(6),
        reference=prefix_sums,
    ),
]
