"""Loops, branches, callbacks, batching rules, caches and checkpoints."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import lax
from jax.custom_batching import custom_vmap

import gradkit
from tests.verify.bank.entry import FINE, Anew, entry, normal, uniform, values, vjp_rule

control = functools.partial(entry, wrong=False, family="control flow")
host = functools.partial(entry, wrong=False, family="callbacks, batching and caches")
forward_only = {"modes": ("forward",)}


def halve_until_small(x):
    return lax.while_loop(lambda y: jnp.sum(y**2) > 1, lambda y: 0.5 * y, x)


def power_by_while(x):
    """x^10 by a counter."""
    return lax.while_loop(
        lambda s: s[0] < 10, lambda s: (s[0] + 1, s[1] * x), (0, jnp.ones_like(x))
    )[1]


def babylonian_root(a):
    return lax.fori_loop(0, 30, lambda _, y: 0.5 * (y + a / y), jnp.ones_like(a))


def is_positive(*arguments):
    return all(bool((x > 0).all()) for x in arguments)


def recurrent_network(params, xs):
    def step(h, x):
        h = jnp.tanh(params["w"] @ h + params["u"] @ x)
        return h, h.sum()

    h, sums = lax.scan(step, jnp.zeros_like(params["w"][0]), xs)
    return h, sums


def kalman_filter(observations, noise):
    def step(state, y):
        mean, variance = state
        variance = variance + 0.1
        gain = variance / (variance + noise)
        return (mean + gain * (y - mean), (1 - gain) * variance), None

    zero = jnp.zeros_like(noise)
    return lax.scan(step, (zero, zero + 1), observations)[0]


def piecewise_by_cond(x):
    return lax.cond(x.sum() > 0, lambda x: jnp.sum(x**2), lambda x: jnp.sum(jnp.exp(x)), x)


def chosen_activation(index, x):
    return lax.switch(index, [jnp.tanh, jax.nn.softplus, jnp.sin], x)


def python_branch(x):
    """Not traceable: it looks at a value."""
    return x**2 if x > 0 else -x


def python_loop(x):
    for k in range(1, 5):
        x = jnp.sin(x) + x / k
    return x


def truncated_series(x):
    """Stops when the terms are small enough, as Python decides."""
    term, total, k = x, x, 1
    while float(lax.stop_gradient(jnp.max(jnp.abs(term)))) > 1e-12 and k < 60:
        term = -term * x**2 / ((2 * k) * (2 * k + 1))
        total, k = total + term, k + 1
    return total


def ode_by_runge_kutta(y0, rate):
    def slope(y):
        return rate * y * (1 - y)

    def step(y, _):
        k1 = slope(y)
        k2 = slope(y + 0.05 * k1)
        k3 = slope(y + 0.05 * k2)
        k4 = slope(y + 0.1 * k3)
        return y + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return lax.scan(step, y0, None, length=20)[0]


def running_maximum(x):
    return lax.associative_scan(jnp.maximum, x)


def checkpointed(x, w):
    layer = jax.checkpoint(lambda x: jnp.tanh(x @ w))
    return layer(layer(x))


@jax.jit
def inner_jit(x):
    return jnp.sum(jnp.exp(-(x**2)))


def mapped(xs):
    return lax.map(lambda x: jnp.sin(x) * x, xs)


def gamma_on_the_host(x):
    """A SciPy function with SciPy's derivative."""
    return _host_call(lambda x: scipy.special.gammaln(x), x, "sequential")


def _gamma_bwd(residuals, y_bar):
    return _host_call(lambda x: scipy.special.digamma(x), residuals[0], "sequential") * y_bar


def _host_call(function, x, vmap_method):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)

    def call(x):
        return np.asarray(function(np.asarray(x, np.float64))).astype(x.dtype)

    return jax.pure_callback(call, shape, x, vmap_method=vmap_method)


def erf_on_the_host(x):
    return _host_call(scipy.special.erf, x, "expand_dims")


def _erf_bwd(residuals, y_bar):
    (x,) = residuals
    slope = _host_call(lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2)), x, "broadcast_all")
    return slope * y_bar


def softmax_by_host_rows(x):
    return _host_call(lambda x: scipy.special.softmax(x, axis=-1), x, "expand_dims")


def _softmax_bwd(residuals, y_bar):
    y = softmax_by_host_rows(residuals[0])
    return y * (y_bar - jnp.sum(y * y_bar))


def make_remembering():
    """Keeps the slope of each point that it has seen, by the point's value."""
    kept = {}

    def slope_of(x):
        key = x.tobytes()
        if key not in kept:
            kept[key] = 1 - np.tanh(x) ** 2
        return kept[key]

    def backward(residuals, y_bar):
        return _host_call(slope_of, residuals[0], "sequential") * y_bar

    return vjp_rule(jnp.tanh, backward)


def make_counting():
    """Counts its calls, and nothing depends on the count."""
    calls = []

    @gradkit.custom_gradient
    def swish(x):
        calls.append(None)

        def grad(y_bar):
            calls.append(None)
            s = jax.nn.sigmoid(x)
            return (s + x * s * (1 - s)) * y_bar

        return x * jax.nn.sigmoid(x), grad

    return swish


def make_compiling():
    """Compiles one function for each size that it meets."""
    compiled = {}

    def f(x):
        if x.size not in compiled:
            compiled[x.size] = jax.jit(lambda x: jnp.sum(jnp.sin(x)) / x.size)
        return compiled[x.size](x)

    return f


def softmax(x):
    return jax.nn.softmax(x)


def batched_softmax():
    """A batching rule that is right, also where only one argument is mapped."""

    @custom_vmap
    def pull(y, y_bar):
        return y * (y_bar - jnp.sum(y * y_bar))

    @pull.def_vmap
    def _pull_batched(size, mapped, y, y_bar):
        y, y_bar = (
            x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_mapped in zip((y, y_bar), mapped)
        )
        return y * (y_bar - jnp.sum(y * y_bar, axis=1, keepdims=True)), True

    return vjp_rule(softmax, lambda r, g: pull(softmax(r[0]), g))


@custom_vmap
def batched_forward(x):
    return jnp.sin(x) * 2


@batched_forward.def_vmap
def _batched_forward_rule(size, mapped, x):
    return 2 * jnp.sin(x), mapped[0]


def scoped(x):
    with jax.named_scope("inner"):
        jax.debug.callback(lambda _: None, x)
        return jnp.sum(x**3)


ENTRIES = [
    control(
        "while loop, forward only",
        halve_until_small,
        values([3.0, -5.0, 2.0]),
        options=forward_only,
    ),
    control(
        "while loop with a counter, forward only",
        power_by_while,
        uniform(3, low=0.5, high=1.5),
        options=forward_only,
    ),
    control(
        "fori loop with a known number of steps",
        babylonian_root,
        uniform(3, low=0.5, high=4.0),
        options={"domain": is_positive},
    ),
    control(
        "recurrent network by scan",
        recurrent_network,
        {"w": normal(3, 3, scale=0.5), "u": normal(3, 2)},
        normal(7, 2),
    ),
    control("Kalman filter by scan", kalman_filter, normal(8), values(0.5)),
    control("cond on the first side", piecewise_by_cond, values([1.0, -0.5, 0.25])),
    control("cond on the other side", piecewise_by_cond, values([-1.0, 0.5, -0.25])),
    control("switch by an integer argument", chosen_activation, jnp.array(1), normal(3)),
    control("Python branch on a value", python_branch, values(1.5)),
    control("Python branch, the other side", python_branch, values(-1.5)),
    control("unrolled Python loop", python_loop, normal(3)),
    control("series cut off by Python", truncated_series, values([0.5, -2.0, 1.0]), dtypes=FINE),
    control(
        "Runge-Kutta steps of the logistic equation",
        ode_by_runge_kutta,
        uniform(2, low=0.1, high=0.9),
        values([1.5, 0.5]),
    ),
    control("running maximum by an associative scan", running_maximum, normal(9)),
    control("two checkpointed layers", checkpointed, normal(3, 4), normal(4, 4)),
    control("a jitted function", inner_jit, normal(4)),
    control("lax.map over rows", mapped, normal(4, 2)),
    host(
        "SciPy's gammaln with digamma, member by member",
        vjp_rule(gamma_on_the_host, _gamma_bwd),
        uniform(3, low=0.5, high=4.0),
        reference=jax.scipy.special.gammaln,
        dtypes=FINE,
    ),
    host(
        "SciPy's erf with its derivative, vectorised",
        vjp_rule(erf_on_the_host, _erf_bwd),
        normal(4),
        reference=jax.scipy.special.erf,
    ),
    host(
        "softmax of rows on the host, vectorised",
        vjp_rule(softmax_by_host_rows, _softmax_bwd),
        normal(5),
        reference=softmax,
    ),
    host("a cache keyed by the value", Anew(make_remembering), normal(3), reference=jnp.tanh),
    host(
        "a rule that counts its calls",
        Anew(make_counting),
        normal(3),
        reference=lambda x: x * jax.nn.sigmoid(x),
    ),
    host("a cache of compiled functions by size", Anew(make_compiling), normal(5)),
    host(
        "softmax with a batching rule",
        batched_softmax(),
        normal(5),
        reference=softmax,
    ),
    host(
        "a batching rule of the function itself, forward only",
        batched_forward,
        normal(3),
        options=forward_only,
    ),
    host("a batching rule, called under vmap", jax.vmap(batched_forward), normal(3)),
    host(
        "debug callback and named scope inside",
        scoped,
        normal(3),
    ),
]
