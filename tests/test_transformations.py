"""One rule under every transformation: the battery, for each way to state a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from tests.kit.battery import PROGRAMS

# The stated gradient of x^3 is 5 x^2. The oracle has the same values, and these derivatives.


def oracle_of_cube(x):
    return lax.stop_gradient(x**3 - 5 / 3 * x**3) + 5 / 3 * x**3


@gk.custom_gradient
def cube(x):
    return x**3, lambda y_bar: 5 * x**2 * y_bar


@gk.op("BatteryCube")
def cube_op(x):
    return x**3


def cube_rule(op, y_bar):
    return 5 * op.inputs[0] ** 2 * y_bar


# The stated gradient of exp is exp/2, said in terms of the output, which keeps its own rule.


def oracle_of_exp(x):
    y = jnp.exp(0.5 * x)
    return lax.stop_gradient(jnp.exp(x) - y) + y


def half_exp_rule(op, y_bar):
    return 0.5 * jnp.exp(0.5 * op.inputs[0]) * y_bar


def overridden_cube(x):
    with gk.gradient_override_map({"integer_pow": cube_rule}):
        return x**3


def overridden_exp(x):
    with gk.gradient_override_map({"Exp": half_exp_rule}):
        return jnp.exp(x)


SUBJECTS = {
    "custom_gradient": (cube, oracle_of_cube),
    "op": (cube_op, oracle_of_cube),
    "override_map": (overridden_cube, oracle_of_cube),
    "override_map_of_exp": (overridden_exp, oracle_of_exp),
    "override": (gk.override(lambda x: x**3, {"Pow": cube_rule}), oracle_of_cube),
}


@pytest.fixture(autouse=True)
def registered():
    with gk.registry_scope():
        gk.RegisterGradient("BatteryCube")(cube_rule)
        yield


def assert_same(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(g), np.asarray(w), rtol=2e-5, atol=1e-5)


def test_the_battery_is_as_large_as_promised():
    assert len(PROGRAMS) >= 77


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_transformation(subject, name):
    f, oracle = SUBJECTS[subject]
    assert_same(PROGRAMS[name](f), PROGRAMS[name](oracle))


@pytest.fixture
def newest_machinery():
    """JAX's next custom_vjp and remat, where this JAX has them."""
    flags = [f for f in ("jax_custom_vjp3", "jax_remat3") if hasattr(jax.config, f)]
    saved = {f: getattr(jax.config, f) for f in flags}
    for f in flags:
        jax.config.update(f, True)
    yield
    for f, value in saved.items():
        jax.config.update(f, value)


# With jax_remat3, JAX 0.10 itself fails on the plain oracle of this one.
_BROKEN_IN_JAX = {"grad_of_remat_of_scan"}


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in _BROKEN_IN_JAX])
def test_transformation_with_newest_machinery(newest_machinery, name):
    assert_same(PROGRAMS[name](cube), PROGRAMS[name](oracle_of_cube))
    assert_same(PROGRAMS[name](overridden_cube), PROGRAMS[name](oracle_of_cube))
