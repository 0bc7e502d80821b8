"""`tf.custom_gradient`, case by case: what its rule receives, returns and is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit._errors import ClosureGradientError, CotangentError, RuleError
from tests.conformance.differentiate import gradients
from tests.conformance.recorded import assert_matches


@gk.custom_gradient
def seven(x):
    return x * x, lambda y_bar: 7.0 * y_bar


@gk.custom_gradient
def rounded(x):
    return jnp.round(x), lambda y_bar: y_bar


@gk.custom_gradient
def product_passing_to_first(x, y):
    return x * y, lambda z_bar: (z_bar, None)


# -- what a rule returns ----------------------------------------------------------------------


@pytest.mark.ports("cg_log1pexp_stable")
def test_stated_gradient_is_finite_where_autodiff_is_nan(case):
    @gk.custom_gradient
    def log1pexp(x):
        e = jnp.exp(x)
        return jnp.log(1 + e), lambda y_bar: y_bar * (1 - 1 / (1 + e))

    x = case.inputs["x"]
    y, (x_bar,) = gradients(log1pexp, x)
    assert_matches([y, x_bar], [case["y"], case["grad"]])
    y, (x_bar,) = gradients(lambda x: jnp.log(1 + jnp.exp(x)), x)
    assert_matches([y, x_bar], [case["naive_y"], case["naive_grad"]])


@pytest.mark.parametrize("form", ["single", "list", "tuple"])
@pytest.mark.ports("cg_return_forms")
def test_one_gradient_may_stand_alone_or_in_a_container(case, form):
    wrap = {"single": lambda g: g, "list": lambda g: [g], "tuple": lambda g: (g,)}[form]
    f = gk.custom_gradient(lambda x: (x * x, lambda y_bar: wrap(y_bar * 7.0)))
    assert_matches(gradients(f, case.inputs["x"])[1], [case[form]])


@pytest.mark.ports("cg_return_forms")
def test_decorator_may_be_called_without_arguments(case):
    @gk.custom_gradient()
    def f(x):
        return x * x, lambda y_bar: y_bar * 7.0

    assert_matches(gradients(f, case.inputs["x"])[1], [case["decorator_called_empty"]])


@pytest.mark.ports("cg_return_forms")
def test_dict_of_gradients_for_several_arguments_is_refused(case):
    """TensorFlow takes the dict in sorted-key order, whatever the arguments are called."""

    @gk.custom_gradient
    def f(x, y):
        return x * y, lambda z_bar: {"y": z_bar * 2.0, "x": z_bar * 1.0}

    assert case["dict_two"] == [1, 2]
    with pytest.raises(CotangentError, match=r"'f' returned a dict(.|\n)*'x', 'y'"):
        gradients(f, case.inputs["x"], jnp.float32(4))


@pytest.mark.ports("cg_none_gradient")
def test_none_means_zero(case):
    @gk.custom_gradient
    def nothing(x):
        return x * x, lambda y_bar: None

    x, y = case.inputs["x"], case.inputs["y"]
    _, x_bars = gradients(product_passing_to_first, x, y)
    assert_matches(x_bars, case["none"])
    assert_matches(x_bars, case["zero"])
    assert_matches(gradients(nothing, x)[1], case["single_none"])
    assert_matches(gradients(lambda x: nothing(x) + x, x)[1], case["none_plus_other_path"])


@pytest.mark.ports("cg_none_gradient_function")
def test_none_means_zero_under_jit(case):
    x, y = case.inputs["x"], case.inputs["y"]
    assert_matches(gradients(jax.jit(product_passing_to_first), x, y)[1], case["none"])


@gk.custom_gradient
def one_for_two(x, y):
    return x * y, lambda z_bar: z_bar


@gk.custom_gradient
def two_for_one(x):
    return x * x, lambda y_bar: (y_bar, y_bar)


@gk.custom_gradient
def empty_for_one(x):
    return x * x, lambda y_bar: []


@pytest.mark.parametrize(
    ("output", "f", "message"),
    [
        ("too_few", one_for_two, r"'one_for_two'(.|\n)*expected: 2,(.|\n)*'x', 'y'\n  got:      1"),
        ("too_many", two_for_one, r"'two_for_one'(.|\n)*expected: 1,(.|\n)*'x'\n  got:      2"),
        ("empty", empty_for_one, r"'empty_for_one'(.|\n)*expected: 1,(.|\n)*'x'\n  got:      0"),
    ],
    ids=["too few", "too many", "empty"],
)
@pytest.mark.ports("cg_wrong_count_eager", "cg_wrong_count_graph")
def test_wrong_number_of_gradients_is_an_error_at_trace_time(cases, output, f, message):
    eager, graph = cases
    assert eager[output].type == "ValueError"
    assert "IdentityN" in graph["too_few"].message
    assert "IdentityN" in graph["too_many"].message  # neither function nor argument
    xs = list(eager.inputs.values())[: 2 if output == "too_few" else 1]
    with pytest.raises(CotangentError, match=message):
        gradients(f, *xs)
    with pytest.raises(CotangentError, match=message):
        jax.jit(lambda *xs: gradients(f, *xs)).lower(*xs)


# -- shapes and types of gradients ------------------------------------------------------------


@gk.custom_gradient
def five_for_two(x):
    return x * 1.0, lambda y_bar: jnp.ones(5, x.dtype)


@gk.custom_gradient
def float64_for_float32(x):
    return x * 1.0, lambda y_bar: jnp.ones(2, jnp.float64)


@gk.custom_gradient
def scalar_for_vector(x):
    return jnp.sum(x), lambda y_bar: y_bar


@gk.custom_gradient
def number_for_vector(x):
    return x * 1.0, lambda y_bar: 1.0


MISFITS = {
    "shape5": (five_for_two, r"float32\[5\]"),
    "float64": (float64_for_float32, r"float64\[2\](.|\n)*astype\('float32'\)"),
    "scalar_for_vector": (scalar_for_vector, r"float32\[\]"),
    "python_float": (number_for_vector, r"\[\]"),
}


def misfit_message(f, got):
    name = f.__name__
    return rf"'{name}'(.|\n)*argument 0, 'x'\n  expected: float32\[2\](.|\n)*got:      .*{got}"


@pytest.mark.parametrize("output", MISFITS)
@pytest.mark.ports("cg_shape_dtype_mismatch_eager")
def test_gradient_of_another_type_is_an_error_where_tensorflow_is_silent(case, output):
    f, got = MISFITS[output]
    (wrong,) = np.atleast_1d(case[output]) if output == "python_float" else case[output]
    assert (np.shape(wrong), np.asarray(wrong).dtype) != ((2,), np.float32)
    with jax.enable_x64(True), pytest.raises(CotangentError, match=misfit_message(f, got)):
        gradients(f, case.inputs["x"])


@pytest.mark.parametrize(
    ("output", "f", "outer"),
    [
        ("shape5_chained", "shape5", lambda f: lambda x: f(x * 2.0)),
        ("shape5_accumulated", "shape5", lambda f: lambda x: f(x) + x),
        ("float64_chained", "float64", lambda f: lambda x: f(x * 2.0)),
    ],
    ids=["shape, chained", "shape, accumulated", "dtype, chained"],
)
@pytest.mark.ports("cg_shape_dtype_mismatch_eager")
def test_error_names_the_rule_and_not_what_follows_it(case, output, f, outer):
    """TensorFlow says nothing, or blames the addition or the product that meets the gradient."""
    recorded = case[output]
    assert isinstance(recorded, list) or f not in recorded.message
    f, got = MISFITS[f]
    with jax.enable_x64(True), pytest.raises(CotangentError, match=misfit_message(f, got)):
        gradients(outer(f), case.inputs["x"])


@pytest.mark.parametrize(
    ("output", "f"),
    [("shape", "shape5"), ("dtype_silently_float64", "float64"), ("python_float", "python_float")],
)
@pytest.mark.ports("cg_shape_dtype_mismatch_graph")
def test_gradient_of_another_type_is_an_error_at_trace_time(case, output, f):
    recorded = case[output]
    assert isinstance(recorded, list) or "argument 0" not in recorded.message
    f, got = MISFITS[f]
    x = case.inputs["x"]
    with jax.enable_x64(True), pytest.raises(CotangentError, match=misfit_message(f, got)):
        jax.jit(lambda x: gradients(f, x)).lower(x)


@pytest.mark.ports("cg_shape_dtype_mismatch_eager")
def test_python_number_is_a_gradient_of_a_scalar(case):
    """TensorFlow hands the number itself on, also for a vector."""
    assert case["python_float_is_python_float"]
    x_bar = jax.grad(number_for_vector)(jnp.float32(3))
    assert_matches(x_bar, np.array(case["python_float"], np.float32))


@pytest.mark.ports("cg_mixed_precision_boundary")
def test_rule_may_cross_between_precisions(case):
    @gk.custom_gradient
    def halved_precision(x):
        y = x.astype(jnp.float16) * 2.0
        return y, lambda y_bar: y_bar.astype(jnp.float32) * 3.0

    y, x_bars = gradients(halved_precision, case.inputs["x"])
    assert y.dtype == case["y_dtype"]
    assert_matches(y.astype(jnp.float32), case["y"])
    assert_matches(x_bars, case["grad"])


@pytest.mark.ports("cg_indexed_slices")
def test_gradient_of_a_few_rows_is_written_out_dense(case):
    """That TensorFlow keeps such gradients as `IndexedSlices` is a property of TensorFlow."""

    @gk.custom_gradient
    def second_row_only(x):
        return x * 2.0, lambda y_bar: jnp.zeros_like(x).at[1].set(y_bar[1] * 5.0)

    x = case.inputs["x"]
    assert_matches(gradients(second_row_only, x)[1], [case["dense"]])
    assert_matches(gradients(lambda x: second_row_only(x) + x, x)[1], [case["accumulated"]])
    _, (x_bar,) = gradients(lambda x: x[jnp.array([0, 0, 2])], x)
    slices = np.zeros_like(x)
    np.add.at(slices, case["gather_indices"], case["gather_values"])
    assert_matches(x_bar, slices)


# -- what a rule receives ---------------------------------------------------------------------


@pytest.mark.ports("cg_dict_output_order")
def test_dict_output_gives_the_rule_one_dict(case):
    """TensorFlow passes one cotangent per entry, in sorted-key order."""
    seen = []

    @gk.custom_gradient
    def f(x):
        def grad(y_bar):
            seen.append(sorted(y_bar))
            return y_bar["a"] * 10.0 + y_bar["b"] * 100.0

        return {"b": x * x, "a": x + 1.0}, grad

    x = jnp.asarray(case.inputs["x"])
    y, pull = jax.vjp(f, x)
    assert_matches(y, {"a": case["a"], "b": case["b"]})
    for output in "a", "b":
        y_bar = dict(zip("ab", map(jnp.asarray, case[f"seen_for_{output}"]), strict=True))
        assert_matches(pull(y_bar), [case[f"d_{output}"]])
        assert_matches(jax.grad(lambda x, output=output: f(x)[output])(x), case[f"d_{output}"])
    assert seen
    assert all(keys == ["a", "b"] for keys in seen)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.ports("cg_kwargs_eager", "cg_kwargs_function")
def test_arguments_passed_by_name_keep_the_rule(cases, jit):
    """By name, TensorFlow loses the rule, asks for fewer gradients or refuses."""
    eager, function = cases

    @gk.custom_gradient
    def f(x, y):
        return x * y, lambda z_bar: (z_bar * 1000.0, z_bar * 1000.0)

    forms = {
        "positional": f,
        "all_kw": lambda a, b: f(x=a, y=b),
        "swapped_kw": lambda a, b: f(y=b, x=a),
        "mixed_two_grads": lambda a, b: f(a, y=b),
    }
    for form in forms.values():
        got = gradients(jax.jit(form) if jit else form, eager.inputs["x"], eager.inputs["y"])[1]
        assert_matches(got, eager["positional"])
    assert [float(g) for g in eager["all_kw"]] == [4, 3]
    assert eager["mixed_two_grads"].type == function["result"].type == "ValueError"


@pytest.mark.ports("cg_kwargs_eager")
def test_argument_passed_by_name_is_owed_a_gradient(case):
    x, y = case.inputs["x"], case.inputs["y"]
    assert case["mixed_one_grad"][1] is None
    with pytest.raises(CotangentError, match=r"expected: 2(.|\n)*'x', 'y'"):
        gradients(lambda x, y: one_for_two(x, y=y), x, y)


@pytest.mark.ports("cg_non_tensor_positionals")
def test_arguments_that_are_no_arrays_are_passed_unchanged(case):
    """TensorFlow makes tensors of them in a graph, and refuses callables and None."""
    seen = []

    @gk.custom_gradient
    def scale(x, k):
        seen.append(type(k))
        return x * k, lambda y_bar: (y_bar * 1000.0, None)

    @gk.custom_gradient
    def by_mode(x, mode):
        seen.append(type(mode))
        return x * 1.0, lambda y_bar: (y_bar * (2.0 if mode == "abc" else -1.0), None)

    @gk.custom_gradient
    def apply(x, fn):
        return fn(x), lambda y_bar: (y_bar, None)

    x = case.inputs["x"]
    for run in lambda f: f, jax.jit:
        seen.clear()
        assert_matches(gradients(run(lambda x: scale(x, 2.0)), x)[1], case["python_scalar_none"])
        assert_matches(gradients(run(lambda x: by_mode(x, "abc")), x)[1], case["string_ok"])
        assert set(seen) == {float, str}
        y, x_bars = gradients(run(lambda x: apply(x, jnp.exp)), x)
        assert_matches([float(g) for g in x_bars], [1.0])
        assert y == jnp.exp(x)
        _, x_bars = gradients(run(lambda x: by_mode(x, None)), x)
        assert_matches([float(g) for g in x_bars], [-1.0])
    assert case["string_arg_types_seen"] == ["str", "SymbolicTensor"]
    assert case["callable_rejected"].type == case["none_rejected"].type == "ValueError"


@pytest.mark.ports("cg_non_tensor_positionals")
def test_python_number_is_owed_a_gradient_or_none(case):
    @gk.custom_gradient
    def scale(x, k):
        return x * k, lambda y_bar: y_bar * 1000.0

    assert "expected to return 2" in case["python_scalar_needs_grad"].message
    with pytest.raises(CotangentError, match=r"'scale'(.|\n)*expected: 2(.|\n)*'x', 'k'"):
        gradients(lambda x: scale(x, 2.0), case.inputs["x"])


@pytest.mark.ports("cg_non_tensor_positionals")
def test_keyword_only_argument_is_configuration(case):
    @gk.custom_gradient
    def scale(x, *, k=1.0):
        return x * k, lambda y_bar: y_bar * k * 1000.0

    x = case.inputs["x"]
    assert_matches(gradients(lambda x: scale(x, k=2.0), x)[1], case["kwarg_config_ok"])


@pytest.mark.ports("cg_non_tensor_positionals")
def test_positional_argument_is_configuration_only_at_its_default_or_by_declaration(case):
    """TensorFlow takes whatever is passed by name for configuration; here position decides."""

    def scale(x, k=1.0):
        return x * k, lambda y_bar: y_bar * k * 1000.0

    x = case.inputs["x"]
    f = gk.custom_gradient(scale)
    assert_matches([float(g) for g in gradients(f, x)[1]], [1000.0])
    with pytest.raises(CotangentError, match=r"'scale'(.|\n)*expected: 2(.|\n)*'x', 'k'"):
        gradients(lambda x: f(x, k=2.0), x)
    declared = gk.custom_gradient(nondiff_argnames=("k",))(scale)
    assert_matches(gradients(lambda x: declared(x, k=2.0), x)[1], case["kwarg_config_ok"])


# -- values that are closed over --------------------------------------------------------------


@pytest.mark.ports("cg_closure_capture")
def test_differentiating_a_closed_over_value_is_an_error(case):
    """TensorFlow gives no gradient (None), or the true derivative in spite of the rule: 30."""
    x, w = map(jnp.asarray, case.inputs.values())

    def h(x, w):
        @gk.custom_gradient
        def closing(a):
            return a * w * w, lambda y_bar: y_bar * 7.0

        return closing(x)

    assert_matches(jax.grad(h)(x, w), case["both_watched"][0])
    assert case["both_watched"][1] is case["only_w_watched_function"] is None
    assert case["only_w_watched_eager"] == 30
    for f in h, jax.jit(h):
        for argnums in 1, (0, 1):
            with pytest.raises(ClosureGradientError, match=r"'closing' closes over(.|\n)*argument"):
                jax.grad(f, argnums)(x, w)


@pytest.mark.ports("cg_variables_kwarg")
def test_weights_are_arguments(case):
    """JAX has no variables, so there is no `variables=` either."""

    @gk.custom_gradient
    def f(x, w):
        return x * w, lambda y_bar: (y_bar * 7.0, y_bar * 11.0)

    y, bars = gradients(f, case.inputs["x"], case.inputs["w"])
    assert_matches([y, bars], [case["y"], case["grads"]])


@pytest.mark.ports("cg_variables_errors")
def test_weights_that_are_closed_over_may_be_constant_and_nothing_else(case):
    def with_weight(x, v):
        @gk.custom_gradient
        def f(a):
            return a * v, lambda y_bar: y_bar * 7.0

        return f(x)

    x, v = case.inputs["x"], jnp.float32(2)
    assert_matches(gradients(lambda x: with_weight(x, v), x)[1], case["nontrainable_ok"])
    assert case["no_kwarg_fails_in_forward"].type == "TypeError"
    with pytest.raises(ClosureGradientError, match="pass the value as an argument"):
        gradients(with_weight, x, v)


@pytest.mark.ports("cg_variables_errors")
def test_weights_are_owed_gradients_like_any_argument(case):
    @gk.custom_gradient
    def too_many(x, v):
        return x * v, lambda y_bar: (y_bar, y_bar, y_bar)

    x, v = case.inputs["x"], jnp.float32(2)
    _, (x_bar, v_bar) = gradients(product_passing_to_first, x, v)
    assert_matches([x_bar], case["none_for_variable"])
    assert v_bar == 0
    assert case["not_a_pair"].type == "TypeError"
    with pytest.raises(CotangentError, match=r"'x', 'v'\n  got:      3"):
        gradients(too_many, x, v)
    assert case["wrong_count"].type == "ValueError"
    with pytest.raises(CotangentError, match=r"'x', 'y'\n  got:      1"):
        gradients(one_for_two, x, v)


# -- higher orders and other custom functions -------------------------------------------------


@pytest.mark.ports("cg_higher_order_through_closure")
def test_higher_derivatives_are_those_of_the_stated_gradient(case):
    @gk.custom_gradient
    def f(x):
        return x**3, lambda y_bar: y_bar * 5.0 * x**3

    x = jnp.asarray(case.inputs["x"])
    derivatives = [f, jax.grad(f), jax.grad(jax.grad(f)), jax.grad(jax.grad(jax.grad(f)))]
    got = [derivative(x) for derivative in derivatives]
    assert_matches(got, [case[key] for key in ("y", "d1", "d2", "d3")])


@pytest.mark.ports("cg_nested_naive")
def test_rule_decorated_itself_may_not_close_over_what_is_differentiated(case):
    """The rule's own rule is about `y_bar`, not `x`; TensorFlow ignores it: 2, or None."""

    @gk.custom_gradient
    def square(x):
        @gk.custom_gradient
        def grad(y_bar):
            return y_bar * 2.0 * x, lambda ddy: ddy * 100.0

        return x * x, grad

    x = jnp.asarray(case.inputs["x"])
    assert_matches(jax.grad(square)(x), case["d1"])
    assert_matches(jax.grad(square)(x), case["d1_graph"])
    assert (case["d2_eager"], case["grad2_calls_eager"]) == (2, 0)
    assert case["d2_graph"] is None
    with pytest.raises(ClosureGradientError, match="'grad' closes over"):
        jax.grad(jax.grad(square))(x)


@pytest.mark.ports("cg_nested_documented")
def test_inner_custom_function_states_the_second_derivative(case):
    @gk.custom_gradient
    def with_inner(x):
        def grad(y_bar):
            @gk.custom_gradient
            def inner(u):
                return 2.0 * u, lambda ddy: ddy * 100.0

            return y_bar * inner(x)

        return x * x, grad

    @gk.custom_gradient
    def slope(x, y_bar):
        return 2.0 * x * y_bar, lambda d: (d * 100.0 * y_bar, d * 2.0 * x)

    @gk.custom_gradient
    def with_two_arguments(x):
        return x * x, lambda y_bar: slope(x, y_bar)

    def squared(f):
        return lambda x: jnp.square(f(x))

    x = jnp.asarray(case.inputs["x"])
    functions = {
        "inner": with_inner,
        "two_arg": with_two_arguments,
        "inner_then_square": squared(with_inner),
        "two_arg_then_square": squared(with_two_arguments),
    }
    for name, f in functions.items():
        first, second = jax.grad(f), jax.grad(jax.grad(f))
        assert_matches([first(x), second(x)], case[name])
        assert_matches([jax.jit(first)(x), jax.jit(second)(x)], case[name])


@pytest.mark.ports("cg_inner_custom_is_shadowed")
def test_custom_function_inside_another_is_seen_only_by_who_differentiates_it(case):
    @gk.custom_gradient
    def inner(x):
        return x * 2.0, lambda y_bar: y_bar * 1000.0

    @gk.custom_gradient
    def outer(x):
        return inner(x) * 3.0, lambda y_bar: y_bar * 7.0

    @gk.custom_gradient
    def delegating(x):
        y, slope = jax.value_and_grad(lambda x: inner(x) * 3.0)(x)
        return y, lambda y_bar: y_bar * slope

    x = case.inputs["x"]
    assert_matches(gradients(outer, x)[1], case["outer"])
    assert_matches(gradients(lambda x: outer(inner(x)), x)[1], case["chain"])
    assert_matches(gradients(delegating, x)[1], case["outer_delegating"])


# -- transformations --------------------------------------------------------------------------


@gk.custom_gradient
def triple(x):
    return x * 2.0, lambda y_bar: y_bar * 3.0


@pytest.mark.ports("cg_vectorized_map_loses_gradient")
def test_vmap_keeps_the_rule(case):
    """Differentiated from outside, TensorFlow's vectorised map falls back to the natural one."""
    x = case.inputs["x"]
    threes, ones = [np.full(2, 3, np.float32)], [np.ones(2, np.float32)]
    assert_matches(gradients(jax.vmap(triple), x)[1], threes)
    assert_matches(gradients(jax.vmap(rounded), x)[1], ones)
    assert case["through_vmap"][0].tolist() == [2, 2]
    assert case["ste_through_vmap"][0].tolist() == [0, 0]
    assert_matches(jax.vmap(jax.grad(triple))(x), case["tape_inside"])
    assert_matches(gradients(lambda x: lax.map(triple, x), x)[1], case["map_fn"])


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.ports("cg_forward_mode")
def test_forward_mode_transposes_the_rule(case, jit):
    x, x_dot = map(jnp.asarray, case.inputs.values())
    run = jax.jit if jit else lambda f: f
    y_dot = jax.jvp(run(seven), (x,), (x_dot,))[1]
    assert_matches(y_dot, case["function"])
    assert case["eager"] == 12
    y_dot = jax.jvp(run(rounded), (x,), (x_dot,))[1]
    assert_matches(y_dot, case["ste_function"])
    assert_matches(y_dot, case["ste_eager"])


@pytest.mark.ports("cg_jit_compile")
def test_compiled_function_keeps_the_rule(case):
    assert_matches(gradients(jax.jit(triple), case.inputs["x"]), case["r"])


@pytest.mark.ports("cg_recompute_grad")
def test_rule_may_recompute_the_forward_pass(case):
    """`tf.recompute_grad`, written as a rule that keeps only its arguments."""
    runs = []

    def body(x, unused, v):
        runs.append(1)
        return jnp.sin(x) * v

    @gk.custom_gradient
    def recomputed(*args):
        return body(*args), lambda y_bar: jax.vjp(body, *args)[1](y_bar)

    arguments = jnp.asarray(case.inputs["x"]), jnp.ones(1), jnp.float32(2)
    y, pull = jax.vjp(recomputed, *arguments)
    assert_matches(y, case["y"])
    forward_runs = len(runs)
    bars = pull(jnp.ones_like(y))
    assert_matches(bars, case["grads"])
    assert_matches(bars[1], case["note_unused_input_grad_is_zero_not_none"])
    assert [forward_runs, len(runs)] == [case["calls_forward"], case["calls_total"]]


def pass_through(fn):
    """`tf.grad_pass_through`."""

    @gk.custom_gradient
    def passing(*args):
        return fn(*args), lambda y_bar: y_bar

    return passing


@pytest.mark.ports("cg_grad_pass_through")
def test_pass_through_gives_the_cotangent_to_the_argument(case):
    x, v = case.inputs["x"], jnp.float32(3)
    assert_matches(gradients(lambda x: pass_through(jnp.round)(x) * 3.0, x), case["round"])
    x_bars = gradients(pass_through(lambda x: x * v), x)[1]
    assert_matches(x_bars, case["variable_gets_none"][:1])
    with pytest.raises(ClosureGradientError):
        gradients(lambda x, v: pass_through(lambda x: x * v)(x), x, v)


@pytest.mark.ports("cg_grad_pass_through")
def test_pass_through_of_another_shape_is_an_error(case):
    (wrong,) = case["reduce_sum_returns_scalar_grad"]
    x = case.inputs["x"]
    assert wrong.shape != x.shape
    with pytest.raises(CotangentError, match=r"args\[0\](.|\n)*float32\[3\](.|\n)*float32\[\]"):
        gradients(pass_through(jnp.sum), x)
    assert case["two_inputs_one_output"].type == "ValueError"
    with pytest.raises(CotangentError, match="expected: 2"):
        gradients(pass_through(lambda a, b: a * b), x, x + 1)


@pytest.mark.ports("cg_grad_pass_through")
def test_pass_through_of_integers_gives_zeros_of_the_arguments_type(case):
    y, (wrong,) = case["cast_to_int"]
    assert wrong.dtype == np.int32
    x = jnp.asarray(case.inputs["x"])
    got, pull = jax.vjp(pass_through(lambda x: x.astype(jnp.int32)), x)
    assert_matches(got, y)
    assert_matches(pull(np.zeros(3, jax.dtypes.float0)), [np.zeros(3, np.float32)])


@pytest.mark.ports("cg_stop_gradient_identities")
def test_stop_gradient_tricks_agree_with_stating_the_gradient(case):
    x = case.inputs["x"]
    stop = lax.stop_gradient
    assert_matches(gradients(lambda x: x * stop(x * x), x)[1], case["partial"])
    assert_matches(gradients(lambda x: x + stop(jnp.sign(x) - x), x), case["ste_trick"])

    def swapped(x):
        surrogate = jnp.tanh(x)
        return stop(jnp.exp(x)) + surrogate - stop(surrogate)

    assert_matches(gradients(swapped, x), case["swap_trick"])
    assert_matches(gradients(stop, x)[1], case["all_stopped"])
    # The same, said by an override.
    assert_matches(gradients(gk.override(jnp.sign, {"Sign": "Identity"}), x), case["ste_trick"])
    assert_matches(gradients(gk.override(jnp.exp, {"Exp": "Tanh"}), x), case["swap_trick"])


# -- functions that break the protocol --------------------------------------------------------


@gk.custom_gradient
def without_gradient(x):
    return x * x


@gk.custom_gradient
def gradient_is_none(x):
    return x, None


@pytest.mark.parametrize(
    ("output", "f", "message"),
    [
        ("no_grad_fn", without_gradient, r"'without_gradient'(.|\n)*\(y, grad\)(.|\n)*float32\[\]"),
        ("no_grad_fn_len2", without_gradient, r"'without_gradient'(.|\n)*float32\[2\]"),
        ("grad_fn_none", gradient_is_none, r"'gradient_is_none'(.|\n)*not callable(.|\n)*NoneType"),
    ],
    ids=["no pair", "array of length 2", "rule is None"],
)
@pytest.mark.ports("cg_malformed_forward")
def test_function_that_does_not_return_value_and_rule_is_an_error_when_called(
    case, output, f, message
):
    """TensorFlow fails while it unpacks the result; the texts name neither function nor fix."""
    assert case[output].type == "TypeError"
    assert f.__name__ not in case[output].message
    x = jnp.asarray(case.inputs["x"])
    if output == "no_grad_fn_len2":
        x = jnp.stack([x, x])
    for call in f, jax.jit(f), jax.grad(f):
        with pytest.raises(RuleError, match=message):
            call(x)


@pytest.mark.ports("cg_malformed_forward")
def test_exception_in_a_rule_propagates_and_says_where(case):
    @gk.custom_gradient
    def exploding(x):
        def grad(y_bar):
            raise RuntimeError("boom")

        return x, grad

    with pytest.raises(RuntimeError, match="boom") as error:
        gradients(exploding, case.inputs["x"])
    recorded = case["exception_propagates"]
    assert (type(error.value).__name__, str(error.value)) == (recorded.type, recorded.message)
    assert "while running the gradient of 'exploding'" in error.value.__notes__
