"""Steep, curved and oscillating functions; tiny, huge and mixed magnitudes; many inputs."""

import functools

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import (
    FINE,
    FLOAT64,
    entry,
    jvp_rule,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
)

steep = functools.partial(entry, wrong=False, family="steep or oscillating")
scale = functools.partial(entry, wrong=False, family="tiny or huge")
large = functools.partial(entry, wrong=False, family="many inputs")


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def polynomial(x):
    """Chebyshev's polynomial of degree 12, by recurrence."""
    before, now = jnp.ones_like(x), x
    for _ in range(11):
        before, now = now, 2 * x * now - before
    return now


def lorentzian(x):
    return 1 / (1 + (1000 * (x - 0.5)) ** 2)


def planck(x):
    return x**3 / jnp.expm1(x)


def lennard_jones(x):
    r6 = jnp.sum(x**2, axis=-1) ** 3
    return jnp.sum(1 / r6**2 - 1 / r6)


def log_mean_exp_sharp(x):
    return jax.nn.logsumexp(200 * x) / 200


def two_leaves(params):
    return jnp.sum(params["huge"] ** 2) * 1e-8 + jnp.sum(jnp.sin(params["tiny"] * 1e4))


def energy_in_si_units(mass, velocity):
    return 0.5 * mass * jnp.sum(velocity**2)


@gradkit.custom_gradient
def gravity(m1, m2, r):
    pull = 6.674e-11 / r**2

    def grad(y_bar):
        return pull * m2 * y_bar, pull * m1 * y_bar, -2 * pull * m1 * m2 / r * y_bar

    return pull * m1 * m2, grad


def gravity_plain(m1, m2, r):
    return 6.674e-11 * m1 * m2 / r**2


def mlp(params, x):
    for w in params:
        x = jnp.tanh(x @ w)
    return jnp.sum(x**2)


def neighbours(x):
    return jnp.sum((x[1:] - x[:-1]) ** 2 * x[1:])


def softmax_loss(x):
    return jax.nn.logsumexp(x) - x[17]


def image_gradient_energy(image):
    across, down = image[:, 1:] - image[:, :-1], image[1:] - image[:-1]
    return jnp.sqrt(jnp.sum(across**2) + jnp.sum(down**2) + 1e-3)


def cube_sum(x):
    return jnp.sum(x**3)


def outer_energy(x, y):
    return jnp.sum(jnp.tanh(jnp.outer(x, y)))


ENTRIES = [
    steep("exponential of 50 x", lambda x: jnp.exp(50 * x), uniform(3), dtypes=FINE),
    steep("sine of 1,000 x", lambda x: jnp.sin(1000 * x), normal(3), dtypes=(FLOAT64,)),
    steep("sine of 200 x", lambda x: jnp.sin(200 * x), uniform(4), dtypes=FINE),
    steep(
        "chirp sin(1 / x) near zero",
        lambda x: jnp.sin(1 / x),
        values([0.02, 0.05, 0.3]),
        dtypes=FINE,
    ),
    steep("tangent near its pole", jnp.tan, values([1.5, -1.55, 1.57]), dtypes=FINE),
    steep("reciprocal near its pole", lambda x: 1 / x, values([1e-3, -2e-3, 0.5]), dtypes=FINE),
    steep("20th power", lambda x: x**20, values([0.5, 1.25, -1.5])),
    steep(
        "tanh of 100 x around its step",
        lambda x: jnp.tanh(100 * x),
        values([0.0, 0.005, -0.01]),
        dtypes=FINE,
    ),
    steep("Rosenbrock's valley", rosenbrock, normal(5), dtypes=FINE),
    steep(
        "Chebyshev polynomial of degree 12", polynomial, uniform(4, low=-1.0, high=1.0), dtypes=FINE
    ),
    steep("Lorentzian peak of width 1 / 1,000", lorentzian, values([0.5, 0.501, 0.3]), dtypes=FINE),
    steep(
        "logsumexp sharpened 200 times", log_mean_exp_sharp, values([0.5, 0.51, 0.3]), dtypes=FINE
    ),
    steep(
        "Lennard-Jones energy at short distance",
        lennard_jones,
        uniform(3, 3, low=0.4, high=0.6),
        dtypes=FINE,
    ),
    steep(
        "product of steep rules",
        vjp_rule(
            lambda x: jnp.exp(30 * x) * jnp.sin(90 * x),
            lambda r, g: (
                jnp.exp(30 * r[0]) * (30 * jnp.sin(90 * r[0]) + 90 * jnp.cos(90 * r[0])) * g
            ),
        ),
        uniform(3, low=-0.5, high=0.5),
        reference=lambda x: jnp.exp(30 * x) * jnp.sin(90 * x),
        dtypes=FINE,
    ),
    scale("squares of 1e-15", lambda x: x**2, values([1e-15, -3e-15, 2e-16])),
    scale("linear function of 1e-30", lambda x: 3 * x, values([1e-30, -2e-30])),
    scale("linear function of 1e20", lambda x: -2 * x, values([1e20, -2e20])),
    scale("logarithm of 1e30", jnp.log, values([1e30, 3e25])),
    scale("square root of 1e-20", jnp.sqrt, values([1e-20, 4e-20]), dtypes=FINE),
    scale("reciprocal of 1e15", lambda x: 1 / x, values([1e15, -2e16]), dtypes=FINE),
    scale("sine at 1e-12", jnp.sin, values([1e-12, -1e-10])),
    scale(
        "sum of numbers from 1e-8 to 1e8",
        lambda x: jnp.sum(jnp.log(x)),
        values([1e-8, 1e-3, 1.0, 1e4, 1e8]),
    ),
    scale(
        "huge leaf beside a tiny leaf",
        two_leaves,
        {"huge": normal(4, scale=1e4), "tiny": normal(3, scale=1e-4)},
        dtypes=FINE,
    ),
    scale("value of 1e25", lambda x: 1e25 * jnp.cos(x), normal(3), dtypes=FINE),
    scale("value of 1e-25", lambda x: 1e-25 * jnp.tanh(x), normal(3)),
    scale(
        "kinetic energy of an electron",
        energy_in_si_units,
        values(9.1e-31),
        values([1e6, -2e5, 0.0]),
        dtypes=FINE,
    ),
    scale(
        "gravity between planets",
        gravity,
        values(6e24),
        values(7.3e22),
        values(3.8e8),
        reference=gravity_plain,
        dtypes=(FLOAT64,),
    ),
    scale(
        "offset of 1e6: small changes of a large value",
        lambda x: 1e6 + jnp.sin(x),
        normal(3),
        dtypes=(FLOAT64,),
    ),
    scale(
        "difference of squares near 1e4",
        lambda x: (1e4 + x) ** 2 - 1e8,
        normal(3),
        dtypes=(FLOAT64,),
    ),
    scale(
        "Planck's law from 1e-3 to 30",
        planck,
        values([1e-3, 1.0, 30.0]),
        dtypes=FINE,
        options={"domain": lambda x: bool((abs(x) < 500).all())},
    ),
    scale(
        "loss scale of 2^15 inside",
        registered(
            "BankLossScale",
            lambda x: 32768 * jnp.tanh(x),
            lambda op, g: 32768 * (1 - jnp.tanh(op.inputs[0]) ** 2) * g,
        ),
        normal(3),
        reference=lambda x: 32768 * jnp.tanh(x),
    ),
    large("sum of squares of 100,000", lambda x: jnp.sum(x**2), normal(100_000), dtypes=FINE),
    large("sine of 50,000", jnp.sin, normal(50_000)),
    large("mean of 100,000 around 1", jnp.mean, normal(100_000, shift=1.0), dtypes=FINE),
    large("cross entropy of 20,000 classes", softmax_loss, normal(20_000), dtypes=FINE),
    large("differences of 30,000 neighbours", neighbours, normal(30_000), dtypes=FINE),
    large(
        "sum of cubes of 40,000 by a rule",
        vjp_rule(cube_sum, lambda r, g: 3 * r[0] ** 2 * g),
        normal(40_000),
        reference=cube_sum,
    ),
    large(
        "network of 64-128-128-8 on a batch of 32",
        mlp,
        [normal(64, 128, scale=0.1), normal(128, 128, scale=0.1), normal(128, 8, scale=0.1)],
        normal(32, 64),
        dtypes=FINE,
    ),
    large("image of 128 x 128", image_gradient_energy, uniform(128, 128), dtypes=FINE),
    large("outer product of 200 x 200", outer_energy, normal(200), normal(200), dtypes=FINE),
    large(
        "cumulative sum of 10,000 by a rule",
        jvp_rule(jnp.cumsum, lambda x, t: jnp.cumsum(t[0])),
        normal(10_000),
        reference=jnp.cumsum,
        dtypes=FINE,
    ),
]
