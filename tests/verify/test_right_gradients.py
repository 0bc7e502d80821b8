"""Right gradients are called right, also those that are hard to judge."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check
from tests.verify.entries import entry_id, normal
from tests.verify.right import RIGHT


@pytest.mark.parametrize("entry", RIGHT, ids=entry_id)
def test_right_gradient_is_ok(entry):
    report = check(entry.function, *entry.args)
    assert report.ok, report


# Second derivatives that do not exist, at any point nearby either, or that JAX gives as NaN.
NO_SECOND_ORDER = {"power 3/2 at 0", "edge of the domain"}


@pytest.mark.parametrize("entry", [e for e in RIGHT if e.name not in NO_SECOND_ORDER], ids=entry_id)
def test_right_gradient_is_ok_at_order_2(entry):
    report = check(entry.function, *entry.args, order=2, seed=1)
    assert report.ok, report
    assert {summary.order for summary in report.modes} == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("entry", RIGHT, ids=entry_id)
def test_right_gradient_is_ok_for_every_seed(entry, seed):
    report = check(entry.function, *entry.args, seed=seed)
    assert report.ok, report


def test_a_kink_is_noted():
    report = check(jax.nn.relu, np.zeros(3, np.float32), order=2)
    assert any("args[0] is at a kink" in note for note in report.notes)
    assert any("order 2 is checked next to the kink" in note for note in report.notes)


def test_the_process_may_run_in_float64():
    with jax.enable_x64(True):
        report = check(jnp.tanh, normal(3, dtype=np.float64))
    assert report.ok
    assert report.precision == "float64"


def test_nothing_is_left_switched_on():
    check(jnp.tanh, 0.5)
    assert jnp.ones(2).dtype == jnp.float32


def test_keyword_arguments_go_through_partial():
    report = check(functools.partial(jax.nn.leaky_relu, negative_slope=0.3), normal(3))
    assert report.ok
    assert report.name == "leaky_relu"


def test_a_derivative_that_rounding_hides_is_inconclusive():
    # The second argument changes a value of 1e11 by 1e-8.
    report = check(lambda a, b: 1e6 * a.sum() + jnp.sum(b * b), 1e5 * normal(4), 1e-4 * normal(3))
    assert report.verdict == "inconclusive"
    assert not report.ok
    assert {finding.argument for finding in report.inconclusive} == {"args[1]"}


def test_a_value_that_is_not_finite_is_inconclusive():
    report = check(jnp.log, -1.0)
    assert report.verdict == "inconclusive"
    assert "value is not finite" in str(report)


def test_an_infinite_slope_is_inconclusive():
    report = check(jnp.sqrt, 0.0)
    assert report.verdict == "inconclusive"
    assert "do not settle on a slope" in str(report)
