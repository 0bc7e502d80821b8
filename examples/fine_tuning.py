"""Fine-tuning: a trained network learns new classes, and most of it stays as it is.

What you will learn:

1. to freeze parts of a model: a label for each parameter, and `optax.partition`;
2. that frozen parts are frozen to the last bit, while `gk.fit` trains the rest;
3. what it is worth: features learnt from the digits 0 to 4 tell 88 of 100 digits from 5 to 9.

Run it as

    python examples/fine_tuning.py

It trains on scikit-learn's 1,797 digits in seconds. The new last layer is held against logistic
regression on the same frozen features, whose optimum scikit-learn finds by other means.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import gradkit as gk

STEPS = 1200
DECAY = 1e-3  # weight of the squared last layer, so that the optimum is a single one


class Row(NamedTuple):
    """A number, and the independent one that it should match."""

    label: str
    value: float
    independent: float


class Net(nn.Module):
    """Two hidden layers, and a last one for five classes."""

    @nn.compact
    def __call__(self, x):
        """The logits, float32[N, 5], of pixels, float32[N, 64]."""
        return nn.Dense(5, name="last")(self.features(x))

    @nn.compact
    def features(self, x):
        """What the last layer sees, float32[N, 32]."""
        x = nn.tanh(nn.Dense(64, name="first")(x))
        return nn.tanh(nn.Dense(32, name="second")(x))


net = Net()


def cross_entropy(variables, batch):
    """Mean cross-entropy, and the accuracy as a metric."""
    x, labels = batch
    logits = net.apply(variables, x)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels)}


def with_decay(variables, batch):
    """The same with the square of the last layer's weights, which logistic regression has too."""
    loss, metrics = cross_entropy(variables, batch)
    return loss + DECAY / 2 * jnp.sum(variables["params"]["last"]["kernel"] ** 2), metrics


def digits(wanted):
    """Pixels and labels from 0 on of some of the digits, to train with and to test with."""
    x, y = load_digits(return_X_y=True)
    keep = np.isin(y, wanted)
    x, y = np.float32(x[keep] / 16), np.int32(np.searchsorted(wanted, y[keep]))
    return train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)


def fine_tune(variables, x, y):
    """Train a new last layer, and nothing else."""
    new = net.init(jax.random.key(1), x[:1])["params"]["last"]
    start = {"params": {**variables["params"], "last": new}}
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "trained" if path[1].key == "last" else "frozen", start
    )
    adam = optax.adam(optax.cosine_decay_schedule(0.05, STEPS))
    optimizer = optax.partition({"trained": adam, "frozen": optax.set_to_zero()}, labels)
    whole = {"batch_size": len(x), "steps": STEPS, "progress": False}
    return gk.fit(with_decay, start, (x, y), optimizer=optimizer, **whole)


def main(args=None):
    """Train, fine-tune, compare; returns the accuracy and the rows."""
    x, _, y, _ = digits(range(5))
    first = gk.fit(
        cross_entropy, net.init(jax.random.key(0), x[:1]), (x, y), optimizer=optax.adam(3e-3),
        epochs=20, progress=False,
    )  # fmt: skip
    print(f"digits 0 to 4: accuracy {first.history['accuracy'][-20:].mean():.3f} at the end")

    x, x_test, y, y_test = digits(range(5, 10))
    tuned = fine_tune(first.params, x, y)
    accuracy = float(cross_entropy(tuned.params, (x_test, y_test))[1]["accuracy"])

    features = lambda x: np.float64(net.apply(first.params, x, method="features"))
    regression = LogisticRegression(C=1 / (DECAY * len(x)), max_iter=10_000, tol=1e-8)
    regression.fit(features(x), y)
    chances = regression.predict_proba(features(x))[np.arange(len(y)), y]
    optimum = -np.log(chances).mean() + DECAY / 2 * np.sum(regression.coef_**2)

    frozen = ("first", "second")
    same = all(
        np.array_equal(a, b)
        for name in frozen
        for a, b in zip(
            *(jax.tree.leaves(v["params"][name]) for v in (first.params, tuned.params)), strict=True
        )
    )
    rows = [
        Row("loss of the new layer", float(tuned.history["loss"][-1]), float(optimum)),
        Row("test accuracy", accuracy, float(regression.score(features(x_test), y_test))),
        Row("frozen layers as they were", float(same), 1.0),
    ]
    print(f"{'digits 5 to 9':<28}{'gk.fit':>12}{'scikit-learn':>14}")
    for row in rows:
        print(f"{row.label:<28}{row.value:>12.5f}{row.independent:>14.5f}")
    return accuracy, rows


if __name__ == "__main__":
    main()
