"""Wrong for large, tiny or far inputs only."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import FINE, entry, jvp_rule, normal, registered, values, vjp_rule

far = functools.partial(entry, wrong=True, family="far region")
magnitude = functools.partial(entry, wrong=True, family="magnitude")


def huber(x):
    size = jnp.abs(x)
    return jnp.where(size <= 1, 0.5 * x**2, size - 0.5)


def clip(x):
    return jnp.clip(x, -2, 2)


def hard_tanh(x):
    return jnp.clip(x, -1, 1)


def table_lookup(x):
    table = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.5], x.dtype)
    return jnp.interp(x, jnp.arange(5).astype(x.dtype), table)


@gradkit.custom_gradient
def table_lookup_extrapolated(x):
    table = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.5], x.dtype)
    left = jnp.clip(jnp.floor(x), 0, 3).astype(int)
    return table_lookup(x), lambda y_bar: (table[left + 1] - table[left]) * y_bar


def bump(x):
    inside = jnp.abs(x) < 1
    safe = jnp.where(inside, x, 0)
    return jnp.where(inside, jnp.exp(-1 / (1 - safe**2)), 0)


def _bump_bwd_leaking(residuals, y_bar):
    (x,) = residuals
    slope = -2 * x / (1 - x**2) ** 2
    return slope * jnp.exp(-1 / jnp.abs(1 - x**2)) * y_bar


def project_to_ball(x):
    norm = jnp.sqrt(jnp.sum(x**2))
    return x * jnp.minimum(1, 1 / jnp.maximum(norm, 1e-6))


def _project_bwd_of_identity(residuals, y_bar):
    (x,) = residuals
    norm = jnp.sqrt(jnp.sum(x**2))
    return y_bar * jnp.minimum(1, 1 / jnp.maximum(norm, 1e-6))


def square_with_linear_tail(x):
    return jnp.where(x > 3, 6 * x - 9, x**2)


def periodic(x):
    return jnp.sin(jnp.remainder(x, 2 * jnp.pi))


def spline(x):
    """Natural pieces on [0, 1] and [1, 2], smooth at 1."""
    t = x - 1
    return jnp.where(x < 1, x**3, 1 + 3 * t + 3 * t**2 - t**3)


def pair_energy(x):
    """Lennard-Jones-like energy with a smooth cut-off at 4."""
    r2 = jnp.sum(x**2)
    return jnp.where(r2 < 16, (1 - r2 / 16) ** 2 / (1 + r2), 0)


def _pair_energy_bwd_with_early_cutoff(residuals, y_bar):
    (x,) = residuals
    r2 = jnp.sum(x**2)
    q = 1 - r2 / 16
    slope = -2 * q / 16 / (1 + r2) - q**2 / (1 + r2) ** 2
    return jnp.where(r2 < 9, 2 * slope * x, 0) * y_bar


def softplus(x):
    return jax.nn.softplus(x)


def log_cosh(x):
    return jnp.logaddexp(x, -x)


def expm1_ratio(x):
    small = jnp.abs(x) < 1e-2
    safe = jnp.where(small, 1, x)
    return jnp.where(small, 1 + x / 2 + x**2 / 6, jnp.expm1(safe) / safe)


def _expm1_ratio_tangent(x, t):
    (x,), (t,) = x, t
    small = jnp.abs(x) < 1e-2
    safe = jnp.where(small, 1, x)
    slope = (safe * jnp.exp(safe) - jnp.expm1(safe)) / safe**2
    return jnp.where(small, 1.0, slope) * t  # 1 + x / 2 was meant for the value


def cubic_loss(x):
    return jnp.sum(jnp.abs(x) ** 3)


def rms(x):
    return jnp.sqrt(jnp.mean(x**2) + 1e-12)


def _rms_bwd_with_large_epsilon(residuals, y_bar):
    (x,) = residuals
    return x / x.size / jnp.sqrt(jnp.mean(x**2) + 1e-4) * y_bar


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def _gelu_bwd_with_tails_cut(residuals, y_bar):
    (x,) = residuals
    cdf = 0.5 * (1 + lax.erf(x / 1.4142135623730951))
    density = 0.3989422804014327 * jnp.exp(-0.5 * x**2)
    slope = jnp.where(x > 4, 0, cdf + x * density)
    return slope * y_bar


def square_root(x):
    return jnp.sqrt(x)


def quadratic(x):
    return 0.5 * x**2


ENTRIES = [
    far(
        "Huber loss: quadratic everywhere in the backward pass",
        vjp_rule(huber, lambda r, g: r[0] * g),
        values([0.5, -0.25]),
        reference=huber,
        where=(values([0.5, -3.0]),),
    ),
    far(
        "clip: the gradient leaks beyond the bounds",
        vjp_rule(clip, lambda r, g: jnp.where(jnp.abs(r[0]) < 2, g, 0.3 * g)),
        values([0.5, -1.5]),
        reference=clip,
        where=(values([0.5, -3.0]),),
    ),
    far(
        "hard tanh: straight through, also outside",
        registered("BankHardTanh", hard_tanh, lambda op, g: g),
        values([0.5, -0.25, 0.75]),
        reference=hard_tanh,
        where=(values([0.5, -3.0, 0.75]),),
    ),
    far(
        "table: extrapolated beyond its last entry",
        table_lookup_extrapolated,
        values([0.5, 2.25]),
        reference=table_lookup,
        where=(values([0.5, 5.5]),),
        dtypes=FINE,
    ),
    far(
        "bump: the gradient does not end with its support",
        vjp_rule(bump, _bump_bwd_leaking),
        values([0.5, -0.25]),
        reference=bump,
        where=(values([0.5, 1.75]),),
    ),
    far(
        "projection to the ball: outside, only the scaling is differentiated",
        vjp_rule(project_to_ball, _project_bwd_of_identity),
        values([0.5, -0.25]),
        reference=project_to_ball,
        where=(values([1.0, -2.0]),),
    ),
    far(
        "square with a linear tail: a slope of 2 x in the tail",
        vjp_rule(square_with_linear_tail, lambda r, g: 2 * r[0] * g),
        values([0.5, 1.0]),
        reference=square_with_linear_tail,
        where=(values([0.5, 9.0]),),
    ),
    far(
        "periodic sine: nothing beyond the first period",
        vjp_rule(
            periodic,
            lambda r, g: jnp.where((r[0] >= 0) & (r[0] < 2 * jnp.pi), jnp.cos(r[0]) * g, 0),
        ),
        values([0.5, 2.0]),
        reference=periodic,
        where=(values([0.5, 6.5]),),
    ),
    far(
        "spline: the second piece's derivative is that of the first",
        vjp_rule(spline, lambda r, g: 3 * r[0] ** 2 * g),
        values([0.5, 0.25]),
        reference=spline,
        where=(values([0.5, 2.0]),),
    ),
    far(
        "pair energy: the force is cut off early",
        vjp_rule(pair_energy, _pair_energy_bwd_with_early_cutoff),
        normal(3),
        reference=pair_energy,
        where=(values([2.0, 2.0, 1.5]),),
    ),
    far(
        "square: outliers beyond 100 count half",
        gradkit.custom_gradient(
            lambda x: (quadratic(x), lambda g: jnp.where(jnp.abs(x) > 100, 0.5, 1.0) * x * g)
        ),
        normal(3),
        reference=quadratic,
        where=(values([0.5, 300.0, -1.0]),),
    ),
    magnitude(
        "softplus: no slope beyond 20",
        vjp_rule(softplus, lambda r, g: jnp.where(r[0] > 20, 0, jax.nn.sigmoid(r[0])) * g),
        normal(3),
        reference=softplus,
        where=(values([25.0, 0.5]),),
    ),
    magnitude(
        "log cosh: tanh by three terms of its series",
        vjp_rule(
            log_cosh,
            lambda r, g: jnp.where(jnp.abs(r[0]) < 30, jnp.tanh(r[0]), r[0] - r[0] ** 3 / 3) * g,
        ),
        normal(3),
        reference=log_cosh,
        where=(values([45.0, 0.5]),),
    ),
    magnitude(
        "(exp(x) - 1) / x: for tiny x the slope is the value",
        jvp_rule(expm1_ratio, _expm1_ratio_tangent),
        normal(3),
        reference=expm1_ratio,
        where=(values([1e-3, 0.5]),),
    ),
    magnitude(
        "cubes: gradients of tiny elements are flushed to zero",
        vjp_rule(
            cubic_loss,
            lambda r, g: jnp.where(jnp.abs(r[0]) < 1e-3, 0, 3 * r[0] * jnp.abs(r[0])) * g,
        ),
        normal(3),
        reference=cubic_loss,
        where=(values([2e-4, -3e-4, 1e-4]),),
    ),
    magnitude(
        "root mean square: an epsilon that counts for small inputs",
        vjp_rule(rms, _rms_bwd_with_large_epsilon),
        normal(4, scale=100.0),
        reference=rms,
        where=(normal(4, scale=1e-2),),
        dtypes=FINE,
    ),
    magnitude(
        "gelu: beyond 4 the slope is zero instead of one",
        vjp_rule(gelu, _gelu_bwd_with_tails_cut),
        normal(3),
        reference=gelu,
        where=(values([0.5, 6.0, 1.0]),),
    ),
    magnitude(
        "square root: the slope is capped at 100",
        vjp_rule(square_root, lambda r, g: jnp.minimum(0.5 / jnp.sqrt(r[0]), 100) * g),
        values([0.5, 2.0]),
        reference=square_root,
        where=(values([1e-6, 2.0]),),
    ),
]
