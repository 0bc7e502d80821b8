"""Strategies draw what gradients go wrong at, within bounds, and shrink towards simple numbers."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import gradkit as gk
from gradkit.verify.strategies import (
    arrays,
    broadcastable_shapes,
    floats,
    indices,
    keys,
    points,
    pytrees,
    shapes,
)

FLOATS = ["float16", "bfloat16", "float32", "float64"]
unremembered = settings(database=None, max_examples=500, deadline=None)
few = settings(database=None, max_examples=20, deadline=None)


def simplest(strategy, condition=lambda _: True):
    return find(strategy, condition, settings=unremembered)


@settings(max_examples=5, deadline=None)
@given(point=points("f32[3]", floats()))
def test_a_right_gradient_is_right_at_drawn_points(point):
    @gk.custom_gradient
    def scaled(x, scale):
        return scale * x, lambda y_bar: (scale * y_bar, jnp.sum(x * y_bar))

    gk.assert_gradients(scaled, *point)


def test_a_gradient_that_is_wrong_at_ties_is_caught_at_a_simple_one():
    @jax.custom_jvp
    def top(x):
        return jnp.max(x)

    @top.defjvp
    def _top_jvp(primals, tangents):  # counts each of several maxima in full
        (x,), (x_dot,) = primals, tangents
        return top(x), jnp.sum(jnp.where(x == top(x), x_dot, 0.0))

    def is_wrong(point):
        x = point[0]
        return bool(jnp.sum(jax.grad(top)(x)) > 1.5) and x.sum() > 3

    (x,) = simplest(points("f32[2]"), is_wrong)
    assert x.tolist() == [2.0, 2.0]
    assert gk.check(top, x).verdict == "wrong"


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_stay_within_bounds_after_rounding(dtype):
    @few
    @given(floats(dtype, min_value=0.1, max_value=0.7, kinks=[0.3]))
    def check(x):
        assert x.dtype == jnp.dtype(dtype)
        assert 0.1 <= float(x) <= 0.7

    check()


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_finite_and_not_subnormal(dtype):
    @few
    @given(floats(dtype, min_value=-np.inf, max_value=np.inf))
    def check(x):
        assert np.isfinite(float(x))
        assert x == 0 or abs(float(x)) >= float(jnp.finfo(dtype).smallest_normal)

    check()


@pytest.mark.parametrize(
    ("what", "condition", "value"),
    [
        ("anything", lambda x: True, 0.0),
        ("negative", lambda x: x < 0, -1.0),
        ("ordinary", lambda x: x > 1, 2.0),
        ("not whole", lambda x: x != np.round(x), None),
        ("tiny", lambda x: 0 < abs(x) < 1e-15, None),
        ("huge", lambda x: x > 50, None),
        ("largest", lambda x: x == 100, 100.0),
        ("beside a kink", lambda x: 0 < abs(x - 1) < 1e-5, None),
        ("kink", lambda x: x == 0.3, np.float32(0.3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_floats_reach_everything_that_matters(what, condition, value):
    x = simplest(floats(kinks=[np.float32(0.3)]), condition)
    assert condition(x)
    assert value is None or x == value


def test_complex_numbers_have_drawn_parts():
    assert simplest(floats("complex64")) == 0
    x = simplest(floats("complex64", max_value=2), lambda x: x.real < 0 and x.imag > 1)
    assert x.dtype == np.complex64
    assert x == -1 + 2j


def test_empty_intervals_and_other_types_are_refused():
    with pytest.raises(ValueError, match="no float32 is from 2 to 1"):
        floats(min_value=2, max_value=1)
    with pytest.raises(TypeError, match="dtype= of floats\n *expected: a float type"):
        floats("int32")
    with pytest.raises(ValueError, match="n= of indices"):
        indices(0)


@pytest.mark.parametrize("dtype", [*FLOATS, "complex64", "complex128", "int8", "uint64", "bool"])
def test_arrays_have_their_type_and_shape(dtype):
    x = simplest(arrays((2, 1), dtype), lambda x: x.all())
    assert isinstance(x, np.ndarray)
    assert (x.dtype, x.shape) == (jnp.dtype(dtype), (2, 1))
    assert (x == 1).all()


def test_arrays_have_ties_and_distinct_numbers():
    whole = st.integers(0, 10**6)  # two of which hardly ever are the same by chance
    assert simplest(arrays(3, "int32", elements=whole), lambda x: x[0] == x[2] > 99)[0] == 100
    assert abs(simplest(arrays(3), lambda x: len(set(x.tolist())) == 3)).max() <= 2


def test_large_arrays_are_drawn_too():
    different = []

    @settings(few, max_examples=5)
    @given(arrays((40, 50)))
    def check(x):
        assert x.shape == (40, 50)
        different.append(len(np.unique(x)))

    check()
    assert max(different) > 20


def test_empty_arrays_are_drawn_if_wanted():
    assert simplest(arrays(shapes(min_side=0)), lambda x: x.size == 0).dtype == np.float32


@few
@given(shapes(min_dims=1, max_dims=2, min_side=2, max_side=3))
def test_shapes_keep_their_bounds(shape):
    assert 1 <= len(shape) <= 2
    assert all(2 <= n <= 3 for n in shape)


@few
@given(broadcastable_shapes(3))
def test_broadcastable_shapes_broadcast(drawn):
    assert len(drawn) == 3
    np.broadcast_shapes(*drawn)


def test_indices_are_in_range_and_repeat():
    @few
    @given(indices(4, (3,)))
    def check(i):
        assert i.dtype == np.int32
        assert ((i >= 0) & (i < 4)).all()

    check()
    assert simplest(indices(4, 3), lambda i: len(set(i.tolist())) < 3 and i.any()).max() == 1


def test_keys_shrink_to_the_first():
    key = simplest(keys())
    assert jax.random.key_data(key).tolist() == [0, 0]


def test_trees_hold_leaves_and_shrink_to_one():
    assert simplest(pytrees()).shape == ()
    tree = simplest(pytrees(floats()), lambda tree: len(jax.tree.leaves(tree)) == 3)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(tree))
    for kind in (tuple, list, dict):
        assert jax.tree.leaves(simplest(pytrees(floats()), lambda t: isinstance(t, kind))) == [0]


@pytest.mark.parametrize(
    ("spec", "dtype", "shape", "inside"),
    [
        ("f32[2, 3]", "float32", (2, 3), lambda x: abs(x) <= 100),
        ("bf16[]", "bfloat16", (), lambda x: abs(x) <= 100),
        ("f64[3]>0", "float64", (3,), lambda x: x > 0),
        ("f32[3]<-1.5", "float32", (3,), lambda x: x < -1.5),
        ("i32[4]<3", "int32", (4,), lambda x: (x >= 0) & (x < 3)),
        ("u8[4]>3", "uint8", (4,), lambda x: x > 3),
        ("bool[2]", "bool", (2,), lambda x: x | ~x),
        ("c64[2]", "complex64", (2,), lambda x: abs(x) < 150),
        ("float32[2]", "float32", (2,), lambda x: abs(x) <= 100),
    ],
    ids=lambda value: value if isinstance(value, str) and "[" in value else "",
)
def test_points_read_the_command_lines_arguments(spec, dtype, shape, inside):
    @few
    @given(points(spec))
    def check(point):
        (x,) = point
        assert (x.dtype, x.shape) == (jnp.dtype(dtype), shape)
        assert inside(x).all()

    check()


def test_points_are_like_what_is_given():
    like = {"w": jax.ShapeDtypeStruct((2,), "bfloat16"), "none": None, "i": np.array([3, 5])}
    given_ = (like, jnp.ones((1, 2)), 1.5, 2j, 7, jnp.add, jax.random.key(3), "sum", keys())

    @few
    @given(points(*given_))
    def check(point):
        tree, x, number, pure, n, f, key, how, drawn = point
        assert tree["w"].dtype == jnp.bfloat16
        assert tree["none"] is None
        assert ((tree["i"] >= 3) & (tree["i"] <= 5)).all()
        assert (x.shape, x.dtype) == ((1, 2), np.float32)
        assert (type(number), type(pure)) == (float, complex)
        assert (n, f, how) == (7, jnp.add, "sum")
        assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        assert jnp.issubdtype(drawn.dtype, jax.dtypes.prng_key)

    check()


def test_unknown_types_are_refused():
    with pytest.raises(TypeError, match=r"no type 'q32' in 'q32\[2\]'"):
        points("q32[2]")


def test_without_hypothesis_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "gradkit.verify.strategies")
    with pytest.raises(ImportError) as error:
        importlib.import_module("gradkit.verify.strategies")
    assert "gradkit.verify.strategies needs hypothesis" in str(error.value)
    assert "pip install 'gradkit[hypothesis]'" in str(error.value)
