"""What a tape holds on to, and what it leaves behind."""

import gc
import os
import tracemalloc
import weakref

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk

# Caches of JAX and of the interpreter that fill up on their own.
SLACK = 200_000


def recorded_chain(length, *, persistent=False, use=True):
    """A chain of operations on one tape, its gradient asked for or not."""
    with gk.GradientTape(persistent) as tape:
        x = y = tape.watch(1.0)
        for _ in range(length):
            y = jax.lax.neg(y)
    if use:
        assert abs(float(tape.gradient(y, x))) == 1


def live_objects():
    gc.collect()
    return len(gc.get_objects())


def live_bytes():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident_bytes():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live_arrays():
    gc.collect()  # what other tests have left in cycles
    return len(jax.live_arrays())


def operation(y):
    return weakref.ref(y.value.operation)


@pytest.mark.parametrize(
    "use", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["used", "unused"]
)
@pytest.mark.parametrize("persistent", [True, False], ids=["persistent", "once"])
def test_taped_operations_leave_nothing_behind(persistent, use):
    recorded_chain(100, persistent=persistent, use=use)
    arrays = live_arrays()
    tracemalloc.start()
    try:
        before, objects = live_bytes(), live_objects()
        recorded_chain(1000, persistent=persistent, use=use)
        # One object an operation would be a thousand.
        assert live_objects() - objects < 100
        assert live_bytes() - before < SLACK
    finally:
        tracemalloc.stop()
    assert live_arrays() <= arrays


def test_twenty_thousand_taped_operations_leave_nothing_behind():
    recorded_chain(100)
    objects, arrays = live_objects(), live_arrays()
    recorded_chain(20_000)
    assert live_objects() - objects < 100
    assert live_arrays() <= arrays


@pytest.mark.slow
def test_a_million_taped_operations_leave_nothing_behind():
    for _ in range(2):
        recorded_chain(20_000)
    objects, arrays, resident = live_objects(), live_arrays(), resident_bytes()
    for _ in range(50):
        recorded_chain(20_000)
    assert live_objects() - objects < 100
    assert live_arrays() <= arrays
    # What an operation takes while it is alive is about 5 kB, of which a hundredth would be 50 MB.
    assert resident_bytes() - resident < 30e6


def test_many_tapes_leave_nothing_behind():
    for _ in range(50):
        recorded_chain(3)
    objects = live_objects()
    for _ in range(500):
        recorded_chain(3)
    assert live_objects() - objects < 100


def test_what_nothing_alive_depends_on_is_dropped_at_once():
    with gk.GradientTape() as tape:
        x = tape.watch(1.0)
        dropped = operation(jnp.sin(x))
        y = jnp.cos(x)
        kept = operation(y)
        assert dropped() is None
        assert kept() is not None
        y = y * 2
        assert kept() is not None
        del y
        assert kept() is None


def test_first_gradient_releases_everything_of_a_tape_that_is_not_persistent():
    with gk.GradientTape() as tape:
        x = tape.watch(1.0)
        y = jnp.sin(x)
        z = jnp.exp(y) * y
        w = z * z
    assert w.value.operation.inputs
    tape.gradient(y, x)
    assert w.value.operation.inputs == ()
    assert w.value.operation.pull is None


def test_persistent_tape_keeps_its_operations_while_it_lives():
    with gk.GradientTape(persistent=True) as tape:
        x = tape.watch(1.0)
        y = jnp.sin(x) * x
    assert float(tape.gradient(y, x)) == float(tape.gradient(y, x))
    assert y.value.operation.inputs
    del tape
    assert y.value.operation.inputs == ()
    assert y.value.operation.pull is None


def test_array_outlives_the_tape_without_its_past():
    with gk.GradientTape() as tape:
        x = tape.watch(jnp.ones(10_000))
        y = jnp.sum(jnp.sin(x))
    residual = weakref.ref(x)
    del x, tape
    assert residual() is None
    assert float(y) > 0


def test_reset_releases_everything():
    with gk.GradientTape() as tape:
        x = tape.watch(1.0)
        y = jnp.sin(x)
        first = operation(y)
        del y
        assert first() is None
        y = jnp.sin(x)
        tape.reset()
        assert y.value.operation.pull is None


def test_tape_under_jit_leaves_no_tracer():
    @jax.jit
    def gradient(x):
        with gk.GradientTape() as tape:
            x = tape.watch(x)
            y = jnp.sin(x)
        return tape.gradient(y, x)

    with jax.checking_leaks():
        gradient(1.0)
        jax.vmap(gradient)(jnp.ones(3))
        jax.jit(jax.grad(gradient))(1.0)
