"""New operation types whose gradient is found in the registry."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk


@pytest.fixture(autouse=True)
def scope():
    with gk.registry_scope():
        yield


@gk.op("TestPower")
def power(x, *, n=2, label="p"):
    """The n-th power."""
    return x**n


def record_into(seen, result=lambda op, *bars: bars[0]):
    def rule(op, *y_bars):
        seen.append(op)
        return result(op, *y_bars)

    return rule


def test_an_unregistered_op_differentiates_by_autodiff():
    assert float(jax.grad(power)(3.0)) == 6.0
    assert float(jax.grad(lambda x: power(x, n=3))(2.0)) == 12.0


def test_a_registered_op_uses_its_rule_under_jit_and_vmap():
    gk.RegisterGradient("TestPower")(lambda op, y_bar: 100.0 * op.get_attr("n") * y_bar)
    assert float(power(3.0)) == 9.0
    assert float(jax.grad(power)(3.0)) == 200.0
    assert float(jax.jit(jax.grad(lambda x: power(x, n=3)))(3.0)) == 300.0
    np.testing.assert_array_equal(jax.vmap(jax.grad(power))(jnp.ones(3)), 200 * np.ones(3))
    np.testing.assert_array_equal(jax.jacfwd(power)(jnp.ones(2)), 200 * np.eye(2))


def test_the_op_record_is_complete():
    seen = []
    gk.RegisterGradient("TestPower")(record_into(seen))
    for run in (jax.grad, lambda f: jax.jit(jax.grad(f)), lambda f: jax.grad(jax.jit(f))):
        seen.clear()

        def call(x):
            with jax.named_scope("encoder"):
                return power(x, n=3)

        run(call)(2.0)
        op = seen[-1]
        assert op.type == "TestPower"
        assert op.name == "encoder/TestPower"
        assert len(op.inputs) == 1
        assert len(op.outputs) == 1
        assert dict(op.attrs) == {"n": 3, "label": "p"}
        assert op.get_attr("label") == "p"


def test_a_missing_attribute_says_which_there_are():
    seen = []
    gk.RegisterGradient("TestPower")(record_into(seen))
    jax.grad(power)(2.0)
    with pytest.raises(gk.UnknownAttributeError) as error:
        seen[0].get_attr("lable")
    assert "operation 'TestPower' of type 'TestPower' has no attribute 'lable'" in str(error.value)
    assert "did you mean 'label'" in str(error.value)
    assert "expected: 'n', 'label'" in str(error.value)


def test_attributes_are_read_only():
    seen = []
    gk.RegisterGradient("TestPower")(record_into(seen))
    jax.grad(power)(2.0)
    with pytest.raises(TypeError):
        seen[0].attrs["n"] = 5


def test_default_vjp_is_what_jax_would_have_done():
    gk.RegisterGradient("TestPower")(lambda op, y_bar: jnp.clip(op.default_vjp(y_bar), -5, 5))
    assert float(jax.grad(power)(3.0)) == 5.0
    assert float(jax.grad(power)(1.0)) == 2.0
    assert float(jax.jit(jax.grad(power))(-3.0)) == -5.0


def test_default_vjp_of_several_inputs_and_outputs():
    @gk.op("TestTwo")
    def two(x, n, y):
        return x * y * n, x + y

    gk.RegisterGradient("TestTwo")(
        lambda op, u_bar, v_bar: tuple(
            None if bar is None else 2 * bar for bar in op.default_vjp(u_bar, None)
        )
    )
    grad = jax.grad(lambda x, y: sum(two(x, 3, y)), argnums=(0, 1))
    assert [float(g) for g in grad(2.0, 5.0)] == [30.0, 12.0]


def test_outputs_keep_the_rule_at_second_order():
    @gk.op("TestExp")
    def exp(x):
        return jnp.exp(x)

    gk.RegisterGradient("TestExp")(lambda op, y_bar: 0.5 * op.outputs[0] * y_bar)
    d = exp
    for factor in (0.5, 0.25, 0.125):  # natural differentiation of y would give 0.5 each time
        d = jax.grad(d)
        np.testing.assert_allclose(d(1.0), factor * np.e, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(d)(1.0), factor * np.e, rtol=1e-6)


def test_require_gradient():
    @gk.op("TestStrict", require_gradient=True)
    def strict(x):
        return 2 * x

    assert float(strict(3.0)) == 6.0
    assert float(jax.jit(strict)(3.0)) == 6.0
    for run in (jax.grad(strict), jax.jit(jax.grad(strict)), jax.grad(jax.jit(strict))):
        with pytest.raises(gk.UnknownGradientError) as error:
            run(3.0)
        assert "operation type 'TestStrict' requires a gradient" in str(error.value)
        assert '@gradkit.RegisterGradient("TestStrict")' in str(error.value)
    gk.RegisterGradient("TestStrict")(lambda op, y_bar: 7 * y_bar)
    assert float(jax.grad(strict)(3.0)) == 7.0


def test_not_differentiable_gives_zero():
    gk.NotDifferentiable("TestPower")
    assert float(jax.grad(power)(3.0)) == 0.0
    assert float(jax.grad(lambda x: power(x) + x)(3.0)) == 1.0
    assert float(jax.jvp(power, (3.0,), (1.0,))[1]) == 0.0


def test_several_inputs_integers_and_none():
    @gk.op("TestMix")
    def mix(x, n, y):
        return x * n + y

    gk.RegisterGradient("TestMix")(lambda op, y_bar: (10 * y_bar, None, None))
    grad = jax.grad(lambda x, y: mix(x, 3, y), argnums=(0, 1))
    assert [float(g) for g in grad(1.0, 2.0)] == [10.0, 0.0]


def test_errors_of_a_registered_rule_name_type_and_argument():
    @gk.op("TestAdd")
    def add(left, right):
        return left + right

    gk.RegisterGradient("TestAdd")(lambda op, y_bar: y_bar)
    with pytest.raises(gk.CotangentError, match="gradient of 'TestAdd'(.|\n)*'left', 'right'"):
        jax.grad(add)(1.0, 2.0)
    gk.RegisterGradient("TestAdd", replace=True)(lambda op, y_bar: (y_bar, jnp.ones(3)))
    with pytest.raises(gk.CotangentError, match=r"argument 1, 'right'(.|\n)*float32\[3\]"):
        jax.grad(add)(1.0, 2.0)


def test_methods():
    class Layer:
        @gk.op("TestMethod")
        def apply(self, x):
            return 2 * x

    seen = []
    gk.RegisterGradient("TestMethod")(record_into(seen))
    assert float(jax.grad(Layer().apply)(3.0)) == 1.0
    assert len(seen[0].inputs) == 1


def test_wraps_pickles_and_has_a_name():
    assert power.__name__ == "power"
    assert power.__doc__ == "The n-th power."
    assert repr(power) == "<op TestPower>"
    assert pickle.loads(pickle.dumps(power)) is power
    with pytest.raises(gk.RuleError, match="non-empty string"):
        gk.op(3)


def test_changing_the_registered_rule_reaches_eager_calls():
    gk.RegisterGradient("TestPower")(lambda op, y_bar: 7 * y_bar)
    assert float(jax.grad(power)(3.0)) == 7.0
    gk.RegisterGradient("TestPower", replace=True)(lambda op, y_bar: 8 * y_bar)
    assert float(jax.grad(power)(3.0)) == 8.0
