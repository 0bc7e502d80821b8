"""A tape records what `jax.grad` differentiates: programs of every kind, everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from tests.tape.programs import PROGRAMS, X


def recorded_gradient(f):
    def gradient(x):
        with gk.GradientTape() as tape:
            x = tape.watch(x)
            y = f(x)
        return tape.gradient(y, x)

    return gradient


def weighted(gradient):
    """A scalar of a gradient, which uses the differentiated point again."""
    return lambda x: jnp.sum(gradient(x) * jnp.cos(x))


def steps(gradient):
    """Two steps of gradient descent."""
    return lambda x: lax.scan(lambda x, _: (x - 0.01 * gradient(x), None), x, None, length=2)[0]


TRANSFORMED = {
    "jit": jax.jit,
    "vmap": lambda gradient: lambda x: jax.vmap(gradient)(jnp.stack([x, 1.1 * x])),
    "grad": lambda gradient: jax.grad(weighted(gradient)),
    "jvp": lambda gradient: lambda x: jax.jvp(gradient, (x,), (jnp.cos(x),))[1],
    "jit of vmap": lambda gradient: lambda x: jax.jit(jax.vmap(gradient))(jnp.stack([x, 1.1 * x])),
    "jacrev in jit": lambda gradient: jax.jit(jax.jacrev(gradient)),
    "grad of checkpoint": lambda gradient: jax.grad(jax.checkpoint(weighted(gradient))),
    "scan": steps,
    "grad of scan": lambda gradient: jax.grad(lambda x: jnp.sum(steps(gradient)(x))),
}
# The rest of the programs only in the slow tests.
OFTEN = ["elements", "several outputs", "custom_vjp of the identity", "custom_gradient", "cond"]


def compare(got, want):
    # By dtype; the two run the same operations, but XLA may fuse them in other ways.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("program", PROGRAMS)
def test_recorded_gradient_is_that_of_grad(program):
    f, x = PROGRAMS[program], jnp.asarray(X)
    compare(recorded_gradient(f)(x), jax.grad(f)(x))


@pytest.mark.parametrize("transformed", TRANSFORMED)
@pytest.mark.parametrize("program", OFTEN)
def test_recorded_gradient_is_that_of_grad_when_transformed(program, transformed):
    f, transform, x = PROGRAMS[program], TRANSFORMED[transformed], jnp.asarray(X)
    compare(transform(recorded_gradient(f))(x), transform(jax.grad(f))(x))


@pytest.mark.slow
@pytest.mark.parametrize("transformed", TRANSFORMED)
@pytest.mark.parametrize("program", [p for p in PROGRAMS if p not in OFTEN])
def test_every_recorded_gradient_is_that_of_grad_when_transformed(program, transformed):
    f, transform, x = PROGRAMS[program], TRANSFORMED[transformed], jnp.asarray(X)
    compare(transform(recorded_gradient(f))(x), transform(jax.grad(f))(x))


def second_order_nested(f, x):
    with gk.GradientTape() as outer:
        x = outer.watch(x)
        slope = recorded_gradient(f)(x)
    return outer.jacobian(slope, x, unconnected_gradients="zero")


def second_order_on_one_tape(f, x):
    with gk.GradientTape(persistent=True) as tape:
        x = tape.watch(x)
        y = f(x)
        slope = tape.gradient(y, x)
    return tape.jacobian(slope, x, unconnected_gradients="zero")


SECOND_ORDER = {"nested": second_order_nested, "on one tape": second_order_on_one_tape}


@pytest.mark.parametrize("form", SECOND_ORDER)
@pytest.mark.parametrize("program", ["elements", "several outputs", "custom_jvp"])
def test_second_derivative_is_that_of_jacrev(program, form):
    f, x = PROGRAMS[program], jnp.asarray(X)
    compare(SECOND_ORDER[form](f, x), jax.jacrev(jax.grad(f))(x))


@pytest.mark.slow
@pytest.mark.parametrize("form", SECOND_ORDER)
@pytest.mark.parametrize("program", PROGRAMS)
def test_second_derivative_is_that_of_jacrev_for_every_program(program, form):
    f, x = PROGRAMS[program], jnp.asarray(X)
    compare(SECOND_ORDER[form](f, x), jax.jacrev(jax.grad(f))(x))


def test_third_derivative_in_a_loop_on_one_tape():
    with gk.GradientTape(persistent=True) as tape:
        x = tape.watch(2.0)
        derivatives = [x**4]
        for _ in range(3):
            derivatives.append(tape.gradient(derivatives[-1], x))
    assert list(map(float, derivatives)) == [16, 32, 48, 48]


def test_python_branches_on_values():
    def collatz(x):
        steps = 0
        while x != 1:
            x = x / 2 if x % 2 == 0 else 3 * x + 1
            steps += 1
        return x, steps

    with gk.GradientTape() as tape:
        x = tape.watch(6.0)
        y, count = collatz(x)
    assert count == 8  # 6 3 10 5 16 8 4 2 1: six halvings, two multiplications by three
    assert float(tape.gradient(y, x)) == 9 / 64


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "complex64"])
def test_gradient_has_the_dtype_of_its_source(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray([0.5, 2.0]).astype(dtype)
        got = recorded_gradient(lambda x: jnp.sum(x * x * x))(x)
        assert (got.dtype, got.shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(np.asarray(got).astype(complex), [0.75, 12])


def test_complex_gradient_is_that_of_vjp():
    z = jnp.array([1 + 2j, -0.5j])
    got = recorded_gradient(lambda z: jnp.sum(jnp.abs(jnp.exp(z)) ** 2))(z)
    np.testing.assert_allclose(got, jax.grad(lambda z: jnp.sum(jnp.abs(jnp.exp(z)) ** 2))(z))


def test_numbers_agree_with_finite_differences():
    f = PROGRAMS["layers"]
    with jax.enable_x64(True):
        x = np.asarray(X, np.float64)
        got = recorded_gradient(f)(x)
        h = 1e-6
        for i, unit in enumerate(np.eye(4)):
            difference = (f(x + h * unit) - f(x - h * unit)) / (2 * h)
            np.testing.assert_allclose(got[i], difference, rtol=1e-7)


def test_compiled_program_costs_what_grad_costs():
    def cost(gradient):
        analysis = jax.jit(gradient).lower(jnp.asarray(X)).compile().cost_analysis()
        return analysis["flops"], analysis["bytes accessed"]

    assert cost(recorded_gradient(PROGRAMS["layers"])) == cost(jax.grad(PROGRAMS["layers"]))
