"""Arrays on a tape are arrays: to Python, to NumPy, and to JAX after the tape has ended."""

import copy
import math
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk


@pytest.fixture(params=["inside", "outside"])
def taped(request):
    """An array on a tape, while the tape records and after its end."""
    with gk.GradientTape() as tape:
        x = tape.watch(jnp.array([1.0, 2.0, 3.0]))
        y = x * x
        if request.param == "inside":
            yield y
            return
    yield y


def test_python_sees_the_value(taped):
    assert bool(taped[0] == 1)
    assert float(taped[1]) == 4.0
    assert math.sqrt(taped[1]) == 2.0
    assert complex(taped[1]) == 4 + 0j
    assert int(taped[1]) == 4
    assert taped[1].item() == 4.0
    assert taped.tolist() == [1.0, 4.0, 9.0]
    assert len(taped) == 3
    assert [float(v) for v in taped] == [1.0, 4.0, 9.0]


def test_it_prints_as_an_array(taped):
    assert str(taped) == "[1. 4. 9.]"
    assert repr(taped) == "TapedArray([1., 4., 9.], dtype=float32)"
    assert f"{taped[1]:.2f}" == "4.00"


def test_numpy_gets_the_value(taped):
    assert isinstance(np.asarray(taped), np.ndarray)
    np.testing.assert_array_equal(np.asarray(taped, np.float64), [1, 4, 9])
    np.testing.assert_array_equal(np.sum(np.array(taped)), 14)
    np.testing.assert_array_equal(jax.device_get({"a": taped})["a"], [1, 4, 9])


def test_it_has_the_attributes_of_an_array(taped):
    assert isinstance(taped, jax.Array)
    assert taped.sharding == jnp.ones(3).sharding
    assert taped.devices() == jnp.ones(3).devices()
    assert taped.is_fully_addressable
    assert (taped.shape, taped.dtype, taped.ndim, taped.size) == ((3,), jnp.float32, 1, 3)
    np.testing.assert_array_equal(jax.block_until_ready(taped), [1, 4, 9])
    np.testing.assert_array_equal(taped.block_until_ready(), [1, 4, 9])
    np.testing.assert_array_equal(taped.addressable_shards[0].data, [1, 4, 9])


def test_it_can_be_copied_and_pickled(taped):
    for again in (copy.copy(taped), copy.deepcopy(taped), pickle.loads(pickle.dumps(taped))):
        np.testing.assert_array_equal(again, [1, 4, 9])


AFTERWARDS = {
    "an operation": lambda y: y + 1,
    "jit, argument": lambda y: jax.jit(lambda z: z + 1)(y),
    "jit, closure": lambda y: jax.jit(lambda one: y + one)(1.0),
    "grad, argument": lambda y: jax.grad(lambda z: jnp.sum(z**2) / 2 + jnp.sum(z))(y),
    "grad, closure": lambda y: jax.grad(lambda z: jnp.sum((y + 1) * z))(jnp.ones(3)),
    "vmap": lambda y: jax.vmap(lambda v: v + 1)(y),
    "scan": lambda y: jax.lax.scan(lambda c, v: (c, v + 1), 0, y)[1],
    "scan, closure": lambda y: jax.lax.scan(lambda c, _: (y + 1, c), y, None, length=2)[0],
    "cond": lambda y: jax.lax.cond(True, lambda: y + 1, lambda: y),
    "while_loop": lambda y: jax.lax.while_loop(lambda c: c[0] < 2, lambda c: c + 1, y),
    "checkpoint": lambda y: jax.checkpoint(lambda z: z + 1)(y),
    "numpy": lambda y: np.add(y, 1),
    "vjp": lambda y: jax.vjp(lambda z: z * (y + 1), y)[1](jnp.ones(3))[0],
    "custom_gradient": lambda y: gk.custom_gradient(lambda z: (z + 1, lambda g: g))(y),
    "device_put": lambda y: jax.device_put(y) + 1,
    "optax": lambda y: optax.apply_updates({"y": y}, {"y": jnp.ones(3)})["y"],
    "another tape": lambda y: recorded_increment(y),
}


def recorded_increment(y):
    with gk.GradientTape() as tape:
        z = tape.watch(y)
        total = jnp.sum(z**2) / 2 + jnp.sum(y * z) * 0 + jnp.sum(z)
    return tape.gradient(total, z)


@pytest.mark.parametrize("use", AFTERWARDS)
def test_after_the_end_it_is_a_constant_everywhere(use):
    with gk.GradientTape() as tape:
        x = tape.watch(jnp.array([1.0, 2.0, 3.0]))
        y = x * x
    got = AFTERWARDS[use](y)
    assert not isinstance(got, jax.core.Tracer)
    np.testing.assert_array_equal(got, [2, 5, 10])


def test_values_leave_jit_and_vmap_as_results():
    def f(x):
        with gk.GradientTape() as tape:
            x = tape.watch(x)
            y = x * x
        return x, y, tape.gradient(y, x)

    for transform in (jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))):
        for got, want in zip(transform(f)(jnp.array([3.0])), (3, 9, 6), strict=True):
            assert not isinstance(got, jax.core.Tracer)
            np.testing.assert_array_equal(got, [want])


def test_other_threads_do_not_record():
    results = []
    with gk.GradientTape() as tape:
        x = tape.watch(3.0)
        thread = threading.Thread(target=lambda: results.append(jnp.sin(2.0) * np.asarray(x)))
        thread.start()
        thread.join()
        y = x * results[0]
    assert float(tape.gradient(y, x)) == pytest.approx(3 * np.sin(2), rel=1e-6)


def test_block_left_by_an_exception_is_left():
    with pytest.raises(ZeroDivisionError), gk.GradientTape() as tape:
        x = tape.watch(3.0)
        y = x * x
        raise ZeroDivisionError
    assert not isinstance(x * 2, jax.core.Tracer)
    assert float(tape.gradient(y, x)) == 6


def test_training_loop_as_in_tensorflow():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((64, 3)).astype(np.float32)
    labels = inputs @ np.array([1.0, -2.0, 0.5], np.float32)
    params, optimizer = {"w": jnp.zeros(3), "b": jnp.float32(0)}, optax.sgd(0.2)
    state = optimizer.init(params)
    for _ in range(40):
        with gk.GradientTape() as tape:
            watched = tape.watch(params)
            loss = jnp.mean((inputs @ watched["w"] + watched["b"] - labels) ** 2)
        grads = tape.gradient(loss, watched)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], [1, -2, 0.5], atol=1e-3)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params))
