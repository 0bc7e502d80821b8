"""Differential privacy: a network learns the digits, and little about any single image.

What you will learn:

1. to clip the gradient of each image with `gk.ops.clipped_sum`, at the price of one for all;
2. to sample batches so that the account of the privacy holds, and to add the noise;
3. what the noise buys: epsilon and delta, from Google's dp-accounting.

Run it as

    python examples/dp_sgd_digits.py

It trains on scikit-learn's 1,797 digits in seconds. The clipped sum is held against the gradients
of all images one by one, and epsilon against the formula of Gaussian differential privacy. A model
that you release needs its randomness from a cryptographic source, which NumPy and JAX are not.
"""

from typing import NamedTuple

import dp_accounting
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import gradkit as gk

STEPS = 300
RATE = 0.1  # the chance of an image to be in a batch
LIMIT = 1.0  # the norm that gradients are clipped to
NOISE = 3.0  # its standard deviation, in limits
DELTA = 1e-4  # well below one in as many as there are images


class Row(NamedTuple):
    """A number, and the independent one that it should match."""

    label: str
    value: float
    independent: float


net = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(10)])


def cross_entropy(variables, example):
    """The loss of one image: pixels, float32[64], and a label."""
    x, label = example
    return optax.softmax_cross_entropy_with_integer_labels(net.apply(variables, x), label)


def poisson_batches(rng, images):
    """Batches that each image is in or not by a coin of its own: indices, and weights of 0 or 1.

    That is the sampling which the accountant assumes. All are padded to the size of the largest;
    what only fills them up has weight 0.
    """
    chosen = rng.random((STEPS, images)) < RATE
    size = chosen.sum(axis=1).max()
    indices = np.argsort(~chosen, axis=1, kind="stable")[:, :size]
    return indices, np.take_along_axis(chosen, indices, axis=1).astype(np.float32)


@jax.jit
def train(variables, data, indices, weights):
    """DP-SGD: from each batch, the sum of clipped gradients and noise."""
    x, y = data
    optimizer = optax.sgd(1.0)

    def step(carry, batch):
        variables, state = carry
        chosen, weight, key = batch
        found = gk.ops.clipped_sum(
            cross_entropy, variables, (x[chosen], y[chosen]), LIMIT, weights=weight
        )
        noise = optax.tree.random_like(key, found.gradient, sampler=jax.random.normal)
        # Divided by the batch size that was expected: the one that came is as private as the rest.
        gradient = jax.tree.map(
            lambda g, z: (g + NOISE * LIMIT * z) / (RATE * len(x)), found.gradient, noise
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, updates), state), None

    keys = jax.random.split(jax.random.key(1), STEPS)
    start = (variables, optimizer.init(variables))
    return jax.lax.scan(step, start, (indices, weights, keys))[0][0]


@jax.jit
def clipped_one_by_one(variables, data):
    """The sum of clipped gradients, from all of them."""
    gradients = jax.vmap(jax.grad(cross_entropy), (None, 0))(variables, data)
    factors = jax.vmap(lambda g: jnp.minimum(1, LIMIT / optax.tree.norm(g)))(gradients)
    return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), gradients)


def epsilon():
    """What all steps together spend, by the distribution of the privacy loss."""
    step = dp_accounting.PoissonSampledDpEvent(RATE, dp_accounting.GaussianDpEvent(NOISE))
    spent = PLDAccountant().compose(dp_accounting.SelfComposedDpEvent(step, STEPS))
    return spent.get_epsilon(DELTA)


def epsilon_of_many_steps():
    """The same in the limit of many steps (Bu et al. 2020, arXiv:1911.11607, section 3)."""
    mu = RATE * np.sqrt(STEPS * np.expm1(NOISE**-2))
    delta = lambda e: norm.cdf(-e / mu + mu / 2) - np.exp(e) * norm.cdf(-e / mu - mu / 2)
    return brentq(lambda e: delta(e) - DELTA, 0, 50)


def main(args=None):
    """Train and account; returns the rows."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        np.float32(x / 16), np.int32(y), test_size=0.3, random_state=0, stratify=y
    )
    data = jnp.asarray(x), jnp.asarray(y)
    start = net.init(jax.random.key(0), x[0])
    variables = train(start, data, *poisson_batches(np.random.default_rng(0), len(x)))
    accuracy = float(np.mean(np.argmax(net.apply(variables, x_test), axis=1) == y_test))
    regression = LogisticRegression(max_iter=1000).fit(x, y)

    found = jax.jit(lambda v, d: gk.ops.clipped_sum(cross_entropy, v, d, LIMIT))(variables, data)
    want = clipped_one_by_one(variables, data)
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, found.gradient, want))
    print(f"{np.mean(found.norms > LIMIT):.0%} of the images have a gradient above the limit")

    rows = [
        Row("test accuracy", accuracy, float(regression.score(x_test, y_test))),
        Row(f"epsilon at delta {DELTA:g}", epsilon(), epsilon_of_many_steps()),
        Row("norm of the clipped sum", *(float(optax.tree.norm(g)) for g in (found[0], want))),
        Row("distance of the two", float(distance), 0.0),
    ]
    print(f"{'':<28}{'DP-SGD':>12}{'independent':>14}")
    for row in rows:
        print(f"{row.label:<28}{row.value:>12.5f}{row.independent:>14.5f}")
    return rows


if __name__ == "__main__":
    main()
