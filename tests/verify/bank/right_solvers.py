"""Iterative solvers and implicit differentiation."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import (
    FINE,
    entry,
    normal,
    positive_definite,
    uniform,
    values,
    vjp_rule,
    well_conditioned,
)

right = functools.partial(entry, wrong=False, family="solvers", dtypes=FINE)


def newton_root(a):
    """The root of x^3 + x = a, to a tolerance."""

    def unfinished(state):
        x, before = state
        return jnp.max(jnp.abs(x - before) / (1 + jnp.abs(x))) > 1e-6

    def step(state):
        x, _ = state
        return x - (x**3 + x - a) / (3 * x**2 + 1), x

    return lax.while_loop(unfinished, step, (a / 2, a / 2 + 1))[0]


def _newton_root_bwd(residuals, x_bar):
    x = newton_root(*residuals)
    return x_bar / (3 * x**2 + 1)


def cardano_root(a):
    root = jnp.sqrt(a**2 / 4 + 1 / 27)
    return jnp.cbrt(a / 2 + root) + jnp.cbrt(a / 2 - root)


def bisect_root(a):
    """The same root by 60 halvings, which no gradient flows through."""

    def step(bracket, _):
        low, high = bracket
        middle = 0.5 * (low + high)
        above = middle**3 + middle > a
        return (jnp.where(above, low, middle), jnp.where(above, middle, high)), None

    reach = jnp.abs(a) + 1
    low, high = lax.scan(step, (-reach, reach), None, length=60)[0]
    return 0.5 * (low + high)


def kepler(mean_anomaly, eccentricity):
    """E - e sin E = M, by 40 steps of Newton."""

    def step(e, _):
        slope = 1 - eccentricity * jnp.cos(e)
        return e - (e - eccentricity * jnp.sin(e) - mean_anomaly) / slope, None

    return lax.scan(step, mean_anomaly, None, length=40)[0]


@gradkit.custom_gradient
def kepler_implicit(mean_anomaly, eccentricity):
    e = kepler(mean_anomaly, eccentricity)

    def grad(e_bar):
        inner = e_bar / (1 - eccentricity * jnp.cos(e))
        return inner, jnp.sin(e) * inner

    return e, grad


def is_an_ellipse(mean_anomaly, eccentricity):
    return bool((abs(eccentricity) < 0.7).all())


def equilibrium(w, x):
    """z = tanh(w z + x), to a tolerance: a deep equilibrium layer."""

    def step(state):
        z, _, count = state
        return jnp.tanh(w @ z + x), z, count + 1

    def unfinished(state):
        z, before, count = state
        return (jnp.sum(jnp.abs(z - before)) > 1e-6) & (count < 100)

    return lax.while_loop(unfinished, step, (jnp.zeros_like(x), jnp.ones_like(x), 0))[0]


def is_contracting(w, x):
    return bool(jnp.sum(w**2) < 0.5)


def equilibrium_unrolled(w, x):
    return lax.scan(lambda z, _: (jnp.tanh(w @ z + x), None), jnp.zeros_like(x), None, length=60)[0]


def _equilibrium_bwd(residuals, z_bar):
    w, x = residuals
    z = equilibrium(w, x)
    slope = 1 - z**2
    inner = jnp.linalg.solve(jnp.eye(x.size, dtype=x.dtype) - (slope[:, None] * w).T, z_bar) * slope
    return jnp.outer(inner, z), inner


def root_by_custom_root(a):
    def newton(f, x):
        return lax.scan(lambda x, _: (x - f(x) / (3 * x**2 + 1), None), x, None, length=40)[0]

    return lax.custom_root(
        lambda x: x**3 + x - a, jnp.full_like(a, 0.5), newton, lambda g, y: y / g(jnp.ones_like(y))
    )


def solve_by_custom_linear_solve(a, b):
    return lax.custom_linear_solve(
        lambda x: a @ x,
        b,
        solve=lambda matvec, b: jnp.linalg.solve(lax.stop_gradient(a), b),
        transpose_solve=lambda vecmat, b: jnp.linalg.solve(lax.stop_gradient(a).T, b),
    )


def ridge_regression(x, y, strength):
    """The minimiser, by gradient descent that is differentiated step by step."""
    gram = x.T @ x + jnp.exp(strength) * jnp.eye(x.shape[1], dtype=x.dtype)

    def step(w, _):
        return w - 0.02 * (gram @ w - x.T @ y), None

    return lax.scan(step, jnp.zeros_like(x[0]), None, length=30)[0]


def argmin_of_quadratic(a, b):
    """The minimiser of x a x / 2 - b x, by its optimality condition."""
    return jnp.linalg.solve(0.5 * (a + a.T), b)


def _argmin_bwd(residuals, x_bar):
    a, b = residuals
    b_bar = argmin_of_quadratic(a, x_bar)
    a_bar = -jnp.outer(b_bar, argmin_of_quadratic(a, b))
    return 0.5 * (a_bar + a_bar.T), b_bar


def sinkhorn(cost):
    def step(f, _):
        g = -jax.nn.logsumexp(f[:, None] - 2 * cost, axis=0)
        return -jax.nn.logsumexp(g[None, :] - 2 * cost, axis=1), None

    f = lax.scan(step, jnp.zeros_like(cost[:, 0]), None, length=100)[0]
    return jnp.sum(jnp.exp(f) * cost[:, 0])


def power_iteration(a):
    symmetric = 0.5 * (a + a.T)

    def step(v, _):
        v = symmetric @ v
        return v / jnp.linalg.norm(v), None

    v = lax.scan(step, jnp.ones_like(a[0]), None, length=60)[0]
    return v @ symmetric @ v


def inverse_of_monotone(y):
    """x + 0.5 sin x = y, by a fixed point with an implicit JVP rule."""
    return lax.scan(lambda x, _: (y - 0.5 * jnp.sin(x), None), y, None, length=80)[0]


@jax.custom_jvp
def inverse_with_rule(y):
    return inverse_of_monotone(y)


@inverse_with_rule.defjvp
def _inverse_jvp(primals, tangents):
    (y,), (y_dot,) = primals, tangents
    x = inverse_with_rule(y)
    return x, y_dot / (1 + 0.5 * jnp.cos(x))


ENTRIES = [
    right(
        "root by Newton to a tolerance, implicit rule",
        vjp_rule(newton_root, _newton_root_bwd),
        values([1.0, 3.0, -2.0]),
        reference=cardano_root,
    ),
    right(
        "root by bisection, implicit rule",
        vjp_rule(bisect_root, lambda r, g: g / (3 * bisect_root(*r) ** 2 + 1)),
        values([1.0, 3.0, -2.0]),
        reference=cardano_root,
    ),
    right(
        "Kepler's equation, differentiated through Newton's steps",
        kepler,
        uniform(3, high=3.0),
        uniform(3, low=0.1, high=0.6),
        options={"domain": is_an_ellipse},
    ),
    right(
        "Kepler's equation, implicit rule",
        kepler_implicit,
        uniform(3, high=3.0),
        uniform(3, low=0.1, high=0.6),
        reference=kepler,
        options={"domain": is_an_ellipse},
    ),
    right(
        "equilibrium to a tolerance, implicit rule",
        vjp_rule(equilibrium, _equilibrium_bwd),
        normal(3, 3, scale=0.2),
        normal(3),
        reference=equilibrium_unrolled,
        options={"domain": is_contracting},
        accuracy=1e-4,
    ),
    right("custom_root", root_by_custom_root, values([1.0, 3.0]), reference=cardano_root),
    right(
        "custom_linear_solve",
        solve_by_custom_linear_solve,
        well_conditioned(4),
        normal(4),
        reference=jnp.linalg.solve,
    ),
    right(
        "gradient descent on ridge regression, unrolled",
        ridge_regression,
        normal(6, 3),
        normal(6),
        values(0.5),
    ),
    right(
        "argument of a minimum, implicit rule",
        vjp_rule(argmin_of_quadratic, _argmin_bwd),
        positive_definite(3),
        normal(3),
        reference=argmin_of_quadratic,
    ),
    right("Sinkhorn's iteration", sinkhorn, uniform(3, 4)),
    right(
        "power iteration",
        power_iteration,
        values([[3.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 0.5]]),
    ),
    right(
        "inverse function by a fixed point, implicit JVP, second order",
        inverse_with_rule,
        values([0.5, 2.0, -1.0]),
        reference=inverse_of_monotone,
        options={"order": 2},
    ),
]
