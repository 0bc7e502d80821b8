"""Small things to train on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def arrays(n=100, width=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)).astype(np.float32)
    w = rng.standard_normal((width, 3)).astype(np.float32)
    return x, np.argmax(x @ w + 0.1 * rng.standard_normal((n, 3)), axis=1).astype(np.int32)


def network(width=8, hidden=16, seed=1):
    rng = np.random.default_rng(seed)
    draw = lambda n, m: rng.standard_normal((n, m)).astype(np.float32) / np.float32(n**0.5)
    return {
        "hidden": {"w": draw(width, hidden), "b": np.zeros((1, hidden), np.float32)},
        "out": {"w": draw(hidden, 3), "b": np.zeros((1, 3), np.float32)},
    }


def apply(params, x):
    x = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return x @ params["out"]["w"] + params["out"]["b"]


def cross_entropy(params, batch):
    x, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), labels).mean()


def by_hand(loss_fn, params, batches, optimizer):
    """The loop that everybody writes; returns parameters and losses."""

    @jax.jit
    def step(params, state, batch):
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    losses = []
    for batch in batches:
        params, state, loss = step(params, state, batch)
        losses.append(float(loss))
    return params, losses


def in_order(data, batch_size, epochs):
    """Batches without shuffling, the short one last."""
    n = len(data[0])
    for _ in range(epochs):
        for start in range(0, n, batch_size):
            yield tuple(a[start : start + batch_size] for a in data)


def assert_same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
