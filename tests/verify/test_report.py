"""Reports read well and turn into JSON."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check
from tests.verify.entries import normal, with_rule

WRONG = check(with_rule(jnp.sin, lambda r, g: (2 * jnp.cos(r[0]) * g,)), normal(3))


def test_the_text_says_what_is_wrong_where_and_by_how_much():
    text = str(WRONG)
    assert text.startswith("gradient of 'sin': WRONG (computed in float64)")
    for piece in ("reverse mode, order 1, args[0]", "expected: ", "got: ", "cause: ", " +- "):
        assert piece in text
    assert "Array(" not in text
    assert "array(" not in text


def test_a_right_report_is_short():
    report = check(jnp.sin, 0.5)
    assert str(report).splitlines()[0] == "gradient of 'sin': ok (computed in float64)"
    assert len(str(report).splitlines()) == 3
    assert report.findings == report.inconclusive == ()


def test_json_holds_everything():
    found = json.loads(json.dumps(WRONG.to_dict(), allow_nan=False))
    assert found["verdict"] == "wrong"
    assert found["ok"] is False
    assert found["findings"][0]["argument"] == "args[0]"
    assert {mode["mode"] for mode in found["modes"]} == {"reverse", "forward"}


def test_json_of_infinite_numbers():
    report = check(jnp.sqrt, 0.0)
    json.dumps(report.to_dict(), allow_nan=False)


def test_reports_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        WRONG.seed = 1


def test_the_same_seed_gives_the_same_report():
    x = np.linspace(0, 1, 5, dtype=np.float32)
    assert check(jnp.tanh, x, seed=3) == check(jnp.tanh, x, seed=3)
    assert check(jnp.tanh, x, seed=3) != check(jnp.tanh, x, seed=4)


def test_worst_is_the_comparison_nearest_to_its_tolerance():
    assert WRONG.worst.verdict == "wrong"
    assert WRONG.worst.error > WRONG.worst.tolerance
