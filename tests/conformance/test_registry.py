"""`tf.RegisterGradient`, case by case: the registry, and the operation that a rule receives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit._errors import RegistryError, RuleError, UnknownGradientError
from tests.conformance.differentiate import gradients, overridden_gradients
from tests.conformance.recorded import assert_matches
from tests.conformance.registered import RULES, times_10


@pytest.mark.ports("reg_op_surface")
def test_rule_sees_the_complete_operation(case):
    """Strings are Python strings, and `name` holds the named scopes."""
    seen = {}

    def spy(op, y_bar):
        with pytest.raises(LookupError, match="'nope'") as missing:
            op.get_attr("nope")
        seen.update(
            type=op.type,
            name=op.name,
            attrs=sorted(op.attrs),
            n_in=len(op.inputs),
            n_out=len(op.outputs),
            shapes=[value.shape for value in (*op.inputs, *op.outputs)],
            dtype=op.inputs[0].dtype.name,
            missing=missing.value,
            dy_shape=list(y_bar.shape),
        )
        return y_bar, y_bar

    def gram(x):
        with jax.named_scope("mm"):
            return lax.dot(x.T, x)

    x = case.inputs["x"]
    recorded = case["seen"]
    assert_matches(overridden_gradients(gram, {"MatMul": spy}, x)[1], case["grad"])
    for key in "n_in", "n_out", "dtype", "dy_shape":
        assert seen[key] == recorded[key]
    # Of JAX is the type, and a transposed operand is an operation of its own.
    assert (recorded["type"], seen["type"]) == ("MatMul", "dot_general")
    assert (recorded["name"], seen["name"]) == ("mm", "mm/dot_general")
    assert recorded["transpose_a"]
    assert "dimension_numbers" in seen["attrs"]
    assert seen["shapes"] == [(2, 2)] * 3
    # Whoever catches TensorFlow's error catches gradkit's, which says what there is.
    assert recorded["missing"].type == "ValueError"
    assert isinstance(seen["missing"], ValueError)
    assert "'dimension_numbers'" in str(seen["missing"])


@pytest.mark.ports("reg_op_surface")
def test_a_key_with_a_scope_names_the_scopes_around_a_jitted_function(case):
    """`x.T @ x` is jitted: JAX starts its names anew in there, and caches what it traced."""
    seen = []

    def spy(op, y_bar):
        seen.append(op.name)
        return y_bar, y_bar

    def gram(x):
        with jax.named_scope("mm"):
            return x.T @ x

    overridden_gradients(gram, {"mm:MatMul": spy}, case.inputs["x"])
    assert case["seen"]["name"] == "mm"
    assert set(seen) == {"mm/dot_general"}
    seen.clear()
    overridden_gradients(gram, {"MatMul": spy}, case.inputs["x"])
    assert set(seen) == {"dot_general"}


@pytest.mark.ports("reg_op_surface")
def test_attributes_of_an_operation_are_its_keyword_only_arguments(case):
    seen = {}

    @gk.op("ConformanceProduct")
    def product(a, b, *, transpose_a=False, precision="highest"):
        return (a.T if transpose_a else a) @ b

    @gk.RegisterGradient("ConformanceProduct")
    def _(op, y_bar):
        seen.update(op.attrs, type=op.type, name=op.name)
        return y_bar, y_bar

    x = case.inputs["x"]
    got = gradients(lambda x: product(x, x, transpose_a=True), x)[1]
    assert_matches(got, case["grad"])
    assert seen.pop("transpose_a") == case["seen"]["transpose_a"]
    assert seen.pop("precision") == "highest"
    assert seen == {"type": "ConformanceProduct", "name": "ConformanceProduct"}


@pytest.mark.ports("reg_eager_new_op")
def test_registered_gradient_of_an_operation_with_several_outputs(case):
    """JAX, unlike TensorFlow, knows a gradient of `lu` by itself, so here it is overridden."""
    seen = {}

    def rule(op, lu_bar, pivots_bar, permutation_bar):
        seen.update(type=op.type, name=op.name, outputs=op.outputs, inputs=op.inputs)
        assert pivots_bar.dtype == permutation_bar.dtype == jax.dtypes.float0
        return lu_bar * 5.0

    gk.RegisterGradient("ConformanceLu")(rule)
    x = case.inputs["x"]
    got = overridden_gradients(lambda x: lax.linalg.lu(x)[0], {"Lu": "ConformanceLu"}, x)[1]
    assert_matches(got, case["after"])
    recorded = case["op"]
    assert (recorded["type"], seen["type"]) == ("Lu", "lu")
    assert (recorded["has_name"], seen["name"]) == (False, "lu")  # in TensorFlow's eager mode
    assert recorded["T"] == seen["inputs"][0].dtype.name == seen["outputs"][0].dtype.name
    assert recorded["dp"].tolist() == [0, 0]  # the cotangent of integers


@pytest.mark.ports("reg_eager_new_op")
def test_operation_without_a_registered_gradient_can_require_one(case):
    @gk.op("ConformanceFactor", require_gradient=True)
    def factor(x):
        lu, _, permutation = lax.linalg.lu(x)
        return lu, permutation

    x = case.inputs["x"]
    assert case["before"].type == "LookupError"
    with pytest.raises(LookupError, match="'ConformanceFactor' requires a gradient"):
        gradients(lambda x: factor(x)[0], x)
    gk.RegisterGradient("ConformanceFactor")(lambda op, lu_bar, p_bar: lu_bar * 5.0)
    assert_matches(gradients(lambda x: factor(x)[0], x)[1], case["after"])


@pytest.mark.ports("reg_errors")
def test_second_registration_is_an_error_that_names_the_first(case):
    """TensorFlow reports where its own registry was called; replacing is not possible there."""
    code = times_10.__code__
    first = rf"times_10 at registered\.py:{code.co_firstlineno}"
    assert case["duplicate"].type == case["nondiff_duplicate"].type == "KeyError"
    with pytest.raises(RegistryError, match=rf"'CzTimes10'(.|\n)*{first}(.|\n)*replace=True"):
        gk.RegisterGradient("CzTimes10")(lambda op, y_bar: y_bar)
    with pytest.raises(RegistryError, match=rf"'CzTimes10'(.|\n)*{first}"):
        gk.NotDifferentiable("CzTimes10")
    assert gk.get_gradient("CzTimes10") is times_10


@pytest.mark.ports("reg_errors")
def test_gradient_that_exists_from_the_start_is_not_overwritten_by_accident(case):
    assert case["duplicate_builtin"].type == "KeyError"
    with pytest.raises(RegistryError, match=r"'Identity'(.|\n)*gradkit"):
        gk.RegisterGradient("Identity")(lambda op, y_bar: 2.0 * y_bar)


@pytest.mark.ports("reg_errors")
def test_registered_gradient_can_be_replaced_on_purpose(case):
    assert "Registering two gradient" in case["duplicate"].message
    replacement = gk.RegisterGradient("CzTimes10", replace=True)(lambda op, y_bar: 20.0 * y_bar)
    assert gk.get_gradient("CzTimes10") is replacement
    x_bars = overridden_gradients(jnp.square, {"Square": "CzTimes10"}, np.float32(3))[1]
    assert x_bars == [20]


@pytest.mark.ports("reg_errors")
def test_name_must_be_a_string(case):
    for output, register in {
        "not_string": gk.RegisterGradient,
        "nondiff_not_string": gk.NotDifferentiable,
    }.items():
        assert case[output].type == "TypeError"
        with pytest.raises(RuleError, match=r"(.|\n)*string(.|\n)*int") as error:
            register(3)
        assert isinstance(error.value, TypeError)


@pytest.mark.ports("reg_errors")
def test_unknown_name_is_a_lookup_error(case):
    assert case["lookup"].type == "LookupError"
    with pytest.raises(UnknownGradientError, match="'Nope'") as error:
        gk.get_gradient("Nope")
    assert isinstance(error.value, LookupError)
    with pytest.raises(UnknownGradientError, match="did you mean 'CzTimes10'"):
        gk.get_gradient("CzTime10")


@pytest.mark.ports("reg_errors")
def test_registering_returns_the_function_unchanged(case):
    def rule(op, y_bar):
        return y_bar

    assert (gk.RegisterGradient("ConformanceSame")(rule) is rule) == case["returns_same_function"]
    assert gk.registered_gradients()["ConformanceSame"] is rule
    assert RULES.keys() < gk.registered_gradients().keys()


def times_77(op, y_bar):
    return y_bar * 77.0


@pytest.mark.ports("reg_swap_registry_entry")
def test_rule_is_changed_by_an_override_also_in_a_compiled_function(case):
    """TensorFlow's users swap the registry's entry: too late for a function that was traced."""
    x = jnp.asarray(case.inputs["x"])
    compiled = jax.jit(lambda x: jnp.square(x))
    assert_matches(gradients(compiled, x)[1], case["warm"])
    with gk.gradient_override_map({"Square": times_77}):
        assert_matches(gradients(jnp.square, x)[1], case["swapped_before"])
        assert_matches(gradients(compiled, x)[1], case["swapped_before"])
        _, pull = jax.vjp(compiled, x)
    assert case["cached_function"][0].tolist() == [2, 4]
    # It binds where the operation is called, so the scope may have ended ...
    assert_matches(pull(jnp.ones(2)), case["swapped_before"])
    # ... and afterwards nothing is left of it.
    assert_matches(gradients(compiled, x)[1], case["warm"])


@pytest.mark.ports("reg_swap_registry_entry")
def test_registered_rule_of_a_compiled_operation_is_changed_by_an_override(case):
    x = jnp.asarray(case.inputs["x"])

    @gk.op("ConformanceSquare")
    def square(x):
        return jnp.square(x)

    gk.RegisterGradient("ConformanceSquare")(lambda op, y_bar: 2.0 * op.inputs[0] * y_bar)
    compiled = jax.jit(square)
    assert_matches(gradients(compiled, x)[1], case["warm"])
    got = overridden_gradients(compiled, {"ConformanceSquare": times_77}, x)[1]
    assert_matches(got, case["swapped_before"])
    assert_matches(gradients(compiled, x)[1], case["warm"])


@pytest.mark.ports("reg_swap_registry_entry")
def test_operation_called_before_the_override_keeps_its_gradient(case):
    """In TensorFlow the late look-up changes what has been recorded already."""
    x = jnp.asarray(case.inputs["x"])
    _, pull = jax.vjp(jnp.square, x)

    def own_rule(op, y_bar):
        return 77 * y_bar

    with (
        pytest.warns(gk.UnusedOverrideWarning, match="'Square'"),
        gk.gradient_override_map({"Square": own_rule}),
    ):
        assert_matches(pull(jnp.ones(2)), case["warm"])
    assert case["swapped_after_forward"].tolist() == [77, 77]


@pytest.mark.ports("reg_swap_registry_entry")
def test_inputs_and_outputs_are_never_missing(case):
    """TensorFlow's eager mode leaves out what the built-in rule does not need."""
    seen = []

    def spy(op, y_bar):
        seen.append((len(op.inputs), len(op.outputs), None in (*op.inputs, *op.outputs)))
        return y_bar

    overridden_gradients(jax.nn.relu, {"Relu": spy}, np.float32(1))
    assert (case["relu_inputs_is_none"], case["relu_outputs_is_none"]) == (True, False)
    assert set(seen) == {(1, 1, False)}


@pytest.mark.parametrize("key", ["PyFunc", "PyFuncStateless"])
@pytest.mark.ports("reg_pyfunc_override")
def test_numpy_function_gets_a_gradient_by_its_type(case, key):
    x = case.inputs["x"]

    def host_sin(x):
        return jax.pure_callback(np.sin, jax.typeof(x), x, vmap_method="expand_dims")

    assert case["op"] == "PyFunc"
    y, x_bars = overridden_gradients(host_sin, {key: "CzPyFuncCos"}, x)
    assert_matches([y, x_bars], [case["y"], case["g"]])


@pytest.mark.filterwarnings("error")
@pytest.mark.ports("reg_pyfunc_override")
def test_numpy_function_gets_a_gradient_by_the_recipe_with_both_types(case):
    """Both types mean JAX's `pure_callback`."""
    x = case.inputs["x"]

    def host_sin(x):
        return jax.pure_callback(np.sin, jax.typeof(x), x, vmap_method="expand_dims")

    recipe = {"PyFunc": "CzPyFuncCos", "PyFuncStateless": "CzPyFuncCos"}
    assert_matches(overridden_gradients(host_sin, recipe, x), [case["y"], case["g"]])
