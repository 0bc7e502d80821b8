"""Planted wrong gradients, with the kind of finding that must name each."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.entries import (
    ONES,
    Entry,
    bfloat16_mean,
    complex_normal,
    float32_scan,
    normal,
    with_rule,
)


@jax.custom_jvp
def jvp_of_half(x):
    return x * x


jvp_of_half.defjvps(lambda x_dot, y, x: x * x_dot)


@jax.custom_jvp
def two_faced(x):
    """Right in forward mode, twice too large in reverse mode."""
    return x * x


@two_faced.defjvp
def _two_faced_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    y_dot = jax.custom_derivatives.linear_call(
        lambda x, x_dot: 2 * x * x_dot, lambda x, y_bar: 4 * x * y_bar, x, x_dot
    )
    return x * x, y_dot


def _changed_value(x):
    return x * x + 1e-3, (x,)


WRONG = [
    Entry(
        "factor 2",
        with_rule(jnp.sin, lambda r, g: (2 * jnp.cos(r[0]) * g,)),
        (normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "sign",
        with_rule(jnp.sin, lambda r, g: (-jnp.cos(r[0]) * g,)),
        (normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "dropped term",
        with_rule(lambda x: x * jnp.sin(x), lambda r, g: (r[0] * jnp.cos(r[0]) * g,)),
        (normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "zero",
        with_rule(jnp.tanh, lambda r, g: (jnp.zeros_like(g),)),
        (normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "off by 1e-4",
        with_rule(jnp.sin, lambda r, g: (1.0001 * jnp.cos(r[0]) * g,)),
        (normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "one number of 1000",
        with_rule(
            lambda x: jnp.sin(x).sum(), lambda r, g: ((jnp.cos(r[0]) * g).at[77].multiply(1.01),)
        ),
        (normal(1000),),
        kinds=("gradient",),
    ),
    Entry(
        "ignored argument",
        with_rule(lambda a, b: a * b, lambda r, g: (r[1] * g, None)),
        (normal(3), normal(3)),
        kinds=("gradient",),
    ),
    Entry(
        "small leaf",
        with_rule(
            lambda a, b: 1e3 * a.sum() + jnp.sum(b * b),
            lambda r, g: (jnp.full_like(r[0], 1e3) * g, r[1] * g),
        ),
        (1e3 * normal(4), normal(3)),
        kinds=("gradient",),
    ),
    Entry(
        "small output",
        with_rule(lambda x: (1e6 * x, 1e-6 * x), lambda r, g: (1e6 * g[0] + 2e-6 * g[1],)),
        (normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "sum for mean",
        with_rule(lambda x: jnp.mean(x * x), lambda r, g: (2 * r[0] * g,)),
        (normal(7),),
        kinds=("gradient",),
    ),
    Entry(
        "transposed",
        with_rule(jnp.matmul, lambda r, g: (r[1] @ g.T, r[0].T @ g)),
        (normal(3, 3), normal(3, 3)),
        kinds=("gradient",),
    ),
    Entry(
        "complex conjugate",
        with_rule(lambda z: z * z, lambda r, g: (jnp.conj(2 * r[0]) * g,)),
        (complex_normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "tiny numbers",
        with_rule(lambda x: x * x, lambda r, g: (4 * r[0] * g,)),
        (1e-15 * normal(3),),
        kinds=("gradient",),
    ),
    Entry(
        "straight through",
        with_rule(lambda x: jnp.round(x), lambda r, g: (g,)),
        (normal(4),),
        kinds=("gradient",),
    ),
    Entry(
        "factor 2 in bfloat16",
        with_rule(
            bfloat16_mean,
            lambda r, g: (
                jnp.full_like(r[0], 1 / 32) * g @ jnp.ones((16, 16)),
                jnp.zeros_like(r[1]),
            ),
        ),
        (normal(8, 16), normal(16, 8)),
        kinds=("gradient",),
    ),
    Entry(
        "float32 only",
        with_rule(float32_scan, lambda r, g: (g * jnp.cos(r[0]),)),
        (normal(4),),
        kinds=("gradient",),
    ),
    Entry("forward mode", jvp_of_half, (normal(3),), kinds=("gradient",)),
    Entry(
        "affine",
        with_rule(lambda x: x * x, lambda r, g: (2 * r[0] * g + 1,)),
        (normal(3),),
        kinds=("linearity",),
    ),
    Entry(
        "constant",
        with_rule(lambda x: x * x, lambda r, g: (2 * r[0],)),
        (ONES,),
        kinds=("linearity",),
    ),
    Entry(
        "clipped",
        with_rule(lambda x: x * x, lambda r, g: (jnp.clip(2 * r[0] * g, -1, 1),)),
        (normal(3),),
        kinds=("linearity",),
    ),
    Entry(
        "sign of the cotangent",
        with_rule(jnp.tanh, lambda r, g: ((1 - jnp.tanh(r[0]) ** 2) * jnp.sign(g),)),
        (normal(3),),
        kinds=("linearity",),
    ),
    Entry(
        "integer cotangent",
        with_rule(lambda x: x * x, lambda r, g: ((2 * r[0] * g).astype(jnp.int32),)),
        (normal(3),),
        kinds=("structure",),
    ),
    Entry(
        "float16 cotangent",
        with_rule(lambda x: x * x, lambda r, g: ((2 * r[0] * g).astype(jnp.float16),)),
        (normal(3),),
        kinds=("structure",),
    ),
    Entry(
        "rounded to bfloat16",
        with_rule(
            lambda x: x * x, lambda r, g: ((2 * r[0] * g).astype(jnp.bfloat16).astype(g.dtype),)
        ),
        (normal(3),),
        kinds=("precision",),
    ),
    Entry(
        "wrong shape",
        with_rule(lambda x: x * x, lambda r, g: (g[:2],)),
        (normal(3),),
        kinds=("error",),
    ),
    Entry(
        "raises", with_rule(lambda x: x * x, lambda r, g: 1 // 0), (normal(3),), kinds=("error",)
    ),
    Entry(
        "changed value",
        with_rule(lambda x: x * x, lambda r, g: (2 * r[0] * g,), _changed_value),
        (normal(3),),
        kinds=("value",),
    ),
    Entry(
        "nan behind where",
        lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0),
        (np.array([-1.0, 1.0], np.float32),),
        kinds=("nonfinite",),
    ),
    Entry("norm at the origin", jnp.linalg.norm, (np.zeros(3, np.float32),), kinds=("nonfinite",)),
    Entry(
        "overflow in float32",
        with_rule(jax.nn.softplus, lambda r, g: (g * jnp.exp(r[0]) / (1 + jnp.exp(r[0])),)),
        (np.array([100.0, 1.0], np.float32),),
        kinds=("nonfinite",),
    ),
    Entry(
        "outside at a kink",
        with_rule(jnp.abs, lambda r, g: (jnp.where(r[0] == 0, 5.0, jnp.sign(r[0])) * g,)),
        (np.array([0.0, 1.0], np.float32),),
        kinds=("kink",),
    ),
    Entry(
        "tie counted twice",
        with_rule(jnp.maximum, lambda r, g: ((r[0] >= r[1]) * g, (r[1] >= r[0]) * g)),
        (ONES, ONES),
        kinds=("kink",),
    ),
    Entry(
        "wrong at one point",
        with_rule(lambda x: x * x + x, lambda r, g: (jnp.where(r[0] == 0, 0.0, 2 * r[0] + 1) * g,)),
        (np.zeros(2, np.float32),),
        kinds=("isolated",),
    ),
    Entry("modes that differ", two_faced, (normal(3),), kinds=("adjoint",)),
]
