"""`overridable_ops` lists what can be overridden, with the key to write."""

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk


@gk.op("SurveyOp")
def survey_op(x):
    return 2 * x


@gk.custom_gradient
def survey_custom(x):
    return x * 1.0, lambda y_bar: y_bar


@jax.jit
def block(x):
    return jnp.tanh(x)


def model(x):
    with jax.named_scope("encoder"):
        x = jnp.square(jax.nn.relu(x))
        x = survey_op(survey_custom(jax.nn.silu(x)))
    x, _ = jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=3)
    return block(x).sum() + jnp.square(x).max()


@pytest.fixture
def found():
    return {(o.key, o.scope): o for o in gk.overridable_ops(model, jnp.ones((2, 3)))}


def test_nested_calls_scopes_and_counts(found):
    assert found["relu", "encoder"].kind == "function"
    assert found["relu", "encoder"].tensorflow == ("Relu",)
    assert found["square", "encoder"].count == 1
    assert found["square", ""].shapes == ("float32[2, 3]",)
    assert found["silu", "encoder"].kind == "function"
    assert found["sin", ""].count == 1
    assert found["SurveyOp", "encoder"].kind == "op"
    assert found["survey_custom (the object)", "encoder"].kind == "custom_gradient"
    assert found["block (the object)", ""].kind == "function"


def test_what_has_its_own_derivative_is_not_looked_into(found):
    assert not any(key == "max" for key, _ in found)  # inside relu


def test_each_key_can_be_overridden(found):
    keys = [o.key for o in found.values() if "(the object)" not in o.key]
    for key in keys:
        with gk.gradient_override_map({key: None}):
            model(jnp.ones((2, 3)))  # a key without a match would warn, which is an error


def test_shape_structs_and_static_arguments():
    ops = gk.overridable_ops(
        lambda x, name, n: jnp.square(x) * n, jax.ShapeDtypeStruct((4,), "bfloat16"), "name", 2
    )
    assert [o.key for o in ops] == ["square", "mul"]
    assert "bfloat16[4]" in str(ops)


def test_nothing_to_override_prints_a_header():
    assert str(gk.overridable_ops(lambda x: x, 1.0)).startswith("key")
