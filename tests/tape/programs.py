"""Programs to record, each a scalar function of an array of four positive numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

import gradkit as gk

X = np.linspace(0.3, 1.2, 4, dtype=np.float32)
WEIGHTS = np.cos(np.arange(16, dtype=np.float32)).reshape(4, 4)


@jax.custom_vjp
def reversed_gradient(x):
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, y_bar: (-y_bar,))


@jax.custom_jvp
def sine_of_slope_five(x):
    return jnp.sin(x)


@sine_of_slope_five.defjvp
def _sine_of_slope_five_jvp(primals, tangents):
    return sine_of_slope_five(primals[0]), 5 * tangents[0] * primals[0]


@gk.custom_gradient
def seven_squares(x):
    return x * x, lambda y_bar: 7 * y_bar * x


@gk.custom_gradient
def seven_times(x):
    return x, lambda y_bar: 7 * y_bar


def layers(x):
    for _ in range(3):
        x = jax.nn.gelu(x @ WEIGHTS)
    return jnp.sum(x)


def loop_over_elements(x):
    total = 0.0
    for element in x:
        total = total + element * x[0]
    return total + x[1] * x[np.array([0, 2])].sum() + x[1:3].prod()


def updates(x):
    return jnp.sum(x.at[1].mul(3.0).at[0].set(x[2]) ** 2)


def several_outputs(x):
    doubled, total, is_large = jax.jit(lambda x: (x * 2, x.sum(), x > 1))(x)
    return total**2 + jnp.where(is_large, doubled, 0).sum()


def scanned(x):
    last, steps = lax.scan(lambda c, v: (c * v + jnp.sin(c) + x.sum(), c), x[0], x)
    return last + steps.sum()


def branched(x):
    return lax.cond(x[0] > 0, lambda: jnp.sum(x**3), lambda: x[0])


def looped(x):
    return lax.fori_loop(0, 3, lambda _, c: c * jnp.sin(x).sum(), x[0])


def rematerialised(x):
    return jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)).sum() * y[0])(x)


def mapped(x):
    return jax.vmap(lambda a: jnp.sin(a) * x.sum())(x).sum() ** 2


def gradient_within(x):
    return jax.grad(lambda a: jnp.sum(jnp.sin(a) * x))(x * x).sum()


def forward_mode_within(x):
    return jax.jvp(lambda a: jnp.sum(jnp.sin(a) * x), (x * x,), (x,))[1]


def linear_algebra(x):
    a = jnp.outer(x, x) + jnp.eye(4)
    return jnp.linalg.det(a) + jnp.linalg.norm(x) + jnp.linalg.solve(a, x).sum()


def root(x):
    def solve(f, y):
        return lax.fori_loop(0, 20, lambda _, y: y - f(y) / (2 * y), y)

    return lax.custom_root(lambda y: y**2 - x.sum(), x[0], solve, lambda g, y: y / g(1.0))


def on_devices(x):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    square = jax.shard_map(lambda a: a**2, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    return square(x).sum() * jax.jit(square)(x).prod()


PROGRAMS = {
    "layers": layers,
    "elements": loop_over_elements,
    "updates": updates,
    "several outputs": several_outputs,
    "custom_vjp of the identity": lambda x: jnp.sum(reversed_gradient(jnp.sin(x)) * 3),
    "custom_jvp": lambda x: jnp.sum(sine_of_slope_five(x) * x),
    "custom_gradient": lambda x: jnp.sum(seven_squares(x) * x),
    "custom_gradient of the identity": lambda x: jnp.sum(seven_times(x) * x),
    "custom_jvp of jax": lambda x: jax.nn.softplus(x).sum() * jax.nn.relu(x - 0.5).sum(),
    "scan": scanned,
    "cond": branched,
    "fori_loop": looped,
    "checkpoint": rematerialised,
    "vmap": mapped,
    "grad": gradient_within,
    "jvp": forward_mode_within,
    "linalg": linear_algebra,
    "custom_root": root,
    "shard_map": on_devices,
    "stop_gradient": lambda x: jnp.sum(lax.stop_gradient(x) * x),
    "copies": lambda x: (jnp.array(x) * jnp.copy(x) * x.copy() * jax.device_put(x)).sum(),
    "lower precision": lambda x: (x.astype(jnp.bfloat16) * 2).astype(jnp.float32).sum() ** 2,
    "sort": lambda x: jnp.sort(jnp.sin(5 * x))[1] * lax.top_k(x, 2)[0].sum(),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)).sum(),
    "powers": lambda x: (x**3 + x**-1 + x**0.5 + 2.0**x).sum(),
    "numpy operands": lambda x: (np.arange(4, dtype=np.float32) * x + np.float32(2) * x).prod(),
}
