"""Small image models of every make, batch-first: `make()` returns a model and its input."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

IMAGES = (3, 8, 8, 1)


def images(shape=IMAGES):
    return jax.random.normal(jax.random.key(1), shape)


class LinenCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


def linen():
    module, x = LinenCNN(), images()
    return functools.partial(module.apply, module.init(jax.random.key(0), x)), x


class NnxCNN(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)).mean(axis=(1, 2)))


def flax_nnx():
    return NnxCNN(nnx.Rngs(0)), images()


class EquinoxCNN(eqx.Module):
    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    last: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(1, 4, 3, key=a)
        self.second = eqx.nn.Conv2d(4, 5, 3, key=b)
        self.last = eqx.nn.Linear(80, 3, key=c)

    def __call__(self, x):
        with jax.named_scope("first"):
            x = jax.nn.relu(self.first(x))
        with jax.named_scope("second"):
            x = jax.nn.relu(self.second(x))
        return self.last(x.reshape(-1))


def equinox():
    return jax.vmap(EquinoxCNN(jax.random.key(0))), images((3, 1, 8, 8))


def plain():
    w = jax.random.normal(jax.random.key(0), (3, 3, 1, 4))
    v = jax.random.normal(jax.random.key(2), (4, 3))

    def model(x):
        with jax.named_scope("features"):
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)
            x = jax.nn.relu(x)
        return jnp.tanh(x.mean(axis=(1, 2))) @ v

    return model, images()


MODELS = {"linen": linen, "nnx": flax_nnx, "equinox": equinox, "plain": plain}
LAYERS = {
    "linen": {"layer": "Conv_1"},
    "nnx": {"layer": "Relu"},
    "equinox": {"layer": "second", "channel_axis": 1},
    "plain": {"layer": "features"},
}
