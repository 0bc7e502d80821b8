"""Functions with a rule and without a case: at which arguments they are checked."""

import json

import jax.numpy as jnp
import pytest

from gradkit import custom_gradient
from gradkit.cli._guess import guess_specs


def images(x):
    assert x.ndim == 4
    return x


def two_or_more(x):
    assert x.size == 1 or x.ndim >= 2
    return x.sum()


def branches(x):
    return x * x if float(x.sum()) > 0 else x


def keyword_with_default(x, *, scale=2.0):
    return scale * x


def annotated(x, n: int, flag: "bool", slope: float):
    assert flag is True
    return slope * x**n


def keyword_without_default(x, *, scale):
    return scale * x


@pytest.mark.parametrize(
    ("function", "specs"),
    [
        (jnp.sin, ("f32[3]",)),
        (jnp.log, ("f32[3]>0",)),
        (jnp.matmul, ("f32[3]", "f32[3]")),
        (lambda w, b: (w @ w.T) @ b[:, None], ("f32[3,3]", "f32[3]")),
        (two_or_more, ("f32[]",)),
        (images, ("f32[1,4,4,2]",)),
        (branches, ("f32[3]",)),
        (lambda *xs: sum(xs), ("f32[3]",)),
        (lambda a, b, c, d: a * b * c * d, ("f32[3]",) * 4),
        (lambda x, n=2: x**n, ("f32[3]",)),
        (lambda x=1.0: x, ("f32[3]",)),
        (keyword_with_default, ("f32[3]",)),
        (annotated, ("f32[3]", "2", "True", "0.5")),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_first_shapes_that_fit(function, specs):
    assert guess_specs(function, 0) == specs


@pytest.mark.parametrize(
    "function",
    [
        keyword_without_default,
        lambda x: x.shape,
        lambda x: x.astype(int),
        lambda x: x + jnp.nan,
        lambda: 1.0,
    ],
    ids=["keyword", "no array", "integers", "nan", "no parameter"],
)
def test_where_nothing_fits(function):
    assert guess_specs(function, 0) is None


def test_a_broken_protocol_is_shown_and_not_passed_over():
    assert guess_specs(custom_gradient(lambda x: x), 0) == ("f32[3]",)


def test_rules_without_a_case_are_found_and_the_rest_is_listed(run):
    result = run("check", "rules.py", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(r["function"], r["case"]) for r in found["results"]] == [
        ("rules.py:square", "guessed f32[3]"),
        ("rules.py:huber", "guessed f32[3]"),
        ("rules.py:declared", "1"),
        ("rules.py:Layer.triple", "guessed f32[3]"),
    ]
    assert found["no_point"] == ["rules.py:conv", "rules.py:Layer.method"]
    again = found["results"][0]["reproduce"]
    assert again == "gradkit check rules.py:square --arg 'f32[3]' --points 0 --seed 0"


def test_functions_without_a_point_change_no_exit_code(run):
    result = run("check", "rules.py", "-k", "declared or conv")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    at = lines.index("no point: declare a case, or give --arg")
    assert lines[at + 1 : at + 3] == ["  rules.py:conv", ""]


def test_a_named_function_with_a_rule_is_guessed_too(run, calls):
    run("check", "rules.py:Layer.triple")
    (call,) = calls
    assert call[1][0].shape == (3,)


@pytest.mark.parametrize(
    ("target", "piece"),
    [
        ("pointless.py", "no point found for pointless.py:conv"),
        ("pointless.py:conv", "declares no case"),
    ],
)
def test_nothing_but_functions_without_a_point_is_an_error(run, target, piece):
    result = run("check", target)
    assert result.exit_code == 2
    assert piece in result.stderr
