"""Functions that compute in another precision than that of their arguments."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from tests.verify.bank.entry import FINE, FLOAT32, Made, entry, normal, uniform, vjp_rule

right = functools.partial(entry, wrong=False, family="precision")


def float32_attention(q, k, v):
    weights = jax.nn.softmax((q @ k.T).astype(jnp.float32))
    return weights.astype(v.dtype) @ v


def bfloat16_layer(x, w):
    return jnp.tanh(x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(x.dtype)


def bfloat16_matmul_accumulated_in_float32(x, w):
    return lax.dot_general(
        x.astype(jnp.bfloat16),
        w.astype(jnp.bfloat16),
        (((1,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def float32_scan(x):
    """Its carry is float32, whatever it is given."""

    def step(carry, x):
        return (0.5 * carry + jnp.sin(x)).astype(jnp.float32), None

    return lax.scan(step, jnp.float32(0), x)[0]


def float32_logsumexp(x):
    return jax.nn.logsumexp(x.astype(jnp.float32)).astype(x.dtype)


def _float32_logsumexp_bwd(residuals, y_bar):
    (x,) = residuals
    return (jax.nn.softmax(x.astype(jnp.float32)) * y_bar.astype(jnp.float32)).astype(x.dtype)


def float32_rms_norm(x, gain):
    wide = x.astype(jnp.float32)
    y = wide * lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6)
    return y.astype(x.dtype) * gain[None, :]


def mixed(half, single):
    return jnp.sum(half.astype(jnp.float32) * jnp.sin(single.astype(jnp.float32)))


def float16_activation(x):
    return jnp.tanh(x.astype(jnp.float16)).astype(x.dtype)


def float32_table(x):
    table = jnp.sin(jnp.arange(5, dtype=jnp.float32))
    left = jnp.clip(jnp.floor(lax.stop_gradient(x)), 0, 3).astype(int)
    t = x.astype(jnp.float32) - left
    return (table[left] * (1 - t) + table[left + 1] * t).astype(x.dtype)


def fresh_float32_parameters(x):
    w = jax.random.normal(jax.random.key(0), (x.size, 3), jnp.float32)
    return jnp.tanh(x.astype(jnp.float32) @ w)


def float32_mean(x):
    return jnp.mean(x, dtype=jnp.float32)


ENTRIES = [
    right(
        "attention weights in float32", float32_attention, normal(3, 4), normal(5, 4), normal(5, 2)
    ),
    right(
        "layer in bfloat16", bfloat16_layer, normal(3, 4), normal(4, 2), dtypes=FINE, accuracy=0.1
    ),
    right(
        "bfloat16 product, accumulated in float32",
        bfloat16_matmul_accumulated_in_float32,
        normal(3, 4),
        normal(4, 2),
        dtypes=FINE,
        accuracy=0.3,
    ),
    right("scan whose carry is float32", float32_scan, normal(6)),
    right("logsumexp in float32", float32_logsumexp, normal(5, scale=3.0)),
    right(
        "logsumexp in float32, by a rule in float32",
        vjp_rule(float32_logsumexp, _float32_logsumexp_bwd),
        normal(5, scale=3.0),
        reference=lambda x: jax.nn.logsumexp(x),
        dtypes=FINE,
        accuracy=1e-5,
    ),
    right("RMS norm in float32", float32_rms_norm, normal(3, 5), normal(5)),
    right(
        "bfloat16 and float32 arguments",
        mixed,
        Made(lambda dtype: jnp.asarray([0.5, -1.5, 2.0], jnp.bfloat16)),
        normal(3),
    ),
    right("tanh in float16", float16_activation, normal(4), dtypes=FINE, accuracy=0.02),
    right("table of float32 numbers", float32_table, uniform(3, high=4.0)),
    right("parameters drawn in float32 inside", fresh_float32_parameters, normal(4)),
    right("mean accumulated in float32", float32_mean, normal(200)),
    right(
        "a rule that promotes what it is given, and goes back",
        vjp_rule(
            lambda x: jnp.sum(x**2),
            lambda r, g: (2 * r[0].astype(jnp.float32) * g.astype(jnp.float32)).astype(r[0].dtype),
        ),
        normal(5),
        reference=lambda x: jnp.sum(x**2),
        dtypes=(FLOAT32,),
    ),
]
