"""What may stand on the two sides of an override map, and what a rule sees of the operation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from tests.kit.ids import name_of

X = 0.75
V = np.array([0.5, -1.25, 2.0, 1.5], np.float32)
W = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
M = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)


def cube_rule(op, y_bar):
    return op.inputs[0] ** 3 * y_bar


@pytest.fixture
def registered():
    with gk.registry_scope():
        gk.RegisterGradient("KeysCube")(cube_rule)
        yield


@pytest.fixture
def seen():
    """A rule that notes the operations that it was called for, and passes cotangents of one."""
    ops = []

    def rule(op, *y_bars):
        ops.append(op)
        ones = [jnp.ones(jnp.shape(x), jnp.result_type(x)) for x in op.inputs]
        return tuple(None if jnp.issubdtype(x.dtype, jnp.integer) else x for x in ones)

    rule.ops = ops
    return rule


# -- keys -------------------------------------------------------------------------------------

SIN_KEYS = ["Sin", "tf:Sin", "sin", "prim:sin", "fn:sin", lax.sin_p, lax.sin, jnp.sin]
RELU_KEYS = ["Relu", "tf:Relu", "relu", "fn:relu", jax.nn.relu]
SQUARE_KEYS = ["Square", "square", lax.square_p, lax.square, jnp.square]


@pytest.mark.parametrize(
    ("key", "f"),
    [(k, jnp.sin) for k in SIN_KEYS]
    + [(k, jax.nn.relu) for k in RELU_KEYS]
    + [(k, jnp.square) for k in SQUARE_KEYS]
    + [(k, jax.nn.silu) for k in ("silu", "fn:silu", jax.nn.silu)]
    + [(k, jax.nn.softplus) for k in ("Softplus", "softplus", jax.nn.softplus)],
    ids=name_of,
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_every_spelling_of_a_key_means_the_operation(key, f, wrap):
    g = wrap(f)
    natural = jax.grad(g)(X)
    with gk.gradient_override_map({key: cube_rule}):
        assert np.isclose(jax.grad(g)(X), X**3)
        assert np.isclose(jax.grad(jax.grad(g))(X), 3 * X**2)
    assert jax.grad(g)(X) == natural


def test_the_functional_form_takes_the_same_keys():
    f = lambda x: jnp.sin(x) + jax.nn.relu(x) + jax.nn.silu(x)
    g = gk.override(f, {"Sin": cube_rule, jax.nn.relu: cube_rule, "fn:silu": cube_rule})
    assert np.isclose(jax.grad(g)(X), 3 * X**3)


def test_a_tensorflow_type_comes_before_a_primitive_and_a_primitive_before_a_function():
    with gk.gradient_override_map({"Sigmoid": cube_rule}):
        assert np.isclose(jax.grad(lax.logistic)(X), X**3)
    types = []

    def rule(op, *y_bars):
        types.append((op.type, len(op.outputs)))
        return jnp.zeros_like(op.inputs[0])

    for key in ("svd", "prim:svd", "fn:svd"):
        with gk.gradient_override_map({key: rule}):
            jax.grad(lambda m: jnp.linalg.svd(m)[1].sum())(M)
    assert types == [("svd", 3)] * 3


def test_pow_means_both_primitives_that_a_power_may_bind():
    with gk.gradient_override_map({"Pow": cube_rule}):
        assert np.isclose(jax.grad(lambda x: x**2)(X), X**3)
    with gk.gradient_override_map({"Pow": lambda op, y_bar: (op.inputs[0] * y_bar, None)}):
        assert np.isclose(jax.grad(lambda x: x**2.5)(X), X)


@gk.op("KeysHalf")
def half(x, *, by=2.0):
    return x / by


@gk.custom_gradient
def third(x):
    return x / 3, lambda y_bar: y_bar / 3


@jax.custom_jvp
def fourth(x):
    return x / 4


fourth.defjvps(lambda x_dot, y, x: x_dot / 4)


@jax.custom_vjp
def fifth(x):
    return x / 5


fifth.defvjp(lambda x: (x / 5, None), lambda _, y_bar: (y_bar / 5,))


@jax.jit
def sixth(x):
    return x / 6


@pytest.mark.parametrize(
    ("key", "f"),
    [("KeysHalf", half), *((f, f) for f in (half, third, fourth, fifth, sixth))],
    ids=["op by type", "op", "custom_gradient", "custom_jvp", "custom_vjp", "jit"],
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
def test_the_users_own_functions_are_keys(key, f, wrap):
    g = wrap(lambda x: f(x))
    with gk.gradient_override_map({key: cube_rule}):
        np.testing.assert_allclose(jax.grad(lambda x: g(x).sum())(V), V**3, rtol=1e-5)
    divisor = 2 + [half, third, fourth, fifth, sixth].index(f)
    np.testing.assert_allclose(jax.grad(lambda x: g(x).sum())(V), np.full(4, 1 / divisor), 1e-6)


def test_only_the_function_object_that_is_the_key_is_overridden():
    @jax.custom_jvp
    def other(x):
        return x / 4

    other.defjvps(lambda x_dot, y, x: x_dot / 4)
    with gk.gradient_override_map({fourth: cube_rule}):
        assert np.isclose(jax.grad(lambda x: fourth(x) + other(x))(X), X**3 + 0.25)


def test_two_jitted_functions_of_one_name_are_told_apart():
    def make(k):
        if k == 1:

            @jax.jit
            def f(x):
                return x * 1.0

        else:

            @jax.jit
            def f(x):
                return x * 2.0

        return f

    one, two = make(1), make(2)
    with gk.gradient_override_map({one: cube_rule}):
        assert np.isclose(jax.grad(lambda x: one(x) + two(x))(X), X**3 + 2)


def test_two_jitted_functions_made_by_one_line_are_told_apart():
    make = lambda factor: jax.jit(lambda x: factor * x)
    one, two = make(1.0), make(2.0)
    with gk.gradient_override_map({one: cube_rule}):
        assert np.isclose(jax.grad(lambda x: one(x) + two(x))(X), X**3 + 2)


@pytest.mark.parametrize("key", [fourth, fifth], ids=name_of)
def test_methods_of_a_key_that_is_a_function_object_are_untouched(key):
    """The function still has what JAX's classes offer."""
    with gk.gradient_override_map({key: cube_rule}):
        assert key.__name__ in ("fourth", "fifth")
        assert key.fun(8.0) in (2.0, 1.6)
        assert key(8.0) in (2.0, 1.6)


def test_nondifferentiable_arguments_are_attributes():
    @functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
    def f(x, n):
        return x * n

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def g(h, x):
        return h(x)

    f.defjvp(lambda n, primals, tangents: (primals[0] * n, tangents[0] * n))
    g.defvjp(lambda h, x: (h(x), None), lambda h, _, y_bar: (y_bar,))

    def f_rule(op, y_bar):
        assert len(op.inputs) == 1
        return 10.0 * op.get_attr("n") * y_bar

    def g_rule(op, y_bar):
        return op.get_attr("h")(op.inputs[0]) * y_bar

    with gk.gradient_override_map({f: f_rule, g: g_rule}):
        for wrap in (lambda h: h, jax.jit):
            assert jax.grad(wrap(lambda x: f(x, 3)))(X) == 30
            assert np.isclose(jax.grad(wrap(lambda x: g(jnp.sin, x)))(X), np.sin(X))


def test_a_jitted_function_with_static_and_named_arguments_is_a_key():
    @jax.jit
    def with_name(x, *, w):
        return x * w

    f = jax.jit(lambda x, n: x * n, static_argnums=1)
    with gk.gradient_override_map({f: cube_rule}):
        assert np.isclose(jax.grad(lambda x: f(x, 3))(X), X**3)
    with gk.gradient_override_map({with_name: lambda op, y: (2.0 * y, 5.0 * y)}):
        assert jax.grad(lambda x: with_name(x, w=3.0))(X) == 2
        assert jax.grad(lambda w: with_name(X, w=w))(3.0) == 5


def test_a_jitted_function_with_pytrees_is_a_key():
    @jax.jit
    def f(tree):
        return {"y": tree["a"] * tree["b"], "z": tree["a"]}

    with gk.gradient_override_map({f: lambda op, *y_bars: (y_bars[0], 10.0 * y_bars[1])}):
        got = jax.grad(lambda tree: sum(f(tree).values()))({"a": 2.0, "b": 3.0})
    assert got == {"a": 1, "b": 10}


def test_a_function_is_no_longer_overridden_under_its_name_when_called_by_another():
    """`silu` calls `logistic`: a key for one leaves the other alone when it is not called."""
    with gk.gradient_override_map({"logistic": cube_rule}):
        assert np.isclose(jax.grad(lambda x: jax.nn.silu(x))(X), _sigmoid(X) + X * X**3)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_an_overridden_function_is_not_overridden_inside():
    with gk.gradient_override_map({"silu": cube_rule, "logistic": lambda op, y: 100.0 * y}):
        f = lambda x: jax.nn.silu(x) + jax.nn.sigmoid(x)
        assert np.isclose(jax.grad(f)(X), X**3 + 100)


# -- values -----------------------------------------------------------------------------------


def test_a_registered_name_is_a_value(registered):
    with gk.gradient_override_map({"sin": "KeysCube"}):
        assert np.isclose(jax.grad(jnp.sin)(X), X**3)


def test_a_callable_object_is_a_value():
    class Times:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, op, y_bar):
            return self.factor * y_bar

    with gk.gradient_override_map({"sin": Times(7.0)}):
        assert jax.grad(jnp.sin)(X) == 7


def test_identity_passes_the_cotangent_through():
    with gk.gradient_override_map({"Sign": "Identity"}):
        y, x_bar = jax.value_and_grad(lambda x: (jnp.sign(x) * W).sum())(V)
    assert y == (np.sign(V) * W).sum()
    np.testing.assert_array_equal(x_bar, W)


def test_a_name_declared_not_differentiable_gives_zero():
    with gk.registry_scope():
        gk.NotDifferentiable("KeysConstant")
        with gk.gradient_override_map({"sin": "KeysConstant"}):
            assert jax.grad(jnp.sin)(X) == 0


@pytest.mark.parametrize(
    ("value", "first", "second"),
    [
        ("Tanh", 1 - np.tanh(X) ** 2, -2 * np.tanh(X) * (1 - np.tanh(X) ** 2)),
        ("Square", 2 * X, 2),
        ("Sin", np.cos(X), -np.sin(X)),
        ("Relu", 1, 0),
    ],
)
def test_a_tensorflow_type_is_its_default_gradient(value, first, second):
    with gk.gradient_override_map({"sin": value}):
        assert np.isclose(jax.grad(jnp.sin)(X), first)
        assert np.isclose(jax.grad(jax.grad(jnp.sin))(X), second)


def test_a_type_that_needs_attributes_is_its_own_default():
    with gk.gradient_override_map({"Sum": "Sum", "MatMul": "MatMul"}):
        got = jax.grad(lambda m: (m @ V[:2]).sum())(M)
    np.testing.assert_allclose(got, np.tile(V[:2], (2, 1)))


def test_a_type_that_is_registered_means_the_registered_rule():
    with gk.registry_scope():
        gk.RegisterGradient("Tanh")(cube_rule)
        with gk.gradient_override_map({"sin": "Tanh"}):
            assert np.isclose(jax.grad(jnp.sin)(X), X**3)


# -- what a rule sees -------------------------------------------------------------------------


def test_a_rule_sees_inputs_outputs_and_attributes(seen):
    with jax.named_scope("layer"), gk.gradient_override_map({"dot_general": seen}):
        jax.grad(lambda v: lax.dot(M, v).sum())(V[:2])
    (op,) = seen.ops
    assert (op.type, op.name) == ("dot_general", "layer/dot_general")
    np.testing.assert_array_equal(op.inputs[0], M)
    np.testing.assert_array_equal(op.inputs[1], V[:2])
    np.testing.assert_allclose(op.outputs[0], M @ V[:2], rtol=1e-6)
    assert op.get_attr("dimension_numbers") == (((1,), (0,)), ((), ()))


@pytest.mark.parametrize(
    "f", [jax.nn.silu, jax.nn.relu, jnp.sin, half, third, fourth, sixth], ids=name_of
)
def test_a_python_number_reaches_a_rule_as_an_array(f):
    def rule(op, y_bar):
        (x,) = op.inputs
        assert (x.shape, x.dtype) == ((), np.float32)
        return 5.0 * y_bar

    with gk.gradient_override_map({f if f is not jnp.sin else "sin": rule}):
        assert jax.grad(f)(2.0) == 5


def test_outputs_keep_the_override_at_second_order():
    def rule(op, y_bar):
        return op.outputs[0] * y_bar  # exp's own rule, on whatever is overridden

    with gk.gradient_override_map({"sin": rule}):
        assert np.isclose(jax.grad(jnp.sin)(X), np.sin(X))
        assert np.isclose(jax.grad(jax.grad(jnp.sin))(X), np.sin(X))


@pytest.mark.parametrize("key", ["sin", "Relu", "silu", half, third, fifth, sixth], ids=name_of)
def test_the_default_can_be_wrapped(key):
    f = {"sin": jnp.sin, "Relu": jax.nn.relu, "silu": jax.nn.silu}.get(key, key)
    natural = float(jax.grad(f)(X)), float(jax.grad(jax.grad(f))(X))
    with gk.gradient_override_map({key: lambda op, y_bar: 2 * op.default_vjp(y_bar)}):
        assert np.isclose(jax.grad(f)(X), 2 * natural[0])
        assert np.isclose(jax.grad(jax.grad(f))(X), 2 * natural[1])


def test_a_rule_may_return_none_a_bare_value_or_a_tuple():
    for value, expected in ((None, 0), ((None,), 0), (2.0, 2), ((2.0,), 2), ([2.0], 2)):
        with gk.gradient_override_map({"sin": lambda op, y_bar, value=value: value}):
            assert jax.grad(jnp.sin)(X) == expected


# -- several outputs, integers ----------------------------------------------------------------


def test_split_gets_one_cotangent_per_piece():
    def rule(op, first, second):
        assert op.get_attr("axis") == 0
        return jnp.concatenate([10 * first, 100 * second])

    def loss(x):
        first, second = jnp.split(x, 2)
        return (first * W[:2]).sum() + (second * W[2:]).sum()

    for key in ("split", "Split"):
        with gk.gradient_override_map({key: rule}):
            np.testing.assert_allclose(jax.grad(loss)(V), W * np.repeat([10, 100], 2))
            np.testing.assert_allclose(jax.jit(jax.grad(loss))(V), W * np.repeat([10, 100], 2))
    np.testing.assert_allclose(jax.grad(loss)(V), W)


def test_an_output_that_is_not_used_gets_a_zero_cotangent():
    def rule(op, first, second):
        np.testing.assert_array_equal(second, np.zeros(2))
        return jnp.concatenate([first, second + 1])

    with gk.gradient_override_map({"split": rule}):
        got = jax.grad(lambda x: jnp.split(x, 2)[0].sum())(V)
    np.testing.assert_allclose(got, np.ones(4))


def test_top_k_gets_a_cotangent_of_float0_for_its_indices():
    def straight_through(op, values_bar, indices_bar):
        assert indices_bar.dtype == jax.dtypes.float0
        assert op.get_attr("k") == 2
        return jnp.full(op.inputs[0].shape, values_bar.sum())

    def loss(x):
        values, indices = lax.top_k(x, 2)
        return (values * jnp.array([1.0, 10.0])).sum() + 0.0 * indices.sum()

    for f in (jax.grad(loss), jax.jit(jax.grad(loss))):
        natural = np.array([0, 0, 1, 10])
        np.testing.assert_allclose(f(V), natural)
        with gk.gradient_override_map({"TopKV2": straight_through}):
            np.testing.assert_allclose(f(V), np.full(4, 11))
        np.testing.assert_allclose(f(V), natural)


def test_the_values_of_svd_and_eigh_keep_a_rule_that_is_safe_where_theirs_is_not():
    """At equal eigenvalues the gradient of the vectors is NaN; a rule may leave them out."""

    def svd_rule(op, s_bar, u_bar, vt_bar):
        _, u, vt = op.outputs
        return (u * s_bar[None]) @ vt

    def loss(m):
        u, s, vt = jnp.linalg.svd(m, full_matrices=False)
        return (s * jnp.array([1.0, 2.0])).sum() + (u * vt).sum()

    equal = 2 * np.eye(2, dtype=np.float32)
    assert not np.isfinite(jax.grad(loss)(equal)).all()
    for f in (jax.grad(loss), jax.jit(jax.grad(loss))):
        with gk.gradient_override_map({"Svd": svd_rule}):
            np.testing.assert_allclose(np.diag(f(equal)), [1, 2], atol=1e-5)


@pytest.mark.parametrize(
    ("key", "values_first"), [("SelfAdjointEigV2", True), ("prim:eigh", False)]
)
def test_eigh_by_function_and_by_primitive(key, values_first):
    def rule(op, *y_bars):
        outputs = op.outputs if values_first else op.outputs[::-1]
        w_bar = y_bars[0] if values_first else y_bars[1]
        _, v = outputs
        return (v * w_bar[None]) @ v.T

    def loss(m):
        w, v = jnp.linalg.eigh(m)
        return w[0] + 0.0 * v.sum()

    _, v = np.linalg.eigh(M)
    for f in (jax.grad(loss), jax.jit(jax.grad(loss))):
        with gk.gradient_override_map({key: rule}):
            np.testing.assert_allclose(f(M), np.outer(v[:, 0], v[:, 0]), atol=1e-5)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev, jax.hessian], ids=name_of)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
def test_an_operation_of_only_boolean_outputs_passes_every_derivative(derivative, wrap):
    f = lambda x: jnp.where(lax.gt(x, jnp.zeros_like(x)), x**3, 0.0)
    x = V[None] if wrap is jax.vmap else V
    g = wrap(derivative(f))
    want = g(x)
    with gk.gradient_override_map({"gt": lambda op, y_bar: (None, None)}):
        np.testing.assert_array_equal(g(x), want)


def test_keys_do_not_overlook_repeated_use_in_a_chain_of_several_orders():
    """top_k differentiated twice: each order goes through the rule once more."""
    double = lambda op, values_bar, _: 2 * op.default_vjp(values_bar, None)
    loss = lambda x: (lax.top_k(x, 2)[0] ** 2).sum()
    want = np.where(V > 1, 1, 0)
    with gk.gradient_override_map({"top_k": double}):
        np.testing.assert_allclose(jax.grad(loss)(V), 4 * V * want)
        for hessian in (jax.hessian(loss), jax.jacrev(jax.grad(loss)), jax.jit(jax.hessian(loss))):
            np.testing.assert_allclose(hessian(V), np.diag(8.0 * want))
        np.testing.assert_allclose(jax.vmap(jax.grad(loss))(V[None]), 4 * (V * want)[None])


def test_integer_inputs_need_no_cotangent():
    indices = jnp.array([2, 0])

    def rule(op, y_bar):
        assert op.inputs[1].dtype == jnp.int32
        return 7 * jnp.ones_like(op.inputs[0]), None

    for f in (jax.grad(lambda x: x[indices].sum()), jax.jit(jax.grad(lambda x: x[indices].sum()))):
        with gk.gradient_override_map({"gather": rule}):
            np.testing.assert_allclose(f(V), np.full(4, 7))
        np.testing.assert_allclose(f(V), [1, 0, 1, 0])


def test_dynamic_slice_counts_its_start_as_an_input():
    def rule(op, y_bar):
        assert len(op.inputs) == 2
        return 7 * jnp.ones_like(op.inputs[0]), None

    f = jax.grad(lambda x, i: lax.dynamic_slice(x, (i,), (2,)).sum())
    with gk.gradient_override_map({"dynamic_slice": rule}):
        np.testing.assert_allclose(f(V, 1), np.full(4, 7))
        np.testing.assert_allclose(jax.jit(f)(V, 1), np.full(4, 7))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.complex64, np.float16])
def test_values_of_other_types_are_computed_as_ever(dtype):
    x = np.array([1, 0, 3]).astype(dtype)
    f = jax.jit(lambda x: jnp.where(x, x, x) + x * x)
    natural = f(x)
    with gk.gradient_override_map({"mul": cube_rule, "select_n": cube_rule, "and": None}):
        for g in (f, f.__wrapped__, jax.vmap(f)):
            got = g(x)
            assert got.dtype == natural.dtype
            np.testing.assert_array_equal(got, natural)
        _ = jnp.array(True) & jnp.array(False), jnp.float32(1) * jnp.float32(1)


def test_a_float0_cotangent_for_an_integer_input_is_taken():
    def rule(op, y_bar):
        return 2.0 * op.inputs[1] * y_bar, np.zeros((), jax.dtypes.float0)

    f = lambda x, n: lax.integer_pow(x, 2) * lax.convert_element_type(n, jnp.float32)
    with gk.gradient_override_map({"integer_pow": lambda op, y_bar: 5.0 * y_bar}):
        assert jax.grad(f)(X, 3) == 15
    with gk.gradient_override_map({sixth_of_two: rule}):
        assert jax.grad(sixth_of_two)(X, 3) == 6


@jax.jit
def sixth_of_two(x, n):
    return x * n / 6


def test_vmapped_operations_keep_their_rule_for_unmapped_inputs():
    def rule(op, y_bar):
        a, b = op.inputs
        return 2.0 * b * y_bar, 3.0 * a * y_bar

    f = lambda a, b: jax.vmap(lambda u: (u * b).sum())(a).sum()
    a = np.arange(6, dtype=np.float32).reshape(3, 2)
    b = np.array([2.0, 5.0], np.float32)
    with gk.gradient_override_map({"mul": rule}):
        a_bar, b_bar = jax.grad(f, (0, 1))(a, b)
    np.testing.assert_allclose(a_bar, np.tile(2 * b, (3, 1)))
    np.testing.assert_allclose(b_bar, 3 * a.sum(axis=0))
