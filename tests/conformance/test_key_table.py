"""TensorFlow's types as keys: which public function is reached by which type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit._errors import OverrideKeyError

X = np.array([1.5], np.float32)

# What stands on the left of `op_type_names`, in JAX.
SPELLINGS = {
    "round": jnp.round,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "square": jnp.square,
    "x_times_x": lambda x: x * x,
    "x_pow_2": lambda x: x**2,
    "exp": jnp.exp,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "add": lambda x: x + 1.0,
    "sub": lambda x: x - 1.0,
    "div": lambda x: x / 2.0,
    "neg": lambda x: -x,
    "reduce_sum": jnp.sum,
    "reduce_mean": jnp.mean,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "abs": jnp.abs,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "stop_gradient": lax.stop_gradient,
    "where": lambda x: jnp.where(x > 0, x, x),
    "clip_by_value": lambda x: jnp.clip(x, 0.0, 1.0),
    "cast": lambda x: x.astype(jnp.float16),
    "identity": jnp.copy,
    "softmax": jax.nn.softmax,
    "matmul_2d": lambda x: x.reshape(1, 1) @ x.reshape(1, 1),
    "matmul_3d": lambda x: x.reshape(1, 1, 1) @ x.reshape(1, 1, 1),
    "einsum": lambda x: jnp.einsum("i,i->i", x, x),
    "concat": lambda x: jnp.concatenate([x, x], 0),
}

# TensorFlow's type names a composite, or the last operation of one, that JAX spells otherwise.
WITHOUT_COUNTERPART = {
    "reduce_mean": "Sum",  # jnp.mean divides a sum
    "silu": "Sigmoid",  # TensorFlow's silu is a custom gradient, hence its IdentityN
    "softmax": "Exp",
}
SPELT_OTHERWISE = {
    "clip_by_value": "ClipByValue",  # a maximum of a minimum in TensorFlow
}


def names_of_rules_run(spelling, key):
    """Which operations ran the rule when `spelling` is differentiated under an override."""
    run = []

    def rule(op, *y_bars):
        run.append(op.type)
        return (None,) * len(op.inputs)

    y, pull = jax.vjp(gk.override(SPELLINGS[spelling], {key: rule}), X)
    pull(jnp.ones_like(y))
    return run


@pytest.mark.ports("op_type_names")
def test_every_recorded_function_has_a_spelling(case):
    assert case.outputs.keys() == SPELLINGS.keys()


@pytest.mark.parametrize(
    "spelling", [s for s in SPELLINGS if s not in WITHOUT_COUNTERPART | SPELT_OTHERWISE]
)
@pytest.mark.ports("op_type_names")
def test_tensorflows_type_reaches_the_function(case, spelling):
    assert names_of_rules_run(spelling, case[spelling])


@pytest.mark.parametrize("spelling", WITHOUT_COUNTERPART)
@pytest.mark.ports("op_type_names")
def test_type_without_a_counterpart_is_refused_with_advice_that_works(case, spelling):
    advice = WITHOUT_COUNTERPART[spelling]
    with pytest.raises(OverrideKeyError, match=f"'{case[spelling]}' has no single counterpart"):
        gk.override(SPELLINGS[spelling], {case[spelling]: "Identity"})
    assert names_of_rules_run(spelling, advice)


@pytest.mark.parametrize("spelling", SPELT_OTHERWISE)
@pytest.mark.ports("op_type_names")
def test_function_that_jax_keeps_whole_has_a_type_of_its_own(case, spelling):
    assert case[spelling] != SPELT_OTHERWISE[spelling]
    assert names_of_rules_run(spelling, SPELT_OTHERWISE[spelling])
