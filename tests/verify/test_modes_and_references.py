"""Modes that do not exist, references, surrogates, and what `check` refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import custom_gradient
from gradkit._errors import GradientCheckError
from gradkit.verify import assert_gradients, check
from tests.verify.entries import normal, with_rule
from tests.verify.right import forward_only


def verdicts(report):
    return {summary.mode: summary.verdict for summary in report.modes}


RIGHT_SQUARE = with_rule(lambda x: x * x, lambda r, g: (2 * r[0] * g,))
WRONG_SQUARE = with_rule(lambda x: x * x, lambda r, g: (r[0] * g,))


def test_a_custom_vjp_has_no_forward_mode_and_is_right():
    report = check(RIGHT_SQUARE, normal(3))
    assert report.ok
    assert verdicts(report) == {"reverse": "ok", "forward": "not available"}
    assert "custom_vjp" in str(report)


def test_a_while_loop_has_no_reverse_mode_and_is_right():
    report = check(forward_only, normal(3), order=2)
    assert report.ok
    assert verdicts(report) == {"reverse": "not available", "forward": "ok"}


def test_a_nonlinear_rule_has_no_forward_mode():
    @custom_gradient
    def clipped(x):
        return 2 * x, lambda y_bar: jnp.clip(2 * y_bar, -1, 1)

    report = check(clipped, normal(3))
    assert verdicts(report) == {"reverse": "wrong", "forward": "not available"}


@pytest.mark.parametrize(
    ("function", "mode"), [(RIGHT_SQUARE, "forward"), (forward_only, "reverse")]
)
def test_a_mode_that_is_asked_for_must_exist(function, mode):
    report = check(function, normal(3), modes=(mode,))
    (finding,) = report.findings
    assert (finding.kind, finding.mode) == ("unavailable", mode)
    assert "was asked for" in finding.message


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_one_mode_alone(mode):
    report = check(jnp.tanh, normal(3), modes=mode, order=2)
    assert report.ok
    assert set(verdicts(report)) == {mode}


def test_gradkit_functions_are_checked_in_both_modes():
    @custom_gradient
    def cube(x):
        return x**3, lambda y_bar: 3 * x * x * y_bar

    report = check(cube, normal(3), order=2)
    assert report.ok, report
    assert [summary.verdict for summary in report.modes] == ["ok"] * 4


def test_a_right_rule_agrees_with_its_reference():
    assert check(RIGHT_SQUARE, normal(3), reference=lambda x: x * x, order=2).ok


def test_a_wrong_rule_disagrees_with_its_reference():
    report = check(WRONG_SQUARE, normal(3), reference=lambda x: x * x)
    assert {finding.kind for finding in report.findings} == {"gradient", "reference"}
    assert "disagrees with that of the reference" in str(report)


def test_a_wrong_reference_does_not_accuse_the_rule():
    report = check(RIGHT_SQUARE, normal(3), reference=WRONG_SQUARE)
    assert report.verdict == "inconclusive"
    assert "differences do not side with it" in str(report)


def test_a_reference_that_is_another_function_is_found():
    (finding,) = check(RIGHT_SQUARE, normal(3), reference=lambda x: x * x + 1).findings
    assert "not the same function" in finding.message
    (finding,) = check(RIGHT_SQUARE, normal(3), reference=lambda x: (x, x)).findings
    assert "other shapes or number" in finding.message


def test_a_reference_with_nan_accuses_nobody():
    safe = with_rule(
        lambda x: jnp.sqrt(jnp.sum(x * x)),
        lambda r, g: (g * r[0] / jnp.maximum(jnp.sqrt(jnp.sum(r[0] ** 2)), 1e-30),),
    )
    assert check(safe, np.zeros(3, np.float32), reference=jnp.linalg.norm).ok


def test_the_reference_decides_where_stopped_values_are_out_of_reach():
    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: y * jax.lax.stop_gradient(y), x)

    x = normal(3)
    unsettled = check(looped, x, modes=("reverse",))
    assert unsettled.verdict == "inconclusive"
    assert "give reference=" in str(unsettled)
    settled = check(looped, x, modes=("reverse",), reference=looped)
    assert settled.ok
    assert "the reference decides" in str(settled)


def test_a_surrogate_replaces_the_function():
    through = with_rule(
        lambda x: jnp.sign(x), lambda r, g: (jnp.where(jnp.abs(r[0]) <= 1, g, 0.0),)
    )
    x = np.array([-3.0, -0.4, 0.7, 1.2], np.float32)
    assert check(through, x).verdict == "wrong"
    assert check(through, x, surrogate=lambda x: jnp.clip(x, -1, 1)).ok
    wrong = check(through, x, surrogate=lambda x: jnp.clip(2 * x, -1, 1))
    assert {finding.kind for finding in wrong.findings} == {"gradient", "reference"}


def test_assert_gradients_raises_with_the_report():
    assert assert_gradients(RIGHT_SQUARE, normal(3)).ok
    with pytest.raises(GradientCheckError) as error:
        assert_gradients(WRONG_SQUARE, normal(3))
    assert "a factor of 2 is missing" in str(error.value)
    assert isinstance(error.value, AssertionError)


def test_assert_gradients_does_not_pass_what_is_inconclusive():
    with pytest.raises(GradientCheckError, match="inconclusive"):
        assert_gradients(jnp.log, -1.0)


@pytest.mark.parametrize(
    ("call", "error", "pieces"),
    [
        (lambda: check(jnp.sin, 1), TypeError, ["nothing to differentiate", "'sin'", "int"]),
        (lambda: check(jnp.sin), TypeError, ["no arguments"]),
        (lambda: check(jnp.argmax, normal(3)), TypeError, ["no floating-point result"]),
        (lambda: check(jnp.sin, 0.5, modes=("revers",)), ValueError, ["did you mean 'reverse'"]),
        (lambda: check(jnp.sin, 0.5, modes=()), ValueError, ["modes=()"]),
        (lambda: check(jnp.sin, 0.5, order=0), ValueError, ["order=", "expected: 1, 2, ..."]),
    ],
)
def test_check_refuses(call, error, pieces):
    with pytest.raises(error) as caught:
        call()
    for piece in pieces:
        assert piece in str(caught.value)


def test_what_the_function_raises_passes_through_with_a_note():
    def fails(x):
        raise KeyError("weights")

    with pytest.raises(KeyError) as caught:
        check(fails, 0.5)
    assert any("the function under check, " in note for note in caught.value.__notes__)
    assert any("'test_what" in note and "fails" in note for note in caught.value.__notes__)
