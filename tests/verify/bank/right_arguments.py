"""Arguments of every kind, beside or instead of floating-point arrays."""

import dataclasses
import functools
from typing import NamedTuple

import equinox
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np

import gradkit
from tests.verify.bank.entry import (
    FINE,
    Made,
    complex_normal,
    entry,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
)

right = functools.partial(entry, wrong=False, family="arguments")
random = functools.partial(entry, wrong=False, family="randomness under a fixed key")


class Affine(NamedTuple):
    w: object
    b: object


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["mean", "scale"], meta_fields=["kind"]
)
@dataclasses.dataclass
class Normal:
    mean: object
    scale: object
    kind: str = "diagonal"


def log_density(normal, x):
    z = (x - normal.mean) / normal.scale
    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(normal.scale))


def affine(params, x):
    return x @ params.w + params.b[None, :]


def embed_and_sum(table, ids):
    return jnp.tanh(table[ids].sum(axis=0))


@gradkit.custom_gradient
def embed(table, ids):
    def grad(y_bar):
        return jnp.zeros_like(table).at[ids].add(y_bar), None

    return table[ids], grad


def masked_sum(x, mask):
    return jnp.sum(jnp.where(mask, x**2, 0))


def optional_bias(x, bias):
    return jnp.tanh(x) if bias is None else jnp.tanh(x + bias)


def by_name(x, kind):
    return {"sine": jnp.sin, "square": jnp.square}[kind](x)


def apply(function, x):
    return function(x) * 2


def nested(params, x):
    hidden = jnp.tanh(x @ params["layers"][0].w + params["layers"][0].b[None, :])
    return {"out": hidden * params["scale"], "extra": (hidden.sum(), [x**2])}


def with_empty(x, nothing):
    return jnp.sum(x**2) + jnp.sum(nothing)


class Network(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.Dense(5)(x)
        x = flax.linen.LayerNorm()(x)
        return flax.linen.Dense(2)(jax.nn.silu(x))


def make_network_params(dtype):
    params = Network().init(jax.random.key(1), jnp.ones((2, 3), jnp.float32))
    return jax.tree.map(lambda x: x.astype(dtype), params)


def apply_network(params, x):
    return Network().apply(params, x)


def make_mlp(dtype):
    mlp = equinox.nn.MLP(3, 2, 6, 1, activation=jnp.tanh, key=jax.random.key(2))
    return jax.tree.map(lambda x: x.astype(dtype) if equinox.is_array(x) else x, mlp)


def make_recurrent_cell(dtype):
    cell = equinox.nn.GRUCell(2, 3, key=jax.random.key(3))
    return jax.tree.map(lambda x: x.astype(dtype) if equinox.is_array(x) else x, cell)


class Gate(equinox.Module):
    """A custom gradient inside a module, with a static field."""

    weight: jax.Array
    sharpness: float = equinox.field(static=True)

    def __call__(self, x):
        return _sharp_sigmoid(self.weight * x, self.sharpness)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sharp_sigmoid(x, sharpness):
    return jax.nn.sigmoid(sharpness * x)


def _sharp_sigmoid_forward(x, sharpness):
    y = jax.nn.sigmoid(sharpness * x)
    return y, y


def _sharp_sigmoid_bwd(sharpness, y, y_bar):
    return (sharpness * y * (1 - y) * y_bar,)


_sharp_sigmoid.defvjp(_sharp_sigmoid_forward, _sharp_sigmoid_bwd)


def dropout(x, key):
    keep = jax.random.bernoulli(key, jnp.float32(0.75), x.shape)
    return jnp.where(keep, x / 0.75, 0)


def reparameterised(mean, log_scale, key):
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    return jnp.mean((mean + jnp.exp(log_scale) * noise) ** 2)


def gumbel_softmax(logits, key):
    return jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape, logits.dtype)) / 0.7)


def noisy_layer(x, w, key):
    first, second = jax.random.split(key)
    x = x + 0.1 * jax.random.normal(first, x.shape, x.dtype)
    return dropout(jnp.tanh(x @ w), second)


def random_features(x, key):
    w = jax.random.normal(key, (x.size, 8), x.dtype)
    return jnp.cos(x @ w)


ENTRIES = [
    right("repeated ids in an embedding", embed_and_sum, normal(6, 3), jnp.array([2, 5, 2, 2])),
    right(
        "embedding by a rule, ids beside it",
        embed,
        normal(6, 3),
        jnp.array([0, 5, 0, 1]),
        reference=lambda table, ids: table[ids],
    ),
    right("boolean mask", masked_sum, normal(4), jnp.array([True, False, True, True])),
    right(
        "NumPy integers and booleans",
        lambda x, n, flag: x * n if flag else x,
        normal(3),
        np.int32(3),
        np.bool_(True),
    ),
    right("None for an optional argument", optional_bias, normal(3), None),
    right("a string", by_name, normal(3), "sine"),
    right("a function as an argument", apply, jnp.tanh, normal(3)),
    right("Python numbers", lambda x, y, n: x**n * y, 1.5, -0.25, 3),
    right("a Python complex number", lambda z: jnp.real(z * z), 1.5 - 0.5j, dtypes=FINE),
    right("a scalar array", lambda x: jnp.sin(x) * x, normal()),
    right("an empty array beside another", with_empty, normal(3), values([])),
    right("arrays of size one", lambda x, y: x * jnp.sum(y), normal(1), normal(1, 1, 1)),
    right("a named tuple", affine, Affine(normal(3, 2), normal(2)), normal(4, 3)),
    right(
        "a registered dataclass with a static field",
        log_density,
        Normal(normal(3), uniform(3, low=0.5)),
        normal(3),
    ),
    right(
        "nested containers in and out",
        nested,
        {"layers": [Affine(normal(3, 2), normal(2))], "scale": normal(), "unused": None},
        normal(2, 3),
    ),
    right("an Equinox network", lambda mlp, x: mlp(x), Made(make_mlp), normal(3)),
    right(
        "an Equinox recurrent cell",
        lambda cell, x, h: cell(x, h),
        Made(make_recurrent_cell),
        normal(2),
        normal(3),
    ),
    right(
        "an Equinox module with a rule of its own",
        lambda gate, x: gate(x),
        Made(lambda dtype: Gate(jnp.asarray([0.5, -1.0], dtype), 3.0)),
        normal(2),
        reference=lambda gate, x: jax.nn.sigmoid(3.0 * gate.weight * x),
    ),
    right("a Flax network", apply_network, Made(make_network_params), normal(2, 3)),
    right(
        "complex parameters beside real inputs",
        lambda w, x: jnp.abs(w * x) ** 2,
        complex_normal(3),
        normal(3),
        dtypes=FINE,
    ),
    right(
        "keyword-only configuration",
        functools.partial(
            gradkit.op("BankScaled")(lambda x, *, scale: jnp.sin(scale * x)), scale=2.0
        ),
        normal(3),
    ),
    right(
        "an integer output beside a real one", lambda x: (jnp.sort(x), jnp.argsort(x)), normal(4)
    ),
    right(
        "a large integer array beside one number",
        lambda x, ids: x * jnp.sum(ids % 3),
        normal(),
        jnp.arange(1000),
    ),
    right(
        "a rule with None for a mask and a key",
        vjp_rule(
            lambda x, mask, key: jnp.where(mask, x**3, 0),
            lambda r, g: (jnp.where(r[1], 3 * r[0] ** 2 * g, 0), None, None),
        ),
        normal(3),
        jnp.array([True, False, True]),
        jax.random.key(0),
        reference=lambda x, mask, key: jnp.where(mask, x**3, 0),
    ),
    random("dropout", dropout, normal(16), jax.random.key(1)),
    random(
        "dropout by a rule that draws the mask again",
        registered(
            "BankDropout",
            dropout,
            lambda op, g: (
                jnp.where(
                    jax.random.bernoulli(op.inputs[1], jnp.float32(0.75), g.shape), g / 0.75, 0
                ),
                None,
            ),
        ),
        normal(16),
        jax.random.key(7),
        reference=dropout,
    ),
    random(
        "reparameterised normal sample",
        reparameterised,
        normal(4),
        normal(4, scale=0.3),
        jax.random.key(2),
    ),
    random("Gumbel-softmax sample", gumbel_softmax, normal(5), jax.random.key(3)),
    random(
        "noise, then dropout, by split keys",
        noisy_layer,
        normal(3, 4),
        normal(4, 5),
        jax.random.key(4),
    ),
    random("random features", random_features, normal(3), jax.random.key(5)),
    random(
        "a key in the old format", dropout, normal(8), Made(lambda dtype: jax.random.PRNGKey(0))
    ),
]
