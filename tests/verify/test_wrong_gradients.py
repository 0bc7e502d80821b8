"""Planted wrong gradients are found, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check
from tests.verify.entries import entry_id, normal, with_rule
from tests.verify.wrong import WRONG


@pytest.mark.parametrize("entry", WRONG, ids=entry_id)
def test_wrong_gradient_is_found(entry):
    report = check(entry.function, *entry.args)
    assert report.verdict == "wrong", report
    assert set(entry.kinds) <= {finding.kind for finding in report.findings}, report


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("entry", WRONG, ids=entry_id)
def test_wrong_gradient_is_found_for_every_seed(entry, seed):
    assert check(entry.function, *entry.args, seed=seed).verdict == "wrong"


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (-1.0, "the sign is flipped"),
        (2.0, "too large by a factor of 2"),
        (0.5, "a factor of 2 is missing"),
        (0.0, "the argument is ignored"),
        (7.0, "a sum instead of a mean"),
        (1 / 7, "a mean instead of a sum"),
        (1.7, "a constant factor of 1.7"),
    ],
)
def test_a_constant_factor_is_named(factor, cause):
    rule = with_rule(jnp.sin, lambda r, g: (factor * jnp.cos(r[0]) * g,))
    (finding,) = check(rule, normal(7)).findings
    assert cause in finding.cause
    assert cause in str(finding)


def test_coarse_arithmetic_of_a_rule_is_named():
    rule = with_rule(lambda x: x * x, lambda r, g: (_round(2 * r[0] * g),))
    causes = [finding.cause for finding in check(rule, normal(3)).findings]
    assert "the rule computes in bfloat16, its function in float32" in causes


def _round(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


def test_the_argument_is_named_by_its_path():
    def backward(residuals, y_bar):
        params, x = residuals
        return {"b": 2 * y_bar, "w": y_bar * x}, y_bar * params["w"]

    affine = with_rule(lambda params, x: params["w"] * x + params["b"], backward)
    params = {"w": normal(3), "b": normal(3)}
    (finding,) = check(affine, params, normal(3)).findings
    assert finding.argument == "args[0]['b']"
    assert finding.got == pytest.approx(2 * finding.expected)
    assert finding.error == pytest.approx(abs(finding.got - finding.expected))
    assert finding.error_bar < 1e-6


def test_only_the_wrong_leaf_is_named():
    product = with_rule(lambda a, b: a * b, lambda r, g: (r[1] * g, 2 * r[0] * g))
    findings = check(product, normal(3), normal(3)).findings
    assert {finding.argument for finding in findings} == {"args[1]"}


ORDER_2 = {
    "stopped residual": with_rule(
        lambda x: x**3, lambda r, g: (3 * jax.lax.stop_gradient(r[0]) ** 2 * g,)
    ),
    "wrong rule inside a rule": with_rule(
        lambda x: x**3,
        lambda r, g: (with_rule(lambda x: 3 * x * x, lambda r, g: (r[0] * g,))(r[0]) * g,),
    ),
}


@pytest.mark.parametrize("name", ORDER_2)
def test_wrong_second_order_is_found_only_there(name):
    assert check(ORDER_2[name], normal(3)).ok
    report = check(ORDER_2[name], normal(3), order=2)
    assert {finding.order for finding in report.findings} == {2}


def test_nonlinear_rules_say_so():
    clipped = with_rule(lambda x: x * x, lambda r, g: (jnp.clip(2 * r[0] * g, -1, 1),))
    texts = [finding.message for finding in check(clipped, normal(3)).findings]
    assert any("not linear in its cotangent" in text for text in texts)
    affine = with_rule(lambda x: x * x, lambda r, g: (2 * r[0] * g + 1,))
    texts = [finding.message for finding in check(affine, normal(3)).findings]
    assert any("a cotangent of zeros does not give zeros" in text for text in texts)


def test_an_error_in_a_rule_is_a_finding_with_its_text():
    def backward(residuals, y_bar):
        raise RuntimeError("no gradient today")

    (finding,) = check(with_rule(jnp.sin, backward), 0.5).findings
    assert finding.kind == "error"
    assert "RuntimeError: no gradient today" in finding.message


def test_types_are_compared_in_the_types_of_the_user():
    half = with_rule(lambda x: x * x, lambda r, g: ((2 * r[0] * g).astype(jnp.float32),))
    (finding,) = check(half, np.ones(3, np.float16)).findings
    assert finding.kind == "structure"
    assert "float32[3]" in finding.message
    assert "float16[3]" in finding.message
