"""Max pooling beside XLA's `reduce_window` and `select_and_scatter`, and beside loops in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit import ops

RNG = np.random.default_rng(0)

# Shape, window, strides, padding: apart, overlapping, with gaps; 1-D to 3-D; odd sizes.
CASES = {
    "2d": ((2, 6, 8, 3), (2, 2), None, "VALID"),
    "overlap": ((1, 7, 8, 2), (3, 3), (2, 2), "SAME"),
    "every step": ((5, 6, 2), (3, 2), (1, 1), "SAME"),
    "uneven": ((2, 9, 10, 1), (3, 2), (2, 3), ((1, 2), (0, 1))),
    "1d with gaps": ((9, 3), 2, 3, "VALID"),
    "3d": ((1, 4, 5, 4, 2), (2, 3, 2), (2, 2, 1), "SAME"),
}


def by_xla(x, window, strides, padding):
    window = (window,) if isinstance(window, int) else window
    strides = (strides,) if isinstance(strides, int) else strides or window
    lead = x.ndim - len(window) - 1
    full = lambda lengths: (1,) * lead + tuple(lengths) + (1,)
    if not isinstance(padding, str):
        padding = ((0, 0),) * lead + padding + ((0, 0),)
    return lax.reduce_window(
        x, np.array(-np.inf, x.dtype), lax.max, full(window), full(strides), padding
    )


def with_ties(shape, dtype=np.float32):
    return RNG.integers(0, 4, size=shape).astype(dtype)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_xla_with_ties(case):
    shape, *options = CASES[case]
    x = with_ties(shape)
    shape = jax.eval_shape(lambda x: by_xla(x, *options), x).shape
    y_bar = RNG.integers(-9, 9, size=shape).astype(np.float32)  # exact sums

    @jax.jit
    def of_each():
        both = [jax.vjp(lambda x, f=f: f(x, *options), x) for f in (ops.max_pool, by_xla)]
        return [(y, pull(jnp.asarray(y_bar))) for y, pull in both]

    jax.tree.map(np.testing.assert_array_equal, *of_each())


def test_the_first_of_equal_entries_gets_the_cotangent():
    x = with_ties((6, 7, 2))
    x_bar = jax.jit(jax.grad(lambda x: ops.max_pool(x, (3, 2), (1, 2)).sum()))(x)
    expected = np.zeros_like(x)
    for i, j, c in itertools.product(range(4), range(3), range(2)):
        place = np.unravel_index(x[i : i + 3, 2 * j : 2 * j + 2, c].argmax(), (3, 2))
        expected[i + place[0], 2 * j + place[1], c] += 1
    np.testing.assert_array_equal(x_bar, expected)


def test_infinity_and_nan():
    x = jnp.array([-jnp.inf, -jnp.inf, 1.0, jnp.inf, jnp.nan, 5.0, jnp.nan, jnp.nan])[:, None]
    y, pull = jax.jit(lambda x: jax.vjp(lambda x: ops.max_pool(x, 2), x))(x)
    np.testing.assert_array_equal(y[:, 0], [-np.inf, np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0][:, 0], [1, 0, 0, 1, 1, 0, 1, 0])


def test_forward_mode_and_second_order_are_those_of_finite_differences():
    shape, *options = CASES["overlap"]
    x = RNG.permutation(int(np.prod(shape))).reshape(shape) / 10  # no ties
    v = RNG.normal(size=shape)
    with jax.enable_x64(True):
        f = jax.jit(lambda x: jnp.sum(jnp.sin(ops.max_pool(x, *options))))
        grad, h = jax.grad(f), 1e-5

        @jax.jit
        def derivatives(x, v):
            x_bar, pull = jax.vjp(grad, x)
            return x_bar, jax.jvp(f, (x,), (v,))[1], jax.jvp(grad, (x,), (v,))[1], pull(v)[0]

        _, slope, *second = derivatives(x, v)
        np.testing.assert_allclose(slope, (f(x + h * v) - f(x - h * v)) / (2 * h), rtol=1e-7)
        curve = (derivatives(x + h * v, v)[0] - derivatives(x - h * v, v)[0]) / (2 * h)
        for found in second:
            np.testing.assert_allclose(found, curve, atol=1e-7)


def test_keeps_one_byte_an_output():
    x = jnp.ones((2, 8, 8, 3))
    pull = jax.eval_shape(lambda x: jax.vjp(lambda x: ops.max_pool(x, (2, 2)), x)[1], x)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))
    assert 2 * 4 * 4 * 3 <= kept < 2 * 4 * 4 * 3 + 8


def test_large_windows_and_half_precision():
    x = with_ties((1, 20, 20, 2))
    large = np.s_[:, :18, :16]
    blocks = x[large].reshape(1, 2, 9, 2, 8, 2)
    np.testing.assert_array_equal(ops.max_pool(x, (9, 8)), blocks.max((2, 4)))
    half = jnp.asarray(x, jnp.bfloat16)
    both = jax.jit(jax.value_and_grad(lambda x: ops.max_pool(x, (2, 2)).sum()))
    (y, x_bar), (expected, expected_bar) = both(half), both(half.astype(jnp.float32))
    assert y.dtype == x_bar.dtype == jnp.bfloat16
    assert y == expected.astype(jnp.bfloat16)
    np.testing.assert_array_equal(x_bar, expected_bar)


def test_leading_axes_are_free():
    x = with_ties((2, 3, 4, 6, 2))
    blocks = x.reshape(2, 3, 2, 2, 3, 2, 2)
    found = jax.jit(lambda x: ops.max_pool(x, (2, 2)))(x)
    np.testing.assert_array_equal(found, blocks.max((3, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_house_check_passes_at_second_order(case):
    shape, *options = CASES[case]
    x = RNG.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32) / 10
    # Where all tie, the first entries of all windows are an extreme choice of subgradients.
    distinct = lambda x: len(np.unique(x)) == x.size
    gk.assert_gradients(lambda x: ops.max_pool(x, *options), x, order=2, domain=distinct)


def test_errors_say_what_to_mend():
    with pytest.raises(TypeError) as error:
        ops.max_pool(jnp.ones((4, 4, 1), int), (2, 2))
    assert "gk.ops.max_pool has a gradient" in str(error.value)
    assert "got:      int32" in str(error.value)
    assert "fix:      use lax.reduce_window" in str(error.value)
    with pytest.raises(ValueError, match="a length and a stride") as error:
        ops.max_pool(jnp.ones((4, 1)), (2, 2))
    assert "expected: [..., 2 spatial, channels] and 2 strides" in str(error.value)
    assert "got:      shape (4, 1), window (2, 2), strides (2, 2)" in str(error.value)
    with pytest.raises(ValueError, match="positive windows"):
        ops.max_pool(jnp.ones((4, 4, 1)), (2, 0))
    for padding in ((2, 0), (0, 0)), ((0, 0),):
        with pytest.raises(ValueError, match="does not fit") as error:
            ops.max_pool(jnp.ones((4, 4, 1)), (2, 2), padding=padding)
        assert f"window (2, 2), padding {padding}" in str(error.value)
