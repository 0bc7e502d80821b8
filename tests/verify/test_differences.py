"""Finite differences know how far they are off."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify._differences import Line
from gradkit.verify._precision import Precision

FINE = Precision(jnp.float64)

# f along the line, its derivative at 0.
SMOOTH = {
    "sin": (np.sin, 1.0),
    "exp": (np.exp, 1.0),
    "cubic": (lambda t: t**3 + 2 * t + 1, 2.0),
    "line": (lambda t: 3 * t + 1, 3.0),
    "constant": (lambda t: 0.0 * t + 5, 0.0),
    "fast": (lambda t: np.sin(1e4 * t), 1e4),
    "slow": (lambda t: np.sin(1e-4 * t), 1e-4),
    "steep sigmoid": (lambda t: 1 / (1 + np.exp(-1e3 * t)), 250.0),
    "pole nearby": (lambda t: 1 / (1e-3 + t), -1e6),
    "kink nearby": (lambda t: np.abs(t - 1e-4), -1.0),
    "large offset": (lambda t: 1e8 + np.sin(t), 1.0),
    "edge nearby": (lambda t: np.sqrt(t + 1e-6) if t > -1e-6 else math.nan, 500.0),
}


def line_of(function, precision=FINE):
    def evaluate(steps):
        return np.array([[[function(t)]] for t in steps], float)

    return Line(evaluate, np.array([abs(function(0.0))]), precision)


@pytest.mark.parametrize("name", SMOOTH)
def test_error_is_within_six_bars(name):
    function, derivative = SMOOTH[name]
    estimate = line_of(function).full
    assert estimate.distance(np.array([derivative]))[0] <= 6 * estimate.bar[0] + 1e-13


@pytest.mark.parametrize("name", SMOOTH)
def test_full_ladder_is_accurate(name):
    function, derivative = SMOOTH[name]
    estimate = line_of(function).full
    assert not estimate.kinked[0]
    assert estimate.low[0] == pytest.approx(derivative, rel=1e-4, abs=1e-9)
    assert estimate.bar[0] <= 1e-4 * max(1.0, abs(derivative))


@pytest.mark.parametrize("name", ["sin", "exp", "cubic", "line", "constant"])
def test_the_short_ladder_settles_smooth_functions(name):
    function, derivative = SMOOTH[name]
    estimate = line_of(function).short
    assert estimate.distance(np.array([derivative]))[0] <= 6 * estimate.bar[0] + 1e-13
    assert estimate.bar[0] < 1e-8


def test_a_kink_gives_both_one_sided_derivatives():
    estimate = line_of(lambda t: 3 * t if t > 0 else -t).full
    assert estimate.kinked[0]
    assert (estimate.low[0], estimate.high[0]) == pytest.approx((-1.0, 3.0))
    inside, outside = np.array([0.5]), np.array([5.0])
    assert estimate.distance(inside)[0] == 0
    assert estimate.distance(outside)[0] == pytest.approx(2.0)


def test_the_edge_of_a_domain_gives_the_one_sided_derivative():
    estimate = line_of(lambda t: t * t + t if t >= 0 else math.nan).full
    assert estimate.low[0] == estimate.high[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda t: math.sqrt(t) if t >= 0 else math.nan,  # infinite slope
        lambda t: math.nan,
        lambda t: 1.0 if t > 0 else 0.0,  # a jump
    ],
)
def test_where_there_is_no_derivative_the_bar_is_wide(function):
    estimate = line_of(function).full
    assert estimate.bar[0] > 0.4 * abs(estimate.low[0])


def test_noise_widens_the_bar():
    rng = np.random.default_rng(0)
    estimate = line_of(lambda t: np.sin(t) + 1e-6 * rng.standard_normal()).full
    assert estimate.distance(np.array([1.0]))[0] <= 6 * estimate.bar[0]
    assert 1e-8 < estimate.bar[0] < 1e-2


def test_samples_see_through_the_stairs_of_coarse_arithmetic():
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-0.05, 0.05, 32)
    precision = Precision(jnp.bfloat16)

    def stairs(ts):
        return np.round(np.sin(0.5 + ts[:, None] + shifts) * 64)[..., None] / 64

    estimate = Line(stairs, np.array([0.5]), precision).full
    assert estimate.distance(np.array([np.cos(0.5)]))[0] <= 6 * estimate.bar[0]
    assert estimate.bar[0] < 0.05
