"""Gradients that are right where they are tried, and wrong elsewhere; and what may be left out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check, point_at
from tests.verify.entries import normal, with_rule


def square_wrong_where(condition):
    return with_rule(
        lambda x: x * x, lambda r, g: (jnp.where(condition(r[0]), 1.0, 2.0) * r[0] * g,)
    )


POSITIVE = np.array([0.5, 1.5, 2.0], np.float32)


@pytest.mark.parametrize(
    ("condition", "point"),
    [
        (lambda x: x < 0, "signs flipped"),
        (lambda x: jnp.abs(x) > 50, "scaled by 100"),
        (lambda x: jnp.abs(x) < 0.02, "scaled by 0.01"),
        (lambda x: jnp.abs(x) > 1e4, "scaled by 100000"),
        (lambda x: (x > -3.6) & (x < -3.0), "around -3.5"),
    ],
    ids=["below zero", "large", "small", "huge", "in a window"],
)
def test_wrong_elsewhere_is_found_and_the_point_is_named(condition, point):
    function = square_wrong_where(condition)
    report = check(function, POSITIVE)
    assert report.verdict == "wrong", report
    assert check(function, POSITIVE, points=0).ok
    assert check(function, POSITIVE, points=(point,)).verdict == "wrong"
    found = {finding.point for finding in report.findings}
    (there,) = point_at(*found, POSITIVE, seed=report.seed)
    assert check(function, there, points=0).verdict == "wrong"


def test_ties_that_nobody_asked_for_are_looked_at():
    def backward(residuals, y_bar):
        a, b = residuals
        return (a >= b) * y_bar, (b >= a) * y_bar

    report = check(with_rule(jnp.maximum, backward), normal(3), normal(3))
    assert {(f.kind, f.point) for f in report.findings} == {("kink", "zeros")}
    report = check(with_rule(jnp.maximum, backward), normal(3), normal(3), points=("ties",))
    assert {(f.kind, f.point) for f in report.findings} == {("kink", "ties")}


def test_the_domain_is_respected():
    function = square_wrong_where(lambda x: x < 0)
    assert check(function, POSITIVE, domain=lambda x: (x > 0).all()).ok


def test_points_outside_the_domain_of_the_numbers_are_passed_over():
    report = check(jnp.log, POSITIVE)
    assert report.ok
    assert "signs flipped" not in report.points
    assert "all positive" in report.points


def test_the_budget_is_kept_and_what_is_left_out_is_said():
    report = check(square_wrong_where(lambda x: x < 0), POSITIVE, budget=0.0)
    assert report.ok
    assert report.points == ("given",)
    assert any("the time was up" in note for note in report.notes)


def first_row_twice(x, w):
    return x @ w


def _first_row_twice_bwd(residuals, y_bar):
    x, w = residuals
    factor = 2.0 if x.shape[0] == 1 else 1.0
    return factor * y_bar @ w.T, x.T @ y_bar


def test_wrong_for_one_row_only():
    report = check(with_rule(first_row_twice, _first_row_twice_bwd), normal(5, 3), normal(3, 2))
    assert {f.point for f in report.findings} == {"axes of length 5 made 1"}
    x, w = point_at("axes of length 5 made 1", normal(5, 3), normal(3, 2))
    assert (x.shape, w.shape) == ((1, 3), (3, 2))


def test_wrong_for_repeated_integers_only():
    def backward(residuals, y_bar):
        table, ids = residuals
        return jnp.zeros_like(table).at[ids].set(y_bar), None

    lookup = with_rule(lambda table, ids: table[ids], backward)
    report = check(lookup, normal(4, 2), np.array([0, 3, 1]))
    assert {f.point for f in report.findings} == {"integers from 0 to 3"}


def test_wrong_for_another_flag_only():
    @jax.custom_vjp
    def scaled(x, twice):
        return 2 * x if twice else x

    scaled.defvjp(lambda x, twice: (scaled(x, twice), None), lambda _, y_bar: (2 * y_bar, None))
    report = check(lambda x, twice: scaled(x, twice), normal(3), True)
    assert {f.point for f in report.findings} == {"flags flipped"}


def test_a_point_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="did you mean 'signs flipped'"):
        point_at("signs fliped", normal(3))
    with pytest.raises(ValueError, match="points= of check"):
        check(jnp.sin, 0.5, points=-1)


def test_plain_code_far_away_is_not_accused():
    report = check(lambda x: 1 / (1 + jnp.exp(-x)), normal(3))
    assert report.ok, report


def test_nan_in_a_region_nearby_is_found_in_plain_code():
    report = check(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum(), np.array([1.0, 2.0, -0.0]))
    assert report.verdict != "ok"


def test_nan_at_an_isolated_kink_is_a_note():
    def backward(residuals, y_bar):
        (x,) = residuals
        return (y_bar * x / jnp.sqrt(jnp.sum(x * x)),)

    report = check(with_rule(lambda x: jnp.sqrt(jnp.sum(x * x)), backward), normal(3))
    assert report.ok
    assert any("zeros" in note and "not finite" in note for note in report.notes)


def test_a_host_function_that_raises_outside_its_domain_is_right():
    def logarithm(x):
        if (x <= 0).any():
            raise ValueError("not for these")
        return np.log(x).astype(x.dtype)

    def on_host(x):
        kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(logarithm, kind, x, vmap_method="sequential")

    report = check(with_rule(on_host, lambda r, g: (g / r[0],)), POSITIVE)
    assert report.ok, report
    assert "signs flipped" not in report.points


@pytest.mark.parametrize("factor", [1.0, 3.0], ids=["right", "wrong"])
def test_a_host_function_that_raises_a_step_away_is_judged(factor):
    def arcsine(x, slope):
        x = np.asarray(x)
        if (abs(x) > 1).any():
            raise ValueError("not for these")
        return (factor / np.sqrt(1 - x * x) if slope else np.arcsin(x)).astype(x.dtype)

    def on_host(x, slope=False):
        kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
        call = functools.partial(arcsine, slope=slope)
        return jax.pure_callback(call, kind, x, vmap_method="sequential")

    rule = with_rule(lambda x: on_host(x), lambda r, g: (g * on_host(r[0], slope=True),))
    report = check(rule, np.float32([0.1, 0.9, -0.95]))
    assert report.verdict == ("ok" if factor == 1 else "wrong"), report


def test_wrong_for_another_key_only():
    def dropped(x, key):
        return x * jax.random.bernoulli(key, 0.5, x.shape)

    def backward(residuals, y_bar):
        return dropped(y_bar, jax.random.key(0)), None

    report = check(with_rule(dropped, backward), normal(9), jax.random.key(0))
    assert {f.point for f in report.findings} == {"another key"}


def test_large_functions_are_looked_at_less(monkeypatch):
    monkeypatch.setattr("gradkit.verify._truth._LARGE", 10)
    report = check(square_wrong_where(lambda x: x > 1e9), POSITIVE)
    assert report.ok
    assert len(report.points) == 4
    assert any("the function is large" in note for note in report.notes)
    assert check(square_wrong_where(lambda x: x > 1), POSITIVE).verdict == "wrong"
