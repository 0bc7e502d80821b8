"""A finding names the coordinate and the bug where the numbers tell."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check
from tests.verify.entries import normal, with_rule

RAMP = jnp.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize("size", [12, 1000, 10_000])
def test_one_wrong_coordinate_is_named(size):
    index = size - 5
    function = with_rule(
        lambda x: jnp.sin(x).sum(), lambda r, g: ((jnp.cos(r[0]) * g).at[index].multiply(1.01),)
    )
    (finding,) = check(function, normal(size)).findings
    assert finding.index == (index,)
    assert finding.where == f"args[0][{index}]"
    assert len(finding.evidence.steps) == len(finding.evidence.slopes) > 5
    assert np.abs(finding.evidence.errors).max() > 0


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (lambda x: jnp.where(x < 0, 0.5, 1), "wrong only where the argument is below zero"),
        (lambda x: jnp.where(x > 0, 0.5, 1), "wrong only where the argument is above zero"),
        (lambda x: jnp.where(abs(x) > 1, 0.5, 1), "wrong only where the argument is larger than"),
        (lambda x: jnp.where(abs(x) < 1, 0.5, 1), "wrong only where the argument is smaller than"),
    ],
)
def test_what_the_wrong_coordinates_have_in_common_is_named(factor, cause):
    x = np.array([0.3, -0.4, 1.7, -1.9, 0.8, -2.2, 1.2, -0.1], np.float32)
    function = with_rule(lambda x: x * x, lambda r, g: (factor(r[0]) * 2 * r[0] * g,))
    (finding,) = check(function, x).findings
    assert cause in finding.cause


def test_a_transposed_derivative_is_named():
    function = with_rule(
        lambda x: jnp.sum(jnp.sin(x) * RAMP), lambda r, g: ((jnp.cos(r[0]) * RAMP).T * g,)
    )
    (finding,) = check(function, normal(3, 3)).findings
    assert finding.cause == "the derivative is transposed"


def test_a_cotangent_that_is_not_multiplied_in_is_named():
    report = check(with_rule(lambda x: x * x, lambda r, g: (2 * r[0],)), normal(3))
    causes = {finding.cause for finding in report.findings}
    assert "the cotangent is not multiplied in" in causes


def test_less_precision_than_the_function_has_a_name():
    def rounded(x):
        return x.astype(jnp.bfloat16).astype(x.dtype)

    function = with_rule(jnp.sin, lambda r, g: (rounded(jnp.cos(r[0]) * g),))
    (finding,) = check(function, normal(3)).findings
    assert finding.kind == "precision"
    assert "the rule computes in bfloat16, its function in float32" in finding.cause
