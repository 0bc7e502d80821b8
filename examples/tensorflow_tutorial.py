"""The programs of TensorFlow's custom-gradient tutorial, in gradkit.

What you will learn: how TensorFlow's five ways to write a gradient of your own read in JAX.

1. an operation of your own with a registered gradient (`tf.RegisterGradient`);
2. another gradient for `Square` (`Graph.gradient_override_map`);
3. a function that returns its own gradient (`tf.custom_gradient`);
4. a custom loss with gradients for both of its arguments, in training;
5. a test that compares a gradient with numerical differences (`tf.test.compute_gradient`).

Every program prints value and gradient beside what they should be. Run it as

    python examples/tensorflow_tutorial.py

The page docs/from-tensorflow.md maps all of TensorFlow's names.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit as gk
from gradkit import verify

Y_TRUE = np.array([1.0, 2.0, 3.0], np.float32)
Y_PRED = np.array([1.5, 2.0, 1.0], np.float32)


class Row(NamedTuple):
    """A number beside the one that it should be."""

    program: str
    quantity: str
    got: float
    expected: float
    why: str


# --- 1. an operation of your own, with a registered gradient --------------------------------------
#
# In TensorFlow the operation itself is C++. Here it is any function: positional arguments become
# `op.inputs`, keyword-only ones the attributes. The rule reads as in TensorFlow.


@verify.case(np.array([-1.5, 0.5, 3.0], np.float32))
@gk.op("Cube")
def cube(x, *, scale=1.0):
    """Return `scale` times the third power of x."""
    return scale * x * x * x


@gk.RegisterGradient("Cube")
def _cube_gradient(op, y_bar):
    (x,) = op.inputs
    return 3.0 * op.get_attr("scale") * x * x * y_bar


def registered_gradient():
    """Differentiate an operation whose gradient is found by its type."""
    value, gradient = jax.value_and_grad(lambda x: cube(x, scale=1.5))(2.0)
    return [
        Row("registered gradient", "value", value, 12.0, "1.5 x^3 at x = 2"),
        Row("registered gradient", "gradient", gradient, 18.0, "4.5 x^2"),
    ]


# --- 2. another gradient for an operation that exists ---------------------------------------------
#
# TensorFlow has this for version 1 graphs only, as a method of the graph. Here it works everywhere,
# also around a function that is compiled already.


@gk.RegisterGradient("CustomGradient")
def _custom_gradient(op, y_bar):
    return 2.0 * y_bar


def overridden_gradient():
    """Differentiate x^2 with the gradient 2 instead of 2 x, and then naturally again."""
    square_and_gradient = jax.jit(jax.value_and_grad(jnp.square))
    with gk.gradient_override_map({"Square": "CustomGradient"}):
        value, gradient = square_and_gradient(3.0)
    _, natural = square_and_gradient(3.0)
    return [
        Row("override of Square", "value", value, 9.0, "x^2 at x = 3"),
        Row("override of Square", "gradient", gradient, 2.0, "the registered rule"),
        Row("override of Square", "gradient, after the scope", natural, 6.0, "2 x"),
    ]


# --- 3. a function that returns its own gradient --------------------------------------------------
#
# The decorator is the only line that changes.


# The gradient is not that of x^2, and not meant to be: the case says whose it is.
@verify.case(3.0, surrogate=lambda x: 2 * x)
@gk.custom_gradient
def custom_square(x):
    """Square a number, with a gradient of 2 whatever the number is."""
    y = x * x

    def grad(dy):
        return dy * 2

    return y, grad


def custom_gradient():
    """Differentiate a function that brings its own gradient, in both modes."""
    value, gradient = jax.value_and_grad(custom_square)(3.0)
    _, forward = jax.jvp(custom_square, (3.0,), (1.0,))
    return [
        Row("custom gradient", "value", value, 9.0, "x^2 at x = 3"),
        Row("custom gradient", "gradient", gradient, 2.0, "dy * 2"),
        Row("custom gradient", "the same, forward mode", forward, 2.0, "the rule transposed"),
    ]


# --- 4. a custom loss, in training ----------------------------------------------------------------


# `gradkit check examples` checks what is declared like this, as program 5 does.
@verify.case(Y_TRUE, Y_PRED, order=2)
@gk.custom_gradient
def mean_squared_error(y_true, y_pred):
    """Mean of the squared differences, over all entries."""
    error = y_pred - y_true

    def grad(loss_bar):
        y_pred_bar = (2.0 / error.size) * error * loss_bar
        return -y_pred_bar, y_pred_bar

    return jnp.mean(error * error), grad


def custom_loss():
    """Differentiate the loss with respect to both of its arguments."""
    value, (true_bar, pred_bar) = jax.value_and_grad(mean_squared_error, (0, 1))(Y_TRUE, Y_PRED)
    name = "mean squared error"
    return [
        Row(name, "value", value, 4.25 / 3, "(0.5^2 + 0 + 2^2) / 3"),
        Row(name, "gradient, last y_true", true_bar[2], 4 / 3, "2 (y_true - y_pred) / 3"),
        Row(name, "gradient, last y_pred", pred_bar[2], -4 / 3, "2 (y_pred - y_true) / 3"),
    ]


def training():
    """Fit a plane to 64 noisy points; least squares knows where Adam must end."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 2)).astype(np.float32)
    y = (x @ [3.0, -1.0] + 0.5 + 0.1 * rng.normal(size=64)).astype(np.float32)

    def predict(params, x):
        return x @ params["weights"] + params["bias"]

    def loss_fn(params):
        return mean_squared_error(y, predict(params, x))

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 500))

    @jax.jit
    def fit(params):
        def step(carry, _):
            params, state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), length=500)

    (params, _), losses = fit({"weights": jnp.zeros(2), "bias": jnp.zeros(())})
    columns = np.column_stack([x, np.ones(64)])
    solution, residual, *_ = np.linalg.lstsq(columns, y, rcond=None)
    name, why = "training with Adam", "least squares"
    return [
        Row(name, "first weight", params["weights"][0], solution[0], why),
        Row(name, "second weight", params["weights"][1], solution[1], why),
        Row(name, "bias", params["bias"], solution[2], why),
        Row(name, "loss", losses[-1], residual[0] / 64, why),
    ]


# --- 5. is the gradient right? --------------------------------------------------------------------


def accuracy_test():
    """The gradient of the loss is right. That of program 3, 2 for x^2 at 3, is not."""
    right = verify.check(mean_squared_error, Y_TRUE, Y_PRED)
    wrong = verify.check(custom_square, 3.0)
    print(f"{right}\n\n{wrong}\n")
    name = "numerical comparison"
    return [
        Row(name, "right loss: findings", len(right.findings), 0, "its gradient is exact"),
        Row(name, "dy * 2 for x^2: found wrong", not wrong.ok, 1, "its gradient is not 2 x"),
    ]


def main():
    """Run all programs; returns the rows that it prints."""
    programs = (
        registered_gradient,
        overridden_gradient,
        custom_gradient,
        custom_loss,
        training,
        accuracy_test,
    )
    rows = [row for program in programs for row in program()]
    print(f"{'program':22}{'quantity':29}{'got':>9}{'expected':>10}")
    for row in rows:
        numbers = f"{float(row.got):9.4f}{float(row.expected):10.4f}"
        print(f"{row.program:22}{row.quantity:29}{numbers}  {row.why}")
    return rows


if __name__ == "__main__":
    main()
