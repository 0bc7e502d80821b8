"""Right at first order, wrong at second."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import (
    FINE,
    entry,
    jvp_rule,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
)

wrong = functools.partial(
    entry, wrong=True, family="second order", shows="second", options={"order": 2}
)
detached = lax.stop_gradient


def cube(x):
    return x**3


def swish(x):
    return x * jax.nn.sigmoid(x)


def softplus(x):
    return jax.nn.softplus(x)


@jax.custom_jvp
def sigmoid_of_detached_output(x):
    return jax.nn.sigmoid(x)


@sigmoid_of_detached_output.defjvp
def _sigmoid_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    y = sigmoid_of_detached_output(x)
    return y, detached(y * (1 - y)) * x_dot


@jax.custom_jvp
def logistic_with_slope_doubled(x):
    return jax.nn.sigmoid(x)


@logistic_with_slope_doubled.defjvp
def _logistic_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    y = jax.nn.sigmoid(x)
    return y, 2 * y * (1 - y) * x_dot


def log_sum_exp(x):
    return jax.nn.logsumexp(x)


@gradkit.custom_gradient
def log_sum_exp_with_constant_softmax(x):
    weights = detached(jax.nn.softmax(x))
    return log_sum_exp(x), lambda y_bar: weights * y_bar


def product(x, y):
    return x**2 * y


def norm_squared(x):
    return jnp.sum(x**2)


def _on_the_host(x):
    """A value that nothing can be differentiated through: it has a zero tangent."""
    return _without_tangent(x)


@jax.custom_jvp
def _without_tangent(x):
    return jnp.cos(x)


@_without_tangent.defjvp
def _without_tangent_jvp(primals, tangents):
    return _without_tangent(*primals), jnp.zeros_like(primals[0])


def sine(x):
    return jnp.sin(x)


def exponential(x):
    return jnp.exp(x)


def reciprocal(x):
    return 1 / x


def root(x):
    return jnp.sqrt(x)


@jax.custom_vjp
def root_with_implicit_rule(x):
    return jnp.sqrt(x)


def _root_forward(x):
    y = jnp.sqrt(x)
    return y, detached(y)


def _root_bwd(y, y_bar):
    return (y_bar / (2 * y),)


root_with_implicit_rule.defvjp(_root_forward, _root_bwd)


def matvec(w, x):
    return jnp.tanh(w @ x)


def _matvec_bwd_of_detached_activation(residuals, y_bar):
    w, x = residuals
    inner = (1 - detached(matvec(w, x)) ** 2) * y_bar
    return jnp.outer(inner, x), w.T @ inner


def log_cosh(x):
    return jnp.logaddexp(x, -x)


def _log_cosh_bwd_with_slope_by_rounding(residuals, y_bar):
    (x,) = residuals
    return jnp.where(detached(x) > 0, 1, -1) * jnp.abs(detached(jnp.tanh(x))) * y_bar


def quartic(x):
    return jnp.sum(x**4) / 4


@jax.custom_jvp
def _cube_wrongly_curved(x):
    return x**3


@_cube_wrongly_curved.defjvp
def _cube_wrongly_curved_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return x**3, 2 * x**2 * x_dot


def linear_of_sine(x):
    return 2 * jnp.sin(x)


def _returned_value_forward(x):
    y = detached(jnp.sin(x)) * 2
    return y, x


def softmax(x):
    return jax.nn.softmax(x)


def _softmax_bwd_half_detached(residuals, y_bar):
    y = softmax(residuals[0])
    return y * (y_bar - detached(jnp.sum(y * y_bar)))


def rms_norm(x):
    return x * lax.rsqrt(jnp.mean(x**2) + 1e-3)


def _rms_norm_bwd_with_detached_scale(residuals, y_bar):
    (x,) = residuals
    scale = detached(lax.rsqrt(jnp.mean(x**2) + 1e-3))
    return scale * (y_bar - x * scale**2 * jnp.mean(x * y_bar))


ENTRIES = [
    wrong(
        "cube: the residual is detached",
        vjp_rule(cube, lambda r, g: 3 * detached(r[0]) ** 2 * g),
        normal(3),
        reference=cube,
    ),
    wrong(
        "swish: the whole cotangent is detached",
        vjp_rule(swish, lambda r, g: detached(jax.grad(swish)(r[0]) * g)),
        normal(),
        reference=swish,
    ),
    wrong(
        "sigmoid: the slope is detached in the JVP rule",
        sigmoid_of_detached_output,
        normal(4),
        reference=jax.nn.sigmoid,
    ),
    wrong(
        "softplus: its slope has a rule of its own, twice too large",
        jvp_rule(softplus, lambda x, t: logistic_with_slope_doubled(x[0]) * t[0]),
        normal(4),
        reference=softplus,
    ),
    wrong(
        "logsumexp: the softmax counts as a constant",
        log_sum_exp_with_constant_softmax,
        normal(5),
        reference=log_sum_exp,
    ),
    wrong(
        "x^2 y: the mixed second derivative is lost on one side",
        vjp_rule(product, lambda r, g: (2 * r[0] * detached(r[1]) * g, r[0] ** 2 * g)),
        normal(3),
        normal(3),
        reference=product,
    ),
    wrong(
        "squared norm: the gradient is a constant vector",
        registered("BankNormSquared", norm_squared, lambda op, g: 2 * detached(op.inputs[0]) * g),
        normal(4),
        reference=norm_squared,
    ),
    wrong(
        "sine: its slope has a zero tangent, like a host function's",
        vjp_rule(sine, lambda r, g: _on_the_host(r[0]) * g),
        normal(3),
        reference=sine,
    ),
    wrong(
        "exponential: the output that is kept is detached",
        vjp_rule(exponential, lambda y, g: detached(y) * g, lambda x: (jnp.exp(x), jnp.exp(x))),
        normal(3),
        reference=exponential,
    ),
    wrong(
        "reciprocal: the sign of the second derivative",
        vjp_rule(reciprocal, lambda r, g: -g * (2 * detached(1 / r[0] ** 2) - 1 / r[0] ** 2)),
        uniform(3, low=0.5, high=2.0),
        reference=reciprocal,
    ),
    wrong(
        "square root by an implicit rule: the solution is detached",
        root_with_implicit_rule,
        uniform(3, low=0.5, high=2.0),
        reference=root,
    ),
    wrong(
        "dense layer: the activation's slope is detached",
        vjp_rule(matvec, _matvec_bwd_of_detached_activation),
        normal(3, 4, scale=0.5),
        normal(4),
        reference=matvec,
        dtypes=FINE,
    ),
    wrong(
        "log cosh: no curvature",
        vjp_rule(log_cosh, _log_cosh_bwd_with_slope_by_rounding),
        values([0.5, -0.25, 1.0]),
        reference=log_cosh,
    ),
    wrong(
        "quartic: the cube in its rule has a wrong rule",
        vjp_rule(quartic, lambda r, g: _cube_wrongly_curved(r[0]) * g),
        normal(3),
        reference=quartic,
    ),
    wrong(
        "scaled sine: the returned value is detached",
        vjp_rule(linear_of_sine, lambda x, g: 2 * jnp.cos(x) * g, _returned_value_forward),
        normal(3),
        reference=linear_of_sine,
        shows="returned value",
    ),
    wrong(
        "softmax: the inner product is detached",
        vjp_rule(softmax, _softmax_bwd_half_detached),
        normal(4, scale=2.0),
        reference=softmax,
        dtypes=FINE,
    ),
    wrong(
        "RMS norm: the scale is detached in the rule",
        vjp_rule(rms_norm, _rms_norm_bwd_with_detached_scale),
        normal(4),
        reference=rms_norm,
        dtypes=FINE,
    ),
    wrong(
        "cube within a sum: the cotangent is detached",
        lambda x: jnp.sum(vjp_rule(cube, lambda r, g: 3 * r[0] ** 2 * detached(g))(x) ** 2),
        normal(3),
        reference=lambda x: jnp.sum(cube(x) ** 2),
    ),
]
