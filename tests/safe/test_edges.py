"""Derivatives at edges, against 700 digits; and what plain JAX has there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.safe import judge
from tests.safe.probes import PROBES

TOLERANCES = {"float64": 1e-13, "float32": 3e-6, "bfloat16": 3e-2}


def probe_id(probe):
    return probe.name


PROBED = pytest.mark.parametrize("probe", PROBES, ids=probe_id)


def arguments(probe, dtype):
    return tuple(jnp.asarray(x, dtype) for x in probe.point)


def point(probe, dtype):
    """The numbers that the arguments really are in this dtype."""
    return [float(x) for x in arguments(probe, dtype)]


def argnums(probe):
    return tuple(range(len(probe.point)))


def in_one_program(derivative, dtype):
    """The derivative of each probe, by name, all compiled together: that is much faster."""
    with jax.enable_x64(dtype == "float64"):
        points = [arguments(probe, dtype) for probe in PROBES]
        run = jax.jit(lambda points: [derivative(p)(*x) for p, x in zip(PROBES, points)])
        return {probe.name: result for probe, result in zip(PROBES, run(points))}


@functools.cache
def gradients(dtype):
    return in_one_program(lambda p: jax.grad(p.fn, argnums(p)), dtype)


@functools.cache
def batched_forward_mode():
    def derivative(probe):
        batched = jax.vmap(jax.jacfwd(probe.fn, argnums(probe)))
        return lambda *args: batched(*(jnp.stack([a, a]) for a in args))

    return in_one_program(derivative, "float32")


@functools.cache
def hessians():
    return in_one_program(lambda p: jax.jacfwd(jax.grad(p.fn, argnums(p)), argnums(p)), "float64")


@functools.cache
def plain():
    return in_one_program(lambda p: jax.value_and_grad(p.plain, argnums(p)), "float32")


@functools.cache
def values():
    return in_one_program(lambda p: p.fn, "float32")


def assert_close(got, expected, dtype):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert np.all(np.isfinite(got)), got
    largest = float(jnp.finfo(dtype).max)
    expected = np.clip(expected, -largest, largest)
    np.testing.assert_allclose(got, expected, rtol=TOLERANCES[dtype], atol=0)


def judged(probe, dtype):
    return [judge.slope(probe.digits, point(probe, dtype), k) for k in argnums(probe)]


@pytest.mark.parametrize("dtype", TOLERANCES)
@PROBED
def test_gradient_is_the_limit_or_the_smallest_subgradient(probe, dtype):
    with jax.enable_x64(dtype == "float64"):
        grads = gradients(dtype)[probe.name]
        assert all(g.dtype == dtype for g in grads)
        assert_close(grads, judged(probe, dtype), dtype)


@PROBED
def test_forward_mode_agrees_batched(probe):
    forward = np.stack(batched_forward_mode()[probe.name])
    np.testing.assert_allclose(forward[:, 1], gradients("float32")[probe.name], rtol=1e-6)


@PROBED
def test_second_derivative_is_finite_and_right_where_it_exists(probe):
    hessian = np.array(hessians()[probe.name])
    assert np.all(np.isfinite(hessian))
    for k in argnums(probe):
        with jax.enable_x64(True):
            expected = judge.curvature(probe.digits, point(probe, "float64"), k)
        if expected is not None:
            scale = np.max(np.abs(hessian[k]))
            np.testing.assert_allclose(hessian[k, k], expected, rtol=1e-11, atol=1e-13 * scale)


@pytest.mark.slow
@PROBED
def test_second_derivative_is_the_same_in_every_mix_of_modes(probe):
    with jax.enable_x64(True):
        for outer in (jax.jacfwd, jax.jacrev):
            for inner in (jax.jacfwd, jax.jacrev):
                derivative = jax.jit(outer(inner(probe.fn, argnums(probe)), argnums(probe)))
                got, expected = derivative(*arguments(probe, "float64")), hessians()[probe.name]
                scale = np.max(np.abs(expected))
                np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-14 * scale)


@pytest.mark.slow
@PROBED
def test_gradient_is_the_same_without_a_compiler(probe):
    grads = jax.grad(probe.fn, argnums(probe))(*arguments(probe, "float32"))
    np.testing.assert_allclose(grads, gradients("float32")[probe.name], rtol=1e-6)


@PROBED
def test_value_is_the_plain_one_where_that_is_a_number(probe):
    expected = float(plain()[probe.name][0])
    if np.isfinite(expected) and probe.fails != "wrong":
        tiny = 1e-20 if "tiny" in probe.name else 0  # plain norms lose these
        np.testing.assert_allclose(values()[probe.name], expected, rtol=1e-6, atol=tiny)


@PROBED
def test_plain_jax_does_what_the_table_says(probe):
    grads = np.stack(plain()[probe.name][1])
    if probe.fails == "nan":
        assert np.any(np.isnan(grads))
    elif probe.fails == "inf":
        assert np.any(np.isinf(grads))
        assert not np.any(np.isnan(grads))
    elif probe.fails == "wrong":
        assert np.all(np.isfinite(grads))
        with np.errstate(divide="ignore", invalid="ignore"):
            assert np.nanmax(np.abs(grads / np.array(judged(probe, "float32")) - 1)) > 0.1
    else:
        assert_close(grads, judged(probe, "float32"), "float32")


def test_more_than_half_of_the_edges_defeat_plain_jax():
    failing = [probe for probe in PROBES if probe.fails in ("nan", "inf")]
    assert len(PROBES) >= 37
    assert 2 * len(failing) > len(PROBES)


def test_the_judge_knows_a_wrong_gradient():
    from mpmath import mp

    assert judge.slope(abs, (0,), 0) == 0
    assert judge.slope(lambda x: abs(x) + 3 * x, (0,), 0) == 2
    assert judge.slope(mp.sqrt, (4,), 0) == 0.25
    assert judge.slope(mp.sqrt, (0,), 0) == 0
    assert judge.curvature(mp.exp, (0,), 0) == 1
    with pytest.raises(AssertionError):
        assert_close(0.5, judge.slope(mp.sqrt, (4,), 0), "bfloat16")
