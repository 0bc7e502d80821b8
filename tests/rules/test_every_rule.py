"""What holds for each public rule: it has a case, an example, and passes the house's own check."""

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk
from gradkit import rules
from gradkit.rules import surrogate
from tests.rules.cases import ANTIDERIVATIVES, COTANGENTS, HOOKS, SURROGATES, V, X

NAMES = [entry.name for entry in rules.CATALOGUE]
SPIKES = {f"surrogate.{name}": (getattr(surrogate, name), s) for name, s in ANTIDERIVATIVES.items()}
NO_RULES = {"CATALOGUE", "VectorQuantized", "surrogate", "spike"}
FIRST_ORDER = {"binarize"}
"""Its oracle holds still what the second derivative moves."""
POINTS = {"dorefa_weights": X[:1]}
"""Of X its derivative cancels to nothing but rounding, on which the check makes no verdict."""
QUICK = {("lsq", "bfloat16"), ("surrogate.arctan", "float64"), ("clip_by_value", "float32")}
DRAWN = {"add_noise", "dorefa_gradients"}
"""The check computes in float64, where the draws are others."""
AT_X = {"penalize", "z_loss", "clip_adaptive"}
"""Their charts are those at X."""


def test_every_rule_is_in_the_catalogue_and_has_a_case():
    public = set(rules.__all__) | {f"surrogate.{name}" for name in surrogate.__all__}
    assert set(NAMES) == public - NO_RULES - {"surrogate.spike"}
    assert set(NAMES) == {*SPIKES, *SURROGATES, *COTANGENTS, *HOOKS}
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("entry", rules.CATALOGUE, ids=lambda entry: entry.name)
def test_every_rule_has_an_example_and_says_where_it_is_from(entry):
    document = entry.function.__doc__
    assert ">>> " in document
    assert "Args:" in document
    assert ("arXiv:" in entry.source) <= (entry.source.rpartition("arXiv:")[2] in document)


def sweep(names):
    both = [(name, dtype) for name in names for dtype in ("float64", "float32", "bfloat16")]
    return [
        pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow, id="-".join(each))
        for each in both
        if each[0] not in DRAWN or each[1] == "float64"
    ]


@pytest.mark.parametrize(("name", "dtype"), sweep([*SURROGATES, *SPIKES]))
def test_check_of_a_surrogate_to_second_order(name, dtype):
    f, s = {**SURROGATES, **SPIKES}[name]
    order = 1 if name in FIRST_ORDER else 2
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(V if name in SPIKES else POINTS.get(name, X), dtype)
        report = gk.check(f, x, surrogate=s, order=order, points=0)
    assert report.ok, str(report)
    assert {summary.mode for summary in report.modes} == {"reverse", "forward"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SURROGATES, *SPIKES])
def test_check_of_a_surrogate_at_other_points(name):
    f, s = {**SURROGATES, **SPIKES}[name]
    x = jnp.asarray(V if name in SPIKES else POINTS.get(name, X))
    report = gk.check(f, x, surrogate=s, order=1 if name in FIRST_ORDER else 2)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*COTANGENTS} - DRAWN - AT_X))
def test_check_of_a_cotangent_map_at_other_points(name):
    f, chart = COTANGENTS[name]
    report = gk.check(f, jnp.asarray(X), cotangent_map=chart)
    assert report.ok, str(report)


@pytest.mark.parametrize(("name", "dtype"), sweep(COTANGENTS))
def test_check_of_a_cotangent_map(name, dtype):
    f, chart = COTANGENTS[name]
    with jax.enable_x64(dtype == "float64"):
        report = gk.check(f, jnp.asarray(X, dtype), cotangent_map=chart, points=0)
    assert report.ok, str(report)


def test_check_finds_a_wrong_map():
    f, chart = COTANGENTS["clip_by_value"]
    assert not gk.check(f, X[0], cotangent_map=lambda y_bar: 2 * chart(y_bar), points=0).ok
