"""Right gradients that are hard to judge."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.verify.entries import (
    ONES,
    ZEROS,
    Entry,
    bfloat16_mean,
    complex_normal,
    float32_scan,
    normal,
)


def forward_only(x):
    """Sine, in a loop that JAX cannot reverse."""
    return lax.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1]


def newton_sqrt(a):
    """A loop that stops when a number is small enough."""
    return lax.while_loop(
        lambda x: jnp.abs(x * x - a) > 1e-6, lambda x: 0.5 * (x + a / x), jnp.ones_like(a)
    )


def relu_network(x, w1, w2):
    return jax.nn.relu(x @ w1) @ w2


RIGHT = [
    Entry("sin", jnp.sin, (0.5,)),
    Entry("relu at its kink", jax.nn.relu, (ZEROS,)),
    Entry(
        "sum of many kinks",
        lambda x: jnp.sum(jax.nn.relu(x) * jnp.arange(99.0)),
        (np.zeros(99, np.float32),),
    ),
    Entry("abs at 0", jnp.abs, (0.0,)),
    Entry("max of ties", lambda x: jnp.max(x), (ONES,)),
    Entry("maximum of ties", jnp.maximum, (ONES, ONES)),
    Entry("relu6 at both kinks", jax.nn.relu6, (np.array([0.0, 6.0, 3.0], np.float32),)),
    Entry(
        "clip at its ends", lambda x: jnp.clip(x, -1, 1), (np.array([-1.0, 1.0, 0.0], np.float32),)
    ),
    Entry("next to a kink", jax.nn.relu, (np.array([1e-5, -1e-5, 1.0], np.float32),)),
    Entry("sqrt(x^2 + 1)", lambda x: jnp.sqrt(x * x + 1), (normal(3),)),
    Entry("flat minimum", lambda x: (x - 1) ** 2, (ONES,)),
    Entry("cos at pi", jnp.cos, (np.float32(np.pi),)),
    Entry("power 3/2 at 0", lambda x: jnp.abs(x) ** 1.5, (ZEROS,)),
    Entry("constant", lambda x: jnp.ones(3), (ONES,)),
    Entry("stairs", jnp.floor, (normal(3),)),
    Entry("tiny numbers", lambda x: x * x, (1e-15 * normal(3),)),
    Entry("huge numbers", lambda x: x * x, (1e15 * normal(3),)),
    Entry("reciprocal of tiny numbers", lambda x: 1 / x, (1e-12 * normal(3),)),
    Entry(
        "small leaf beside a large one",
        lambda a, b: 1e3 * a.sum() + jnp.sum(b * b),
        (1e3 * normal(4), normal(3)),
    ),
    Entry(
        "small output beside a large one",
        lambda x: (1e6 * x.sum(), 1e-6 * jnp.sum(x * x)),
        (normal(3),),
    ),
    Entry("steep sigmoid", lambda x: jax.nn.sigmoid(1e4 * x), (np.array([1e-5, 0.0], np.float32),)),
    Entry("fast oscillation", lambda x: jnp.sin(1e4 * x), (normal(2),)),
    Entry("cancellation", lambda x: (x + 1e4) - 1e4, (normal(3),)),
    Entry("integer argument", lambda x, i: x[i], (normal(5), np.array([0, 1, 1]))),
    Entry(
        "key argument",
        lambda x, key: x * jax.random.normal(key, x.shape),
        (normal(3), jax.random.key(0)),
    ),
    Entry(
        "None and text",
        lambda x, y, mode: x * (2 if mode == "twice" else 1),
        (normal(3), None, "twice"),
    ),
    Entry("function argument", lambda f, x: f(x), (jnp.tanh, 0.5)),
    Entry("empty array", lambda x, y: x.sum() + y.sum(), (np.zeros((0, 3), np.float32), normal(2))),
    Entry(
        "trees",
        lambda p: {"a": p["w"] @ p["w"].T, "n": 3, "b": p["b"].sum()},
        ({"w": normal(2, 3), "b": normal(4)},),
    ),
    Entry("bfloat16 input", jnp.tanh, (normal(4).astype(jnp.bfloat16),)),
    Entry("float16 input", lambda x: jnp.sum(x * x), (normal(4).astype(np.float16),)),
    Entry("bfloat16 inside", bfloat16_mean, (normal(8, 16), normal(16, 8))),
    Entry("relu in bfloat16 at its kink", lambda x: jax.nn.relu(x.astype(jnp.bfloat16)), (ZEROS,)),
    Entry("float32 inside", lambda x: jnp.tanh(3 * x.astype(jnp.float32)), (normal(6),)),
    Entry("float32 only", float32_scan, (normal(4),)),
    Entry("branch on a value", lambda x: x * 2 if x > 0 else x**2, (0.7,)),
    Entry("forward mode only", forward_only, (normal(3),)),
    Entry("Newton's iteration", newton_sqrt, (2.0,)),
    Entry(
        "where with a guard",
        lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), 0),
        (normal(6),),
    ),
    Entry("log-softmax", lambda x: jax.nn.log_softmax(30 * x), (normal(7),)),
    Entry("stopped factor", lambda x: lax.stop_gradient(x) * x, (normal(3),)),
    Entry(
        "straight-through by stop_gradient",
        lambda x: x + lax.stop_gradient(jnp.round(x) - x),
        (normal(3),),
    ),
    Entry("JAX's own stops", jnp.linalg.solve, (normal(4, 4), normal(4))),
    Entry("complex square", lambda z: z * z, (complex_normal(3),)),
    Entry("complex modulus", jnp.abs, (complex_normal(3),)),
    Entry("real to complex", jnp.fft.fft, (normal(8),)),
    Entry("network of kinks", relu_network, (normal(8, 16), normal(16, 32), normal(32, 4))),
    Entry("edge of the domain", lambda x: jnp.where(x < 0, jnp.nan, x * x + x), (0.0,)),
]
