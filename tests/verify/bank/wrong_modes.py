"""Forward and reverse mode disagree, or a linear operator's transpose is another's."""

import functools

import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import linear_call

from tests.verify.bank.entry import (
    FINE,
    entry,
    jvp_rule,
    normal,
    uniform,
    values,
    vjp_rule,
    well_conditioned,
)

wrong = functools.partial(entry, wrong=True, family="modes disagree")


def linear(apply, transpose, residuals=()):
    """A function that is linear, with a transpose that somebody has written."""
    return lambda x: linear_call(apply, transpose, residuals, x)


def mean_pool(x):
    return x.reshape(-1, 2).mean(axis=1)


def reversed_difference(x):
    return x[1:] - x[:-1]


def masked(x):
    return x * (jnp.arange(x.size) % 3 != 1)


def solve(a, b):
    return jnp.linalg.solve(a, b)


def solve_with_own_transpose(a, b):
    """The transposed system is solved with the matrix itself."""
    return lax.custom_linear_solve(
        lambda x: a @ x,
        b,
        solve=lambda matvec, b: jnp.linalg.solve(lax.stop_gradient(a), b),
        transpose_solve=lambda vecmat, b: jnp.linalg.solve(lax.stop_gradient(a), b),
    )


def solve_claimed_symmetric(a, b):
    return lax.custom_linear_solve(
        lambda x: a @ x,
        b,
        solve=lambda matvec, b: jnp.linalg.solve(lax.stop_gradient(a), b),
        symmetric=True,
    )


def cubic_root_without_solve(a):
    """The linear system of the implicit function theorem is skipped."""

    def newton(f, x):
        def step(x, _):
            return x - f(x) / (3 * x**2 + 1), None

        return lax.scan(step, x, None, length=30)[0]

    return lax.custom_root(lambda x: x**3 + x - a, jnp.full_like(a, 0.5), newton, lambda g, y: y)


def cubic_root_in_closed_form(a):
    """Cardano's formula, for an independent value."""
    root = jnp.sqrt(a**2 / 4 + 1 / 27)
    return jnp.cbrt(a / 2 + root) + jnp.cbrt(a / 2 - root)


def hypotenuse(x, y):
    return jnp.sqrt(x**2 + y**2)


def _hypotenuse_tangent(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    # Written for the reverse mode of a loss that is symmetric in x and y.
    return (x * y_dot + y * x_dot) / hypotenuse(x, y)


def tanh(x):
    return jnp.tanh(x)


def pooled_sine(x):
    return mean_pool(jnp.sin(x))


def _pooled_sine_tangent(primals, tangents):
    """Right forward; the transpose sums where it should average."""
    spread = linear(lambda _, x: mean_pool(x), lambda _, y_bar: jnp.repeat(y_bar, 2))
    return spread(jnp.cos(primals[0]) * tangents[0])


def summed_sine(x):
    return jnp.cumsum(jnp.sin(x))


def _summed_sine_tangent(primals, tangents):
    """Right in reverse; forward it runs backwards."""
    run = linear(lambda _, x: jnp.cumsum(x[::-1]), lambda _, y_bar: jnp.cumsum(y_bar[::-1])[::-1])
    return run(jnp.cos(primals[0]) * tangents[0])


def laplacian(x):
    return -2 * x + jnp.roll(x, 1) + jnp.roll(x, -1)


def upwind(x):
    return x - jnp.roll(x, 1)


ENTRIES = [
    wrong(
        "mean pooling as a linear call: its transpose lacks the half",
        linear(lambda _, x: mean_pool(x), lambda _, y_bar: jnp.repeat(y_bar, 2)),
        normal(6),
        reference=mean_pool,
    ),
    wrong(
        "cumulative sum as a linear call: its own transpose",
        linear(lambda _, x: jnp.cumsum(x), lambda _, y_bar: jnp.cumsum(y_bar)),
        normal(5),
        reference=jnp.cumsum,
    ),
    wrong(
        "differences as a linear call: the transpose has the opposite sign",
        linear(
            lambda _, x: reversed_difference(x),
            lambda _, y_bar: jnp.pad(y_bar, (0, 1)) - jnp.pad(y_bar, (1, 0)),
        ),
        normal(6),
        reference=reversed_difference,
    ),
    wrong(
        "mask as a linear call: the transpose keeps everything",
        linear(lambda _, x: masked(x), lambda _, y_bar: y_bar),
        normal(7),
        reference=masked,
    ),
    wrong(
        "upwind differences as a linear call: taken for symmetric",
        linear(lambda _, x: upwind(x), lambda _, y_bar: upwind(y_bar)),
        normal(6),
        reference=upwind,
    ),
    wrong(
        "custom_linear_solve: the transposed system is solved with the matrix itself",
        solve_with_own_transpose,
        well_conditioned(4),
        normal(4),
        reference=solve,
        dtypes=FINE,
    ),
    wrong(
        "custom_linear_solve: the matrix is not symmetric",
        solve_claimed_symmetric,
        well_conditioned(3),
        normal(3),
        reference=solve,
        dtypes=FINE,
    ),
    wrong(
        "custom_root: the tangent is not solved for",
        cubic_root_without_solve,
        values([1.0, 3.0]),
        reference=cubic_root_in_closed_form,
    ),
    wrong(
        "hypotenuse: the tangents are exchanged",
        jvp_rule(hypotenuse, _hypotenuse_tangent),
        normal(4),
        normal(4),
        reference=hypotenuse,
    ),
    wrong(
        "tanh: a JVP that adds the tangent to the slope, which transposing loses",
        jvp_rule(tanh, lambda x, t: (1 - jnp.tanh(x[0]) ** 2) * t[0] + 0.5),
        normal(4),
        reference=tanh,
        shows="forward",
    ),
    wrong(
        "tanh: a JVP of the tangent's size",
        jvp_rule(tanh, lambda x, t: (1 - jnp.tanh(x[0]) ** 2) * jnp.abs(t[0])),
        normal(4),
        reference=tanh,
        shows="forward",
        options={"modes": ("forward",)},
    ),
    wrong(
        "pooled sine: the JVP is right, its transpose sums",
        jvp_rule(pooled_sine, _pooled_sine_tangent),
        normal(6),
        reference=pooled_sine,
    ),
    wrong(
        "running sum of sines: only forward mode runs backwards",
        jvp_rule(summed_sine, _summed_sine_tangent),
        normal(5),
        reference=summed_sine,
        shows="forward",
    ),
    wrong(
        "logarithm: the JVP multiplies where it should divide",
        jvp_rule(jnp.log, lambda x, t: x[0] * t[0]),
        uniform(4, low=0.25, high=3.0),
        reference=jnp.log,
    ),
    wrong(
        "Laplacian: the backward pass uses another boundary",
        vjp_rule(
            laplacian,
            lambda r, g: -2 * g + jnp.roll(g, 1).at[0].set(0) + jnp.roll(g, -1).at[-1].set(0),
        ),
        normal(8),
        reference=laplacian,
    ),
]
