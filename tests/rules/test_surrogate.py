"""Spikes: the value is a step, the derivative that of an antiderivative written independently."""

import functools
import inspect
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import gradkit as gk
from gradkit.rules import surrogate
from tests.kit.battery import PROGRAMS
from tests.rules.cases import ANTIDERIVATIVES, AREAS, V

SPIKES = [name for name in surrogate.__all__ if name != "spike"]
TOLERANCE = {"float64": 1e-7, "float32": 1e-5, "bfloat16": 1e-2}
QUICK = ["arctan", "triangle"]


def slope(fn, v):
    """Central differences in float64."""
    h = 1e-5
    return (np.asarray(fn(v + h)) - np.asarray(fn(v - h))) / (2 * h)


def some_slow(names, quick):
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


def test_every_spike_has_an_antiderivative():
    assert set(ANTIDERIVATIVES) == set(SPIKES)
    assert set(AREAS) < set(SPIKES)


def test_there_are_at_least_twenty():
    with jax.enable_x64(True):
        v = np.linspace(-3, 3, 61) + 0.01
        slopes = {name: np.asarray(getattr(surrogate, name).derivative(v)) for name in SPIKES}
    shapes = {np.round(s / np.abs(s).max(), 6).tobytes() for s in slopes.values()}
    assert len(shapes) >= 20


@functools.cache
def of_all(dtype):
    """By name: the value and its derivative; in one compiled program."""
    functions = {name: getattr(surrogate, name) for name in SPIKES}

    @jax.jit
    def run(v, ones):
        pulls = {name: jax.vjp(f, v) for name, f in functions.items()}
        return {name: (y, pull(ones)[0]) for name, (y, pull) in pulls.items()}

    with jax.enable_x64(True):
        v = jnp.asarray(V, dtype)
        return jax.device_get(run(v, jnp.ones_like(v)))


@pytest.mark.parametrize("name", SPIKES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_derivative_is_that_of_the_antiderivative(name, dtype):
    y, got = of_all(dtype)[name]
    with jax.enable_x64(True):
        want = slope(ANTIDERIVATIVES[name], V.astype(dtype).astype(np.float64))
    assert got.dtype == y.dtype == dtype
    np.testing.assert_array_equal(y.astype(np.float64), V >= 0)
    scale = TOLERANCE[dtype]
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=scale, atol=scale * 1e-2)


@functools.cache
def second_of_all():
    """By name: the derivative, and its own in both modes."""

    @jax.jit
    def run(v, ones):
        results = {}
        for name in SPIKES:
            first = lambda v, f=getattr(surrogate, name): jax.vjp(f, v)[1](ones)[0]
            slopes, pull = jax.vjp(first, v)
            results[name] = slopes, pull(ones)[0], jax.jvp(first, (v,), (ones,))[1]
        return results

    with jax.enable_x64(True):
        # then where slopes are steepest, and far away
        v = jnp.asarray([*V, 0.0, -1e4, 1e4], "float64")
        return jax.device_get(run(v, jnp.ones_like(v)))


@pytest.mark.parametrize("name", SPIKES)
def test_second_derivative_is_that_of_the_first(name):
    slopes, second, forwards = second_of_all()[name]
    with jax.enable_x64(True):
        want = slope(getattr(surrogate, name).derivative, V.astype(np.float64))
    np.testing.assert_allclose(second[:-3], want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(forwards, second, rtol=1e-12, atol=1e-15)
    assert np.isfinite(slopes).all()
    assert np.isfinite(second).all()


@pytest.mark.parametrize("name", AREAS)
def test_area_under_the_derivative(name):
    with jax.enable_x64(True):
        h = jax.jit(getattr(surrogate, name).derivative)
        edges = [0, 0.01, 0.05, 0.1, 0.5, 1, 3, 10, np.inf]
        pieces = itertools.pairwise(edges)
        area = 2 * sum(quad(lambda v: float(h(v)), a, b)[0] for a, b in pieces)
    assert area == pytest.approx(AREAS[name], rel=1e-6)


@pytest.mark.parametrize("name", SPIKES)
def test_at_the_threshold_and_far_away(name):
    fire = getattr(surrogate, name)
    assert fire(np.float32(0)) == 1
    assert np.isfinite(fire.derivative(jnp.array([-1e30, 0, 1e30]))).all()


def test_check_finds_a_slope_that_is_too_steep():
    wrong = surrogate.spike(lambda v: 2 * surrogate.arctan.derivative(v))
    report = gk.check(wrong, V, surrogate=ANTIDERIVATIVES["arctan"], points=0)
    assert not report.ok


def oracle(v):
    smooth = jnp.arctan(jnp.pi * v) / jnp.pi
    return smooth + jax.lax.stop_gradient(jnp.where(v >= 0, 1.0, 0.0) - smooth)


PROGRAMS_QUICK = [
    "jit_of_hessian", "vmap_of_grad_of_scan", "export", "shard_map_explicit_checked",
]  # fmt: skip


@pytest.mark.parametrize("name", some_slow(sorted(PROGRAMS), PROGRAMS_QUICK))
def test_program_has_the_derivatives_of_the_oracle(name):
    got, want = PROGRAMS[name](surrogate.arctan), PROGRAMS[name](oracle)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


@pytest.mark.parametrize(
    ("name", "options", "v", "want"),
    [
        # by hand, from the papers' formulas
        ("superspike", {"beta": 10.0}, 0.1, 0.25),
        ("fast_sigmoid", {"slope": 1.0}, 1.0, 0.25),
        ("sparse_fast_sigmoid", {"slope": 1.0, "bound": 2.0}, -1.0, 0.25),
        ("softsign", {"alpha": 4.0}, 0.25, 0.5),
        ("q_pseudo_spike", {"alpha": 3.0}, 1.0, 0.125),
        ("log_abs", {"alpha": 3.0}, 1.0, 0.75),
        ("clipped_inverse", {"alpha": 2.0}, 4.0, 0.25),
        ("s2nn", {"beta": 3.0}, 2.0, 1.0),
        ("sigmoid", {"alpha": 8.0}, 0.0, 2.0),
        ("tanh", {"alpha": 2.0}, 0.0, 1.0),
        ("arctan", {"alpha": 4.0}, 0.0, 2.0),
        ("erf", {"alpha": np.sqrt(np.pi)}, 0.0, 1.0),
        ("gaussian", {"sigma": 1.0}, 0.0, 0.3989423),
        ("multi_gaussian", {"h": 0.0, "sigma": 1.0}, 0.0, 0.3989423),
        ("exponential", {"alpha": 2.0}, np.log(2.0), 0.25),
        ("square_wave_fourier", {"n": 4, "period": 16.0}, 0.0, 1.0),
        ("rectangle", {"width": 4.0}, 1.9, 0.25),
        ("triangle", {"gamma": 1.0}, 0.25, 0.75),
        ("piecewise_linear", {"beta": 2.0}, 0.25, 0.5),
        ("piecewise_quadratic", {"alpha": 2.0}, 0.25, 1.0),
        ("piecewise_leaky_relu", {"w": 2.0, "c": 0.3}, 1.0, 0.25),
        ("leaky_relu", {"leak": 0.3}, -1.0, 0.3),
        ("log_tailed_relu", {"alpha": 0.3}, -1.0, 0.3),
    ],
    ids=str,
)
def test_parameters(name, options, v, want):
    fire = getattr(surrogate, name)
    np.testing.assert_allclose(jax.grad(lambda v: fire(v, **options))(v), want, rtol=1e-6)


def test_defaults_of_the_literature():
    """Values that spikingjelly, snnTorch, norse and the papers have."""
    defaults = {
        name: [p.default for p in _parameters(getattr(surrogate, name))][1:] for name in SPIKES
    }
    assert defaults["superspike"] == [100]
    assert defaults["fast_sigmoid"] == [25]
    assert defaults["sparse_fast_sigmoid"] == [25, 1]
    assert defaults["sigmoid"] == [4]
    assert defaults["arctan"] == defaults["erf"] == defaults["softsign"] == [2]
    assert defaults["q_pseudo_spike"] == [2]
    assert defaults["exponential"] == defaults["log_abs"] == [1]
    assert defaults["piecewise_quadratic"] == defaults["rectangle"] == [1]
    assert defaults["triangle"] == defaults["clipped_inverse"] == [0.3]
    assert defaults["multi_gaussian"] == [0.15, 6, 0.5]
    assert defaults["s2nn"] == [4, 1]
    assert defaults["square_wave_fourier"] == [2, 8]
    assert defaults["piecewise_leaky_relu"] == [1, 0.01]
    assert defaults["log_tailed_relu"] == [0]


def _parameters(fire):
    return inspect.signature(fire).parameters.values()


def test_parameters_may_be_traced_and_get_no_gradient():
    gradient = jax.jit(jax.grad(surrogate.arctan, (0, 1)))
    np.testing.assert_allclose(gradient(0.3, 3.0)[0], surrogate.arctan.derivative(0.3, 3.0))
    assert gradient(0.3, 3.0)[1] == 0


def test_the_formula_is_not_called_before_it_is_needed():
    def broken(v):
        raise ZeroDivisionError("planted")

    fire = surrogate.spike(broken)
    assert jax.jit(fire)(1.0) == 1
    with pytest.raises(ZeroDivisionError, match="planted"):
        jax.grad(fire)(1.0)


def test_integers_count_as_numbers_and_complex_ones_are_refused():
    assert surrogate.tanh(jnp.array([-1, 0])).tolist() == [0, 1]
    with pytest.raises(TypeError) as error:
        surrogate.tanh(1j)
    assert "'tanh' is defined for real numbers only." in str(error.value)
    assert "got:      complex64" in str(error.value)


def test_a_spike_is_pickled_by_reference_and_shows_its_name():
    assert pickle.loads(pickle.dumps(surrogate.superspike)) is surrogate.superspike
    assert repr(surrogate.superspike) == "<spike superspike>"
