"""`find_nonfinite` names each planted origin, and blames no program that is correct."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.debug import find_nonfinite
from tests.debug import bank

RULES = {
    "rule_of_custom_vjp": bank._doubled_bwd,
    "rule_of_custom_jvp": bank._tripled_jvp,
    "rule_of_custom_gradient": bank.halved,
    "inside_flax": bank.Head,
    "inside_equinox": bank.Layer,
}


def name_of(case):
    return case.f.__name__


def line_of(case):
    """The planted line, in the function itself or in what it calls."""
    elsewhere = RULES.get(case.f.__name__)
    if elsewhere is None:
        return case.line
    return bank.Planted(elsewhere, (), "", "").line


def is_finite(f, args):
    """Are value and gradient finite, as JAX computes them?"""

    def total(x):
        out = f(x, *args[1:])
        return sum(jnp.sum(y) for y in jax.tree.leaves(out))

    value, gradient = jax.value_and_grad(total)(jax.tree.map(jnp.asarray, args[0]))
    return all(np.isfinite(x).all() for x in jax.tree.leaves((value, gradient)))


@pytest.mark.parametrize("case", bank.PLANTED, ids=name_of)
def test_the_planted_origin_is_named(case):
    origin = find_nonfinite(case.f, *case.args)
    assert origin is not None
    assert (origin.primitive, origin.direction) == (case.primitive, case.direction), str(origin)
    assert (origin.index, origin.iteration) == (case.index, case.iteration), str(origin)
    assert origin.argument == case.argument
    assert origin.masked == case.masked
    assert origin.advice
    if not case.argument:
        assert origin.source == f"tests/debug/bank.py:{line_of(case)}", str(origin)
        assert origin.scope == case.scope


@pytest.mark.parametrize("case", bank.INTENDED, ids=lambda case: case[0].__name__)
def test_a_correct_program_is_not_blamed(case):
    f, args = case
    origin = find_nonfinite(f, *args)
    assert origin is None, str(origin)


WRAPPERS = {
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, x: (c, f(x)), 0.0, x[None])[1][0],
    "cond": lambda f: lambda x: jax.lax.cond(x[0] > -1, f, jnp.sum, x),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    "f",
    [
        bank.sqrt_behind_where,
        bank.log_of_zero,
        bank.rule_of_custom_vjp,
        bank.rule_of_custom_gradient,
        bank.every_logit_masked,
    ],
    ids=lambda f: f.__name__,
)
def test_the_origin_is_the_same_under_a_transformation(f, wrapper):
    plain = find_nonfinite(f, bank.SOME)
    wrapped = find_nonfinite(WRAPPERS[wrapper](f), bank.SOME)
    for name in ("primitive", "direction", "source", "kind", "masked"):
        assert getattr(wrapped, name) == getattr(plain, name), name


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("f", [bank.attention_mask, bank.double_where], ids=lambda f: f.__name__)
def test_correct_programs_stay_blameless_under_a_transformation(f, wrapper):
    assert find_nonfinite(WRAPPERS[wrapper](f), bank.SOME) is None


@pytest.mark.parametrize("case", bank.PLANTED, ids=name_of)
def test_jax_agrees_that_the_planted_programs_are_not_finite(case):
    if isinstance(case.args[0], bank.Layer):
        return
    assert not is_finite(partial(case.f), case.args)
