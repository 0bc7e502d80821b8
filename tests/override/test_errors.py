"""What overriding refuses, in which words, and that a refusal leaves nothing behind."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit import _errors as errors
from gradkit import _scope
from tests.kit.ids import name_of
from tests.kit.jax_state import patched_places


def fine(op, *y_bars):
    return op.default_vjp(*y_bars)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No error may leave a scope, a patch or a registration behind."""
    places, registered = patched_places(), dict(gk.registered_gradients())
    yield
    assert _scope.active() is None
    assert patched_places() == places
    assert dict(gk.registered_gradients()) == registered
    assert jax.grad(jnp.sin)(0.0) == 1
    assert jax.grad(jax.nn.relu)(1.0) == 1


def enter(overrides):
    with gk.gradient_override_map(overrides):
        raise AssertionError("the map was taken")


def transform(overrides):
    gk.override(jnp.sin, overrides)


def decorate(overrides):
    @gk.gradient_override_map(overrides)
    def f(x):
        return jnp.sin(x)

    f(0.0)


def enter_inside(overrides):
    with gk.gradient_override_map({"sin": fine}):
        jnp.sin(0.0)
        active = _scope.active()
        try:
            enter(overrides)
        finally:
            assert _scope.active() is active
            assert jax.grad(jnp.sin)(0.0) == 1


WAYS = [enter, transform, decorate, enter_inside]


def assert_says(error, *pieces):
    """Each piece occurs in the text, in this order."""
    text, rest = str(error), str(error)
    for piece in pieces:
        assert piece in rest, f"{piece!r} is missing, or out of order, in:\n{text}"
        rest = rest.split(piece, 1)[1]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def refused(request):
    """Refused in every way to give a map: refused(map, error class, pieces of the text)."""

    def check(overrides, kind, *pieces):
        with pytest.raises(kind) as caught:
            request.param(overrides)
        assert_says(caught.value, *pieces)

    return check


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("sinn", "did you mean 'sin'"),
        ("Squre", "did you mean 'Square'"),
        ("tf:Squre", "did you mean 'Square'"),
        ("prim:sinn", "did you mean 'sin'"),
        ("prim:Sin", "did you mean 'sin'"),
        ("fn:rel", "did you mean 'relu'"),
        ("relu_6", "did you mean 'relu6'"),
        ("encoder/*:sinn", "did you mean 'sin'"),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(refused, key, suggestion):
    refused(
        {key: fine},
        errors.OverrideKeyError,
        f"no operation could match the key {key!r}",
        suggestion,
        "expected: a TensorFlow type ('Square'), a JAX primitive ('square') or function ('relu')",
        "fix:",
        "use the function object itself as the key",
    )


def test_an_operation_type_of_ones_own_is_suggested(refused):
    gk.op("ErrorsOwnType")(lambda x: x)
    refused({"ErrorsOwnTyp": fine}, errors.OverrideKeyError, "did you mean 'ErrorsOwnType'?")


@pytest.mark.parametrize("key", ["", "qqqqqqqq", "::"])
def test_a_key_that_is_close_to_nothing_is_refused_without_a_suggestion(refused, key):
    refused({key: fine}, errors.OverrideKeyError, f"no operation could match the key {key!r}\n")


def test_one_bad_key_among_good_ones_is_refused(refused):
    refused({"sin": fine, "Relu": fine, "sinn": fine}, errors.OverrideKeyError, "'sinn'")


@pytest.mark.parametrize(
    ("key", "pieces"),
    [
        (
            "gelu",
            ["'gelu'", "it is a plain Python function", "no trace", "override what it is made of"],
        ),
        (jax.nn.gelu, ["'gelu'", "'tanh'", "or define it as an operation: gradkit.op('Gelu')"]),
        (jax.nn.softmax, ["'softmax' cannot be overridden as a whole", "'exp'", "'div'"]),
        (jnp.where, ["'where'", "plain Python function", "gradkit.op('Where')(where)"]),
        (jnp.multiply, ["'multiply'", "a jax.numpy ufunc", "override what it is made of: 'mul'"]),
        (dict, ["'dict'", "it is a class"]),
    ],
    ids=name_of,
)
def test_a_plain_function_is_refused_with_what_to_use_instead(refused, key, pieces):
    refused({key: fine}, errors.OverrideKeyError, *pieces)


def test_a_plain_function_of_ones_own_is_refused_with_what_to_use_instead(refused):
    def my_layer(x):
        return jnp.sin(x) * 2

    refused(
        {my_layer: fine},
        errors.OverrideKeyError,
        "'my_layer' cannot be overridden as a whole",
        "override what it is made of: 'sin', 'mul'",
        "gradkit.op('MyLayer')(my_layer)",
    )


@pytest.mark.parametrize("key", [3, None, ("sin",), 1.5, b"sin"], ids=name_of)
def test_a_key_of_another_kind_is_refused(refused, key):
    refused(
        {key: fine},
        errors.OverrideKeyError,
        "a key of an override map names an operation",
        "expected: a TensorFlow type, a JAX primitive or function, or the name of one",
        f"got:      {type(key).__name__}",
    )


@pytest.mark.parametrize(
    ("key", "advice"),
    [("Mean", 'use "Sum"'), ("Softmax", '"LogSoftmax"'), ("While", "bodies"), ("Roll", "behind")],
)
def test_a_tensorflow_type_without_counterpart_is_refused_with_advice(refused, key, advice):
    refused(
        {key: fine},
        errors.OverrideKeyError,
        f"the TensorFlow type {key!r} has no single counterpart in JAX",
        "fix:",
        advice,
    )


@pytest.mark.parametrize("key", ["custom_jvp_call", "custom_vjp_call"])
def test_the_call_of_any_custom_derivative_is_no_key(refused, key):
    """It would mean every such function at once; the function object is the key."""
    refused({key: fine}, errors.OverrideKeyError, repr(key), "function object")


# -- maps and values --------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [[("sin", fine)], "sin", None, 3, {"sin"}], ids=name_of)
def test_what_is_not_a_mapping_is_refused(refused, overrides):
    refused(
        overrides,
        errors.OverrideValueError,
        "an override map maps operations to gradients",
        'expected: a mapping such as {"Square": "Name"}',
        f"got:      {type(overrides).__name__}",
    )


@pytest.mark.parametrize("value", [3, [fine], {"rule": fine}, 0.5, True], ids=name_of)
def test_a_value_of_another_kind_is_refused(refused, value):
    refused(
        {"sin": value},
        errors.OverrideValueError,
        "the override of 'sin' is not a gradient",
        "expected: the name of a registered gradient, a rule(op, *y_bars), or None",
        f"got:      {type(value).__name__}",
    )


def test_an_array_as_value_is_refused_without_printing_it(refused):
    refused({"sin": np.ones(3)}, errors.OverrideValueError, "'sin'", "got:      ndarray")


def test_the_name_of_an_unknown_gradient_is_refused_with_what_was_meant(refused):
    with gk.registry_scope():
        gk.RegisterGradient("ErrorsGuided")(fine)
        refused(
            {"sin": "ErrorsGuide"},
            errors.UnknownGradientError,
            "the override of 'sin' names a gradient that is not registered: 'ErrorsGuide'",
            "did you mean 'ErrorsGuided'?",
            'fix:      register it: @gradkit.RegisterGradient("ErrorsGuide")',
        )


def test_the_key_that_names_an_unknown_gradient_is_as_the_user_wrote_it(refused):
    refused({"encoder/*:Relu": "Nope"}, errors.UnknownGradientError, "override of 'encoder/*:Relu'")


@pytest.mark.parametrize("value", ["Sum", "MatMul", "Conv2D", "Reshape"])
def test_a_type_that_needs_attributes_is_refused_for_another_operation(refused, value):
    refused(
        {"sin": value},
        errors.OverrideValueError,
        f"the gradient of {value!r} cannot be given to 'sin'",
        "attributes that only its own operation has",
        "fix:      write a rule(op, *y_bars)",
    )


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.OverrideKeyError, LookupError),
        (errors.OverrideValueError, TypeError),
        (errors.UnknownGradientError, LookupError),
        (errors.CotangentError, TypeError),
        (errors.RuleError, TypeError),
        (gk.UnusedOverrideWarning, UserWarning),
    ],
)
def test_errors_are_also_the_builtin_that_callers_catch(kind, builtin):
    assert issubclass(kind, builtin)


# -- unused keys ------------------------------------------------------------------------------


def unused(overrides):
    with gk.gradient_override_map(overrides):
        jnp.sin(0.0)


def unused_by_function(overrides):
    gk.override(jnp.sin, overrides)(0.0)


def unused_by_decorator(overrides):
    gk.gradient_override_map(overrides)(jnp.sin)(0.0)


UNUSED = [unused, unused_by_function, unused_by_decorator]


@pytest.mark.parametrize("way", UNUSED, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("cos", "'cos'"),
        ("encoder/*:Sin", r"'encoder/\*:Sin'"),
        (lax.cos_p, "'cos'"),
        (jax.nn.silu, "'silu'"),
        (jax.nn.relu, "'relu'"),
    ],
    ids=["primitive", "scoped", "primitive object", "jitted function", "custom_jvp"],
)
def test_an_unused_key_warns_once_and_by_name(way, key, text):
    rule = lambda op, y_bar: y_bar  # of this test alone: equal maps share what they have matched
    with pytest.warns(gk.UnusedOverrideWarning, match=text) as caught:
        way({key: rule, "sin": rule})
    assert len(caught) == 1
    assert "overridable_ops" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_each_unused_key_is_named():
    rule = lambda op, y_bar: y_bar
    with pytest.warns(gk.UnusedOverrideWarning) as caught:
        unused({"cos": rule, "sin": rule, "tan": rule})
    text = " ".join(str(w.message) for w in caught)
    assert "'cos'" in text
    assert "'tan'" in text
    assert "'sin'" not in text


def test_the_warning_can_be_an_error_and_leaves_nothing_behind():
    rule = lambda op, y_bar: y_bar
    with warnings.catch_warnings():
        warnings.simplefilter("error", gk.UnusedOverrideWarning)
        with pytest.raises(gk.UnusedOverrideWarning, match="'cos'"):
            unused({"cos": rule, "sin": rule})


def test_the_warning_can_be_switched_off():
    rule = lambda op, y_bar: y_bar
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", gk.UnusedOverrideWarning)
        unused({"cos": rule, "sin": rule})


def test_an_error_inside_the_scope_is_not_hidden_by_the_warning():
    rule = lambda op, y_bar: y_bar
    with pytest.raises(ZeroDivisionError), gk.gradient_override_map({"cos": rule}):
        _ = 1 / 0


def test_restoring_a_default_that_nothing_needs_warns_too():
    """A mistyped or forgotten key must show whatever its value is."""
    with pytest.warns(gk.UnusedOverrideWarning, match="'atan'"):
        unused({"atan": None, "sin": None})


# -- rules ------------------------------------------------------------------------------------


def float16_rule(op, y_bar):
    return y_bar.astype(jnp.float16)


def wide_rule(op, y_bar):
    return jnp.ones((3, 4))


BAD_RULES = {
    "too many": (
        "sin",
        lambda op, y_bar: (y_bar, y_bar),
        errors.CotangentError,
        ["gradient of 'sin' returned the wrong number of cotangents", "expected: 1", "got:      2"],
    ),
    "too few": (
        "mul",
        lambda op, y_bar: y_bar,
        errors.CotangentError,
        ["gradient of 'mul'", "expected: 2, one cotangent per", "got:      1", "None stands for"],
    ),
    "none at all": (
        "mul",
        lambda op, y_bar: (),
        errors.CotangentError,
        ["gradient of 'mul'", "expected: 2", "got:      0"],
    ),
    "shape": (
        "sin",
        wide_rule,
        errors.CotangentError,
        [
            "gradient of 'sin' returned a cotangent that does not fit argument 0",
            "expected: float32[4]",
            "got:      float32[3, 4]",
            "fix:      sum over the axes that broadcasting added: y_bar.sum(axis=0)",
        ],
    ),
    "dtype": (
        "sin",
        float16_rule,
        errors.CotangentError,
        ["does not fit argument 0", "expected: float32[4]", "got:      float16[4]", "astype"],
    ),
    "complex": (
        "sin",
        lambda op, y_bar: 1j * y_bar,
        errors.CotangentError,
        ["does not fit argument 0", "expected: float32[4]", "got:      complex64[4]"],
    ),
    "structure": (
        "sin",
        lambda op, y_bar: {"x": y_bar},
        errors.CotangentError,
        ["argument 0", "expected: float32[4]", "got:      dict"],
    ),
    "text": (
        "sin",
        lambda op, y_bar: "zero",
        errors.CotangentError,
        ["argument 0", "expected: float32[4]", "got:      str"],
    ),
    "second argument": (
        "mul",
        lambda op, y_bar: (y_bar, float16_rule(op, y_bar)),
        errors.CotangentError,
        ["gradient of 'mul'", "argument 1", "expected: float32[4]", "got:      float16[4]"],
    ),
    "function": (
        "Relu",
        lambda op, y_bar: (y_bar, y_bar),
        errors.CotangentError,
        ["gradient of 'relu'", "expected: 1", "'x'", "got:      2"],
    ),
    "parameters, too few": (
        "sin",
        lambda op: None,
        errors.RuleError,
        ["the gradient of 'sin' does not take", "expected:", "got:", "fix:"],
    ),
    "parameters, too many": (
        "sin",
        lambda op, y_bar, z_bar: y_bar,
        errors.RuleError,
        ["the gradient of 'sin' does not take", "expected:", "got:", "fix:"],
    ),
    "attribute": (
        "dot_general",
        lambda op, y_bar: op.get_attr("dimension_number"),
        errors.UnknownAttributeError,
        ["operation 'dot_general' of type 'dot_general' has no attribute", "'dimension_numbers'?"],
    ),
}
V = np.array([0.5, -1.25, 2.0, 1.5], np.float32)


def program(x):
    y = lax.dot(jnp.eye(4), x)
    return jnp.sum(lax.mul(jnp.sin(y), jax.nn.relu(y)))


@pytest.mark.parametrize("case", BAD_RULES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
def test_a_bad_rule_is_refused_by_name(case, wrap):
    key, rule, kind, pieces = BAD_RULES[case]
    x = V[None] if wrap is jax.vmap else V
    natural = wrap(jax.grad(program))(x)
    with pytest.raises(kind) as caught, gk.gradient_override_map({key: rule}):
        wrap(jax.grad(program))(x)
    assert_says(caught.value, *pieces)
    with pytest.raises(kind):
        wrap(jax.grad(gk.override(program, {key: rule})))(x)
    np.testing.assert_array_equal(wrap(jax.grad(program))(x), natural)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_a_compiled_function_recovers_from_a_bad_rule(wrap):
    """The failed trace must not be what the next call meets."""
    f = wrap(jax.grad(program))
    natural = f(V)
    for _ in range(2):
        with pytest.raises(errors.CotangentError), gk.gradient_override_map({"sin": wide_rule}):
            f(V)
        np.testing.assert_array_equal(f(V), natural)
    with gk.gradient_override_map({"sin": lambda op, y_bar: jnp.zeros(4)}):
        assert np.isfinite(f(V)).all()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_what_a_rule_raises_arrives_with_the_name_of_the_operation(wrap):
    def rule(op, y_bar):
        return {}["missing"]

    with (
        pytest.raises(KeyError, match="missing") as caught,
        gk.gradient_override_map({"sin": rule}),
    ):
        wrap(jax.grad(program))(V)
    assert "while running the gradient of 'sin'" in caught.value.__notes__


def test_a_type_error_of_the_rules_own_stays_what_it_is():
    def rule(op, y_bar):
        return y_bar + "one"

    with pytest.raises(TypeError) as caught, gk.gradient_override_map({"sin": rule}):
        jax.grad(program)(V)
    assert not isinstance(caught.value, errors.GradkitError)
    assert "while running the gradient of 'sin'" in caught.value.__notes__


def test_forward_mode_of_a_nonlinear_rule_is_refused_by_name():
    clipped = lambda op, y_bar: jnp.clip(y_bar, -1, 1)
    with (
        pytest.raises(errors.ForwardModeError) as caught,
        gk.gradient_override_map({"sin": clipped}),
    ):
        jax.jvp(jnp.sin, (1.0,), (1.0,))
    assert_says(
        caught.value,
        "the gradient of 'sin' cannot be run in forward mode",
        "not linear in its cotangent",
        "fix:      use reverse mode",
    )


def test_the_values_of_a_program_do_not_need_its_rules():
    """A bad rule is an error where it is needed, not before."""
    with gk.gradient_override_map({"sin": wide_rule}):
        assert np.isfinite(program(V))
        assert np.isfinite(jax.jit(program)(V))
        assert np.isfinite(jax.vmap(program)(V[None])).all()


def test_broadcast_operands_are_explained():
    """What TensorFlow users meet first: a bias of another shape than its sum."""

    def rule(op, y_bar):
        return y_bar, y_bar

    f = lambda x, b: (x + b[None]).sum()
    with pytest.raises(errors.CotangentError) as caught, gk.gradient_override_map({"Add": rule}):
        jax.grad(f, (0, 1))(np.ones((3, 4), np.float32), np.ones(4, np.float32))
    assert_says(
        caught.value,
        "gradient of 'add'",
        "argument 1",
        "expected: float32[1, 4]",
        "got:      float32[3, 4]",
        "y_bar.sum(axis=0, keepdims=True)",
    )
