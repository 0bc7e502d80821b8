"""A network with no last layer: the same one again and again, until nothing changes.

What you will learn:

1. to make a layer of an equation: `z = tanh(z W + x U + b)`, which `gk.ops.fixed_point` solves;
2. to train it with `gk.fit`: the gradient comes from the equation, at the solution, and needs no
   memory of the way there;
3. to trust it: SciPy finds the same equilibrium, and the gradient is that of 200 layers written
   out, which JAX differentiates one by one.

Run it as

    python examples/deep_equilibrium.py

It trains on scikit-learn's 1,797 digits of 8 x 8 pixels in seconds, and prints every number beside
an independent value.
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import gradkit as gk

WIDTH = 32
BOUND = 0.95
LAYERS = 200  # written out, for comparison


class Row(NamedTuple):
    """A number, and the independent one that it should match, or beat."""

    label: str
    value: float
    independent: float


def again(params):
    """`W`, its columns scaled to sums of absolute values below 1.

    The layer is then a contraction in the maximum norm, with one equilibrium for each input
    (El Ghaoui et al., *Implicit deep learning* (2021), arXiv:1908.06315, section 2).
    """
    sums = jnp.abs(params["again"]).sum(axis=0, keepdims=True)
    return params["again"] * jnp.minimum(1, BOUND / sums)


def layer(z, params, x):
    """One more step towards the equilibrium, float32[N, WIDTH]."""
    return jnp.tanh(z @ again(params) + x @ params["in"] + params["bias"][None])


def equilibrium(params, x):
    """The `z` that another layer does not change; NaN, which stops `gk.fit`, if none is found."""
    return gk.ops.fixed_point(layer, jnp.zeros((len(x), WIDTH)), params, x)


def written_out(params, x):
    """The same to rounding, by so many layers."""
    step = lambda z, _: (layer(z, params, x), None)
    return jax.lax.scan(step, jnp.zeros((len(x), WIDTH)), length=LAYERS)[0]


def cross_entropy(params, batch, solve=equilibrium):
    """Mean cross-entropy, and the accuracy as a metric."""
    x, labels = batch
    logits = solve(params, x) @ params["out"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels)}


def initial():
    """Parameters to start from."""
    keys = iter(jax.random.split(jax.random.key(0), 3))
    draw = lambda rows, columns: jax.random.normal(next(keys), (rows, columns)) / rows**0.5
    hidden, given, out = draw(WIDTH, WIDTH), draw(64, WIDTH), draw(WIDTH, 10)
    return {"again": hidden, "in": given, "bias": jnp.zeros(WIDTH), "out": out}


def by_scipy(params, x):
    """The equilibrium of one digit, in float64, by Powell's hybrid method."""
    matrix, given, bias = map(np.float64, (again(params), x @ params["in"], params["bias"]))
    rest = lambda z: np.tanh(z @ matrix + given + bias) - z
    return scipy.optimize.root(rest, np.zeros(WIDTH), tol=1e-12).x


def compile_gradient(solve, params, batch):
    """A program for the gradient, and the bytes of memory that it needs besides its result."""
    gradient = jax.grad(lambda params, batch: cross_entropy(params, batch, solve)[0])
    program = jax.jit(gradient).lower(params, batch).compile()
    return program, program.memory_analysis().temp_size_in_bytes


def main(args=None):
    """Train, compare; returns the rows."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        np.float32(x / 16), np.int32(y), test_size=0.3, random_state=0, stratify=y
    )
    start = time.perf_counter()
    trained = gk.fit(
        cross_entropy, initial(), (x, y), optimizer=optax.adam(1e-2), epochs=12, batch_size=128,
        last_batch="drop", progress=False,
    )  # fmt: skip
    params = jax.device_get(trained.params)
    print(f"trained in {time.perf_counter() - start:.0f} s")

    z = np.asarray(jax.jit(equilibrium)(params, x_test))
    accuracy = float(np.mean(np.argmax(z @ params["out"], axis=1) == y_test))
    regression = LogisticRegression(max_iter=1000).fit(x, y)
    distance = float(np.abs(z[0] - by_scipy(params, x_test[0])).max())

    batch = x[:64], y[:64]
    (ours, small), (theirs, large) = (
        compile_gradient(solve, params, batch) for solve in (equilibrium, written_out)
    )
    vectors = [
        np.concatenate([np.ravel(bar) for bar in jax.tree.leaves(gradient(params, batch))])
        for gradient in (ours, theirs)
    ]
    norms = [float(np.linalg.norm(v)) for v in vectors]
    apart = float(np.linalg.norm(vectors[0] - vectors[1])) / norms[1]

    rows = [
        Row("test accuracy", accuracy, float(regression.score(x_test, y_test))),
        Row("distance from the equilibrium", distance, 0.0),
        Row("norm of the gradient", *norms),
        Row("distance of the gradients", apart, 0.0),
        Row("memory of the gradient, kB", small / 1e3, large / 1e3),
    ]
    others = "scikit-learn", "SciPy", *3 * [f"{LAYERS} layers"]
    for row, other in zip(rows, others, strict=True):
        print(f"{row.label:<32}{row.value:>12.6f}{row.independent:>14.6f}  {other}")
    return rows


if __name__ == "__main__":
    main()
