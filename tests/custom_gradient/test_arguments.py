"""What `custom_gradient` functions can take and return."""

import functools
import pickle
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk


@gk.custom_gradient
def scaled(x, y, *, mode="a"):
    """A docstring."""
    factor = {"a": 10.0, "b": 100.0}[mode]
    return x * y, lambda z_bar: (factor * z_bar, 2 * factor * z_bar)


def gradients(f, *args):
    return [float(g) for g in jax.grad(f, argnums=tuple(range(len(args))))(*args)]


def test_wraps_name_docstring_and_signature():
    assert scaled.__name__ == "scaled"
    assert scaled.__doc__ == "A docstring."
    assert scaled.__wrapped__.__code__.co_varnames[:2] == ("x", "y")


def test_pickles_by_reference_at_module_level():
    assert pickle.loads(pickle.dumps(scaled)) is scaled


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: scaled(x, y),
        lambda x, y: scaled(x, y=y),
        lambda x, y: scaled(x=x, y=y),
        lambda x, y: scaled(y=y, x=x),
    ],
)
def test_arguments_by_name_count_at_their_position(call):
    assert gradients(call, 3.0, 4.0) == [10.0, 20.0]
    assert gradients(jax.jit(call), 3.0, 4.0) == [10.0, 20.0]


def test_keyword_only_arguments_are_configuration():
    assert gradients(lambda x, y: scaled(x, y, mode="b"), 3.0, 4.0) == [100.0, 200.0]


def test_default_arguments_need_no_cotangent():
    @gk.custom_gradient
    def f(x, k=2.0):
        return x * k, lambda y_bar: 7 * y_bar

    assert gradients(f, 3.0) == [7.0]


def test_default_arguments_may_have_a_cotangent():
    @gk.custom_gradient
    def f(x, k=2.0):
        return x * k, lambda y_bar: (7 * y_bar, 8 * y_bar)

    assert gradients(f, 3.0) == [7.0]
    assert gradients(f, 3.0, 2.0) == [7.0, 8.0]


def test_an_argument_by_name_behind_a_default_counts_with_it():
    @gk.custom_gradient
    def f(x, a=1.0, k=2.0):
        return x * a * k, lambda y_bar: (7 * y_bar, None, 8 * y_bar)

    assert gradients(lambda x, k: f(x, k=k), 3.0, 2.0) == [7.0, 8.0]


def test_nondiff_argnames_owe_no_cotangent():
    @gk.custom_gradient(nondiff_argnames=("mode",))
    def f(x, mode, y):
        assert mode == "plus"
        return x + y, lambda z_bar: (3 * z_bar, 5 * z_bar)

    assert gradients(lambda x, y: f(x, "plus", y), 1.0, 2.0) == [3.0, 5.0]


def test_variadic_arguments():
    @gk.custom_gradient
    def f(*xs):
        return sum(xs), lambda y_bar: tuple((i + 1) * y_bar for i in range(len(xs)))

    assert gradients(f, 1.0, 2.0, 3.0) == [1.0, 2.0, 3.0]


def test_methods_and_classmethods_leave_self_out():
    class Model:
        factor = 3.0

        @gk.custom_gradient
        def method(self, x):
            return self.factor * x, lambda y_bar: 7 * y_bar

        @classmethod
        @gk.custom_gradient
        def on_class(cls, x):
            return cls.factor * x, lambda y_bar: 8 * y_bar

        @staticmethod
        @gk.custom_gradient
        def static(x):
            return x, lambda y_bar: 9 * y_bar

    model = Model()
    assert float(model.method(2.0)) == 6.0
    assert model.method.__name__ == "method"
    for f, want in ((model.method, 7.0), (Model.on_class, 8.0), (Model.static, 9.0)):
        assert gradients(f, 2.0) == [want]
        assert gradients(jax.jit(f), 2.0) == [want]
    assert gradients(lambda x: Model.method(model, x), 2.0) == [7.0]


def test_integer_bool_and_key_arguments_get_float0():
    @gk.custom_gradient
    def f(x, n, flag, key):
        noise = jax.random.normal(key, x.shape)
        return jnp.where(flag, x * n, noise), lambda y_bar: (7 * y_bar, None, None, None)

    x = jnp.ones(3)
    args = (x, jnp.int32(2), jnp.bool_(True), jax.random.key(0))
    y, pull = jax.vjp(jax.jit(f), *args)
    x_bar, n_bar, flag_bar, key_bar = pull(jnp.ones(3))
    np.testing.assert_array_equal(x_bar, 7 * np.ones(3))
    assert {n_bar.dtype, flag_bar.dtype, key_bar.dtype} == {jax.dtypes.float0}
    np.testing.assert_array_equal(y, 2 * np.ones(3))


def test_a_cotangent_for_an_integer_is_dropped():
    @gk.custom_gradient
    def f(x, n):
        return x * n, lambda y_bar: (7 * y_bar, 8 * y_bar)

    assert gradients(lambda x: f(x, 2), 3.0) == [7.0]
    assert gradients(jax.jit(lambda x: f(x, jnp.int32(2))), 3.0) == [7.0]


def test_none_empty_and_python_scalar_arguments():
    @gk.custom_gradient
    def f(x, nothing, empty, scale):
        assert nothing is None
        assert empty.shape == (0,)
        assert isinstance(scale, float)
        return x * scale, lambda y_bar: (7 * y_bar, None, empty, None)

    assert gradients(lambda x: f(x, None, jnp.zeros(0), 2.0), 3.0) == [7.0]


def test_an_empty_array_is_differentiated():
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: y_bar * 3))
    assert jax.grad(lambda x: f(x).sum())(jnp.zeros((0, 3))).shape == (0, 3)


def test_strings_callables_and_modules_pass_through():
    linear = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    dense = nn.Dense(2)
    seen = []

    @gk.custom_gradient
    def f(x, name, fn, module, layer):
        seen.append((name, fn, layer))
        return fn(module(x)), lambda y_bar: (7 * jnp.ones(3) * y_bar.sum(), None, None, None, None)

    g = lambda x: f(x, "name", jnp.tanh, linear, dense).sum()
    np.testing.assert_array_equal(jax.jit(jax.grad(g))(jnp.ones(3)), 14 * np.ones(3))
    assert seen[0] == ("name", jnp.tanh, dense)


def test_a_module_argument_gets_a_module_of_cotangents():
    linear = eqx.nn.Linear(3, 2, key=jax.random.key(0))

    @gk.custom_gradient
    def f(module, x):
        def grad(y_bar):
            module_bar = jax.tree.map(lambda leaf: jnp.full_like(leaf, 5.0), module)
            return module_bar, None

        return module(x), grad

    module_bar = eqx.filter_grad(lambda m: f(m, jnp.ones(3)).sum())(linear)
    np.testing.assert_array_equal(module_bar.weight, 5 * np.ones((2, 3)))


class Pair(NamedTuple):
    left: jax.Array
    right: jax.Array


def test_pytree_arguments_and_cotangents():
    @gk.custom_gradient
    def f(tree):
        y = tree["a"] * tree["b"].left + tree["b"].right
        return y, lambda y_bar: {"a": y_bar, "b": Pair(2 * y_bar, None)}

    tree = {"a": jnp.float32(2), "b": Pair(jnp.float32(3), jnp.float32(4))}
    for g in (jax.grad(f), jax.jit(jax.grad(f)), jax.grad(jax.jit(f))):
        got = g(tree)
        assert (got["a"], got["b"].left, got["b"].right) == (1.0, 2.0, 0.0)


@pytest.mark.parametrize("wrap", [lambda g: g, lambda g: (g,), lambda g: [g]])
def test_one_cotangent_may_come_bare_or_in_a_tuple(wrap):
    f = gk.custom_gradient(lambda x: (x * x, lambda y_bar: wrap(7 * y_bar)))
    assert gradients(f, 3.0) == [7.0]


def test_a_single_tuple_argument_keeps_its_own_structure():
    f = gk.custom_gradient(lambda t: (t[0] * 2, lambda y_bar: (7 * y_bar,)))
    assert jax.grad(f)((jnp.float32(3),)) == (7.0,)
    g = gk.custom_gradient(lambda t: (t[0] * t[1], lambda y_bar: (7 * y_bar, 8 * y_bar)))
    assert jax.grad(g)((3.0, 4.0)) == (7.0, 8.0)
    h = gk.custom_gradient(lambda t: (t[0] * t[1], lambda y_bar: ((7 * y_bar, 8 * y_bar),)))
    assert jax.grad(h)((3.0, 4.0)) == (7.0, 8.0)


@pytest.mark.parametrize("container", [tuple, list])
def test_a_tuple_or_list_output_gives_one_cotangent_per_element(container):
    @gk.custom_gradient
    def f(x):
        return container([x * 2, x * 3]), lambda u_bar, v_bar: 10 * u_bar + 100 * v_bar

    y = f(jnp.float32(1))
    assert type(y) is container
    assert gradients(lambda x: f(x)[0], 1.0) == [10.0]
    assert gradients(lambda x: f(x)[1], 1.0) == [100.0]


def test_a_dict_output_gives_one_dict():
    @gk.custom_gradient
    def f(x):
        return {"b": x * x, "a": x + 1.0}, lambda y_bar: 10 * y_bar["a"] + 100 * y_bar["b"]

    assert gradients(lambda x: f(x)["a"], 3.0) == [10.0]
    assert gradients(jax.jit(lambda x: f(x)["b"]), 3.0) == [100.0]


def test_cotangents_of_integer_outputs_are_float0():
    dtypes = []

    @gk.custom_gradient
    def f(x):
        def grad(y_bar, n_bar):
            dtypes.append(n_bar.dtype)
            return 7 * y_bar

        return (x * 2, jnp.argmax(x)), grad

    g = jax.grad(lambda x: f(x)[0].sum())
    np.testing.assert_array_equal(jax.jit(g)(jnp.ones(3)), 7 * np.ones(3))
    np.testing.assert_array_equal(g(jnp.ones(3)), 7 * np.ones(3))
    assert set(dtypes) == {jax.dtypes.float0}
    jax.jvp(f, (jnp.ones(3),), (jnp.ones(3),))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_are_kept(dtype):
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: y_bar * 3))
    x_bar = jax.jit(jax.grad(lambda x: f(x).sum()))(jnp.ones(3, dtype))
    assert x_bar.dtype == dtype
    np.testing.assert_array_equal(x_bar.astype("float32"), 3 * np.ones(3))


def test_float64_and_complex():
    with jax.enable_x64(True):
        f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: y_bar * 3))
        assert jax.grad(f)(jnp.float64(1)).dtype == "float64"
        z = jnp.array([1 + 2j, 3 - 1j])
        square = gk.custom_gradient(lambda z: (z * z, lambda w_bar: w_bar * 2 * z))
        plain = jax.vjp(lambda z: z * z, z)[1](z)[0]
        np.testing.assert_allclose(jax.vjp(square, z)[1](z)[0], plain)
        np.testing.assert_allclose(jax.jvp(square, (z,), (z,))[1], 2 * z * z)


def test_a_python_number_is_converted_to_the_arguments_type():
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: 5.0))
    assert jax.grad(f)(jnp.bfloat16(1)).dtype == "bfloat16"
    g = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: 5))
    assert float(jax.jit(jax.grad(g))(jnp.float32(1))) == 5.0


def test_mixed_precision_boundary():
    @gk.custom_gradient
    def f(x):
        return x.astype("float16"), lambda y_bar: 3 * y_bar.astype("float32")

    np.testing.assert_array_equal(jax.grad(lambda x: f(x).sum())(jnp.ones(3)), 3 * np.ones(3))


def test_partial_functions_and_callable_objects_can_be_decorated():
    class Doubler:
        def __call__(self, x):
            return 2 * x, lambda y_bar: 7 * y_bar

    assert gradients(gk.custom_gradient(Doubler()), 1.0) == [7.0]
    half = functools.partial(lambda k, x: (k * x, lambda y_bar: 8 * y_bar), 0.5)
    assert gradients(gk.custom_gradient(half), 1.0) == [8.0]
