"""Right rules, stated in every way that JAX and gradkit have."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero, linear_call

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

right = functools.partial(entry, wrong=False, family="ways to state a rule")


def leaky(x, slope):
    return jnp.where(x > 0, x, slope * x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 2))
def apply_repeatedly(function, x, times):
    for _ in range(times):
        x = function(x)
    return x


def _apply_repeatedly_forward(function, x, times):
    return apply_repeatedly(function, x, times), x


def _apply_repeatedly_bwd(function, times, x, y_bar):
    points = [x]
    for _ in range(times - 1):
        points.append(function(points[-1]))
    for point in reversed(points):
        y_bar = jax.vjp(function, point)[1](y_bar)[0]
    return (y_bar,)


apply_repeatedly.defvjp(_apply_repeatedly_forward, _apply_repeatedly_bwd)


def product(x, y):
    return x * y


def product_with_symbolic_zeros():
    def forward(x, y):
        kept = (x.value if y.perturbed else None, y.value if x.perturbed else None)
        return x.value * y.value, kept

    def backward(kept, z_bar):
        x, y = kept
        if isinstance(z_bar, SymbolicZero):
            return None, None
        return None if y is None else y * z_bar, None if x is None else x * z_bar

    return vjp_rule(product, backward, forward, symbolic_zeros=True)


@jax.custom_jvp
def quotient(x, y):
    return x / y


@functools.partial(quotient.defjvp, symbolic_zeros=True)
def _quotient_jvp(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    z = x / y
    tangent = jnp.zeros_like(z)
    if not isinstance(x_dot, SymbolicZero):
        tangent = tangent + x_dot / y
    if not isinstance(y_dot, SymbolicZero):
        tangent = tangent - z / y * y_dot
    return z, tangent


@jax.custom_jvp
def hypotenuse(x, y):
    return jnp.sqrt(1 + x**2 + y**2)


hypotenuse.defjvps(lambda t, z, x, y: x / z * t, lambda t, z, x, y: y / z * t)


@gradkit.custom_gradient(nondiff_argnames=("kind",))
def activation(x, kind="tanh"):
    y = {"tanh": jnp.tanh, "sine": jnp.sin}[kind](x)
    slope = {"tanh": lambda: 1 - y**2, "sine": lambda: jnp.cos(x)}[kind]
    return y, lambda y_bar: slope() * y_bar


@gradkit.custom_gradient
def statistics(x):
    mean, variance = jnp.mean(x), jnp.var(x)

    def grad(mean_bar, variance_bar):
        return (mean_bar + 2 * (x - mean) * variance_bar) / x.size

    return (mean, variance), grad


@gradkit.custom_gradient
def affine_of_dict(params, x):
    def grad(y_bar):
        return {"w": x * y_bar, "b": y_bar}, params["w"] * y_bar

    return params["w"] * x + params["b"], grad


def with_map(x):
    with gradkit.gradient_override_map({"Tanh": lambda op, g: (1 - op.outputs[0] ** 2) * g}):
        return jnp.sum(jnp.tanh(x) ** 2)


def mean_pool(x):
    return x.reshape(-1, 2).mean(axis=1)


def mean_pool_by_linear_call(x):
    return linear_call(lambda _, x: mean_pool(x), lambda _, g: jnp.repeat(g, 2) / 2, (), x)


class Scaler:
    """A rule as a method."""

    def __init__(self, factor):
        self.factor = factor

    @gradkit.custom_gradient
    def __call__(self, x):
        return self.factor * jnp.sin(x), lambda y_bar: self.factor * jnp.cos(x) * y_bar


def swish(x):
    return x * jax.nn.sigmoid(x)


def _swish_bwd(residuals, y_bar):
    s = jax.nn.sigmoid(residuals[0])
    return (s + residuals[0] * s * (1 - s)) * y_bar


def nested_rules(x):
    inner = vjp_rule(swish, _swish_bwd)
    return jvp_rule(
        lambda x: jnp.sin(inner(x)), lambda p, t: jax.jvp(lambda x: jnp.sin(swish(x)), p, t)[1]
    )(x)


def memory_saving_scan(x, w):
    """Recomputes its steps in the backward pass, from the end state by inversion."""

    def step(x, _):
        a, b = x
        return (b, a + jnp.tanh(w * b)), None

    return lax.scan(step, (x, x), None, length=4)[0]


def _memory_saving_forward(x, w):
    y = memory_saving_scan(x, w)
    return y, (y, w)


def _memory_saving_bwd(residuals, y_bar):
    (a, b), w = residuals
    a_bar, b_bar = y_bar
    w_bar = jnp.zeros_like(w)
    for _ in range(4):
        a, b = b - jnp.tanh(w * a), a
        slope = (1 - jnp.tanh(w * b) ** 2) * b_bar
        w_bar, a_bar, b_bar = w_bar + slope * b, b_bar, a_bar + slope * w
    return a_bar + b_bar, w_bar


ENTRIES = [
    right(
        "custom_vjp with a function and a number that are not differentiated",
        lambda x: apply_repeatedly(jnp.sin, x, 3),
        normal(3),
        reference=lambda x: jnp.sin(jnp.sin(jnp.sin(x))),
    ),
    right(
        "custom_vjp with symbolic zeros",
        product_with_symbolic_zeros(),
        normal(3),
        normal(3),
        reference=product,
    ),
    right(
        "custom_vjp with symbolic zeros, one argument constant",
        lambda x: product_with_symbolic_zeros()(x, jnp.full_like(x, 3)),
        normal(3),
        reference=lambda x: 3 * x,
    ),
    right(
        "custom_vjp with optimize_remat",
        vjp_rule(swish, _swish_bwd, optimize_remat=True),
        normal(4),
        reference=swish,
    ),
    right(
        "custom_vjp under checkpoint",
        jax.checkpoint(vjp_rule(swish, _swish_bwd)),
        normal(4),
        reference=swish,
    ),
    right("custom_vjp under jit", jax.jit(vjp_rule(swish, _swish_bwd)), normal(4), reference=swish),
    right(
        "custom_vjp under vmap", jax.vmap(vjp_rule(swish, _swish_bwd)), normal(4), reference=swish
    ),
    right(
        "custom_vjp in a scan",
        lambda x: lax.scan(lambda c, _: (vjp_rule(swish, _swish_bwd)(c), None), x, None, length=3)[
            0
        ],
        normal(3),
        reference=lambda x: swish(swish(swish(x))),
    ),
    right(
        "custom_vjp that inverts its steps instead of keeping them",
        vjp_rule(memory_saving_scan, _memory_saving_bwd, _memory_saving_forward),
        normal(3, scale=0.5),
        normal(3, scale=0.5),
        reference=memory_saving_scan,
        dtypes=FINE,
    ),
    right(
        "custom_jvp with symbolic zeros",
        quotient,
        normal(3),
        uniform(3, low=0.5, high=2.0),
        reference=lambda x, y: x / y,
    ),
    right(
        "custom_jvp by defjvps",
        hypotenuse,
        normal(3),
        normal(3),
        reference=lambda x, y: jnp.sqrt(1 + x**2 + y**2),
    ),
    right(
        "custom_jvp within custom_vjp",
        nested_rules,
        normal(3),
        reference=lambda x: jnp.sin(swish(x)),
    ),
    right(
        "custom_gradient with a name that is not differentiated",
        lambda x: activation(x, kind="sine"),
        normal(3),
        reference=jnp.sin,
    ),
    right(
        "custom_gradient of two outputs",
        statistics,
        normal(5),
        reference=lambda x: (jnp.mean(x), jnp.var(x)),
    ),
    right(
        "custom_gradient of a dict",
        affine_of_dict,
        {"w": normal(3), "b": normal(3)},
        normal(3),
        reference=lambda params, x: params["w"] * x + params["b"],
    ),
    right(
        "custom_gradient as a method", Scaler(2.0), normal(3), reference=lambda x: 2 * jnp.sin(x)
    ),
    right(
        "an operation whose gradient adjusts the default",
        registered("BankDefault", swish, lambda op, g: op.default_vjp(g)),
        normal(4),
        reference=swish,
    ),
    right(
        "an operation without a registered gradient",
        gradkit.op("BankUnregistered")(swish),
        normal(4),
        reference=swish,
    ),
    right(
        "an override of Square by the right rule",
        gradkit.override(
            lambda x: jnp.sum(jnp.square(jnp.sin(x))),
            {"Square": lambda op, g: 2 * op.inputs[0] * g},
        ),
        normal(3),
        reference=lambda x: jnp.sum(jnp.square(jnp.sin(x))),
    ),
    right(
        "an override as a scope inside",
        with_map,
        normal(3),
        reference=lambda x: jnp.sum(jnp.tanh(x) ** 2),
    ),
    right(
        "linear_call with its transpose", mean_pool_by_linear_call, normal(6), reference=mean_pool
    ),
    right(
        "a rule that gives exact zeros for a frozen argument by None",
        vjp_rule(lambda x, mask: x * mask, lambda r, g: (g * r[1], None)),
        normal(4),
        jnp.array([1, 0, 1, 1]),
        reference=lambda x, mask: x * mask,
    ),
    right(
        "leaky relu with a slope that is learned",
        vjp_rule(
            leaky,
            lambda r, g: (
                jnp.where(r[0] > 0, g, r[1] * g),
                jnp.sum(jnp.where(r[0] > 0, 0, r[0] * g)),
            ),
        ),
        normal(5),
        values(0.25),
        reference=leaky,
    ),
    right(
        "a rule linear in the cotangent, by a sum of two",
        vjp_rule(
            lambda x: jnp.cumsum(x),
            lambda r, g: (
                g + jnp.concatenate([jnp.cumsum(g[::-1])[::-1][1:], jnp.zeros_like(g[:1])])
            ),
        ),
        normal(5),
        reference=jnp.cumsum,
    ),
]
