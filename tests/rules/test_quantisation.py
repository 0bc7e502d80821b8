"""Quantisers: numbers of PyTorch and of the papers, differences, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gradkit import rules

ONE = np.array([-1.3, -0.37, -0.02, 0.0, 0.26, 0.74, 1.28, 2.1], np.float32)
TWO = np.array([[0.31, -1.2, 0.07, 0.9], [2.2, -0.4, 0.55, -3.1]], np.float32)
U = np.arange(1, 9, dtype=np.float32)


def value_and_pulled(f, y_bar, *args):
    """The value and the cotangents, in one compiled program."""

    @jax.jit
    def run(*args):
        y, pull = jax.vjp(f, *args)
        return y, pull(y_bar)

    return run(*args)


# What torch 2.13 returns from fake_quantize_per_tensor_affine, its scales from MinMaxObserver.
TORCH = {
    "unsigned": (
        lambda x: rules.fake_quantize(x, 0.1, 3, bits=4, signed=False),
        [-0.3, -0.3, 0.0, 0.0, 0.3, 0.7, 1.2, 1.2],
        [0, 0, 3, 4, 5, 6, 0, 0],
    ),
    "signed": (
        lambda x: rules.fake_quantize(x, 0.25, bits=4),
        [-1.25, -0.25, 0.0, 0.0, 0.25, 0.75, 1.25, 1.75],
        [1, 2, 3, 4, 5, 6, 7, 0],
    ),
    "observed": (
        lambda x: rules.fake_quantize_affine(x, bits=4),
        [-1.36, -0.45333332, 0, 0, 0.22666666, 0.67999995, 1.36, 2.04],
        U,  # torch's is 0 where its range was moved away from a number
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_numbers_of_torch(name):
    f, value, x_bar = TORCH[name]
    y, (got,) = value_and_pulled(f, U, ONE)
    np.testing.assert_allclose(y, value, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(got, x_bar)


def test_numbers_of_torch_by_channel():
    scale, zero_point = np.array([0.1, 0.3], np.float32), np.array([0, 1])
    f = lambda x: rules.fake_quantize(x, scale, zero_point, bits=3, axis=0)
    y, (x_bar,) = value_and_pulled(f, np.ones_like(TWO), TWO)
    want = [[0.3, -0.4, 0.1, 0.3], [0.6, -0.3, 0.6, -1.5]]
    np.testing.assert_allclose(y, want, rtol=1e-6)
    np.testing.assert_array_equal(x_bar, [[1, 0, 1, 0], [0, 1, 1, 0]])
    want = [[0.3, -1.2, 0, 0.9], [2.2714286, -0.75714292, 0.75714292, -3.0285716]]
    np.testing.assert_allclose(rules.fake_quantize_affine(TWO, bits=3, axis=0), want, rtol=1e-6)


def test_symmetric_codes_are_the_nearest_of_an_odd_grid():
    y = rules.fake_quantize_symmetric(TWO, bits=3, axis=0)
    grid = np.abs(TWO).max(1)[:, None] * np.arange(-3, 4) / 3
    want = [row[np.abs(x[:, None] - row).argmin(1)] for x, row in zip(TWO, grid, strict=True)]
    np.testing.assert_allclose(y, want, rtol=1e-6)
    assert not rules.fake_quantize_symmetric(jnp.zeros(3)).any()
    assert not rules.fake_quantize_affine(jnp.zeros(3)).any()


def held_lsq(x, step, low, high):
    """LSQ as an ordinary function of the step, whose rounding error is held where it is now."""
    error = np.round(np.clip(x / step, low, high)) - np.clip(x / step, low, high)
    return lambda s: s * (np.clip(x / s, low, high) + error)


@pytest.mark.parametrize("shape", [(), (2, 1), (1, 4)], ids=str)
def test_gradient_of_the_learned_step_is_that_of_differences(shape):
    x = TWO.astype(np.float64)
    step = np.broadcast_to([[0.31], [0.43]] if shape == (2, 1) else 0.31, shape)
    y_bar = np.arange(8.0).reshape(2, 4) - 3
    with jax.enable_x64(True):
        f = lambda x, s: rules.lsq(x, s, bits=3)
        y, (_, step_bar) = value_and_pulled(f, y_bar, x, step)
    h, smooth = 1e-6, held_lsq(x, step, -4, 3)
    np.testing.assert_allclose(y, smooth(step), rtol=1e-12)
    slopes = np.atleast_2d(y_bar * (smooth(step + h) - smooth(step - h)) / (2 * h))
    axes = tuple(i for i in range(2) if shape == () or shape[i] == 1)
    count = x.size // max(1, step.size)
    want = slopes.sum(axes, keepdims=True).reshape(shape) / np.sqrt(count * 3)
    np.testing.assert_allclose(step_bar, want, rtol=1e-6)


def test_learned_step_has_the_numbers_of_the_paper():
    """Figure 2: of `s = 1`, `Q_N = 0`, `Q_P = 3`, a saw between -1/2 and 1/2, then 3."""
    slope = lambda v: jax.grad(lambda s: rules.lsq(v, s, bits=2, signed=False, elements=1))(1.0)
    got = jnp.sqrt(3) * jax.vmap(slope)(jnp.array([-1.0, 0.25, 0.75, 1.25, 2.75, 4.0]))
    np.testing.assert_allclose(got, [0, -0.25, 0.25, -0.25, 0.25, 3], rtol=1e-6)


def test_a_step_keeps_its_digits_beside_half_precision():
    x, step = jnp.array([0.3, 5.0], "bfloat16"), jnp.float32(0.1001)
    y, (x_bar, step_bar) = value_and_pulled(
        lambda x, s: rules.lsq(x, s, bits=8), jnp.ones(2, "bfloat16"), x, step
    )
    assert (y.dtype, x_bar.dtype, step_bar.dtype) == ("bfloat16", "bfloat16", "float32")
    want = jnp.asarray(np.round(np.asarray(x, np.float32) / step) * step, "bfloat16")
    np.testing.assert_array_equal(y, want)
    exact = rules.lsq(x.astype("float32"), step, bits=8)
    assert jnp.abs(exact[1] - 5).item() < 0.051


@pytest.mark.parametrize("form", ["shard_map", "vmap", "scan"])
def test_a_step_shared_by_devices_examples_or_time_adds_up(form):
    f = lambda x, s: rules.lsq(x, s, bits=3, elements=4)
    if form == "shard_map":
        mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        split = jax.shard_map(f, mesh=mesh, in_specs=(P("i"), P()), out_specs=P("i"))
    elif form == "vmap":
        split = jax.vmap(f, (0, None))
    else:
        split = lambda x, s: jax.lax.scan(lambda _, row: (None, f(row, s)), None, x)[1]
    y_bar = np.arange(8, dtype=np.float32).reshape(2, 4) - 3
    got = value_and_pulled(split, y_bar, TWO, np.float32(0.31))
    want = value_and_pulled(f, y_bar, TWO, np.float32(0.31))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_learned_ceiling_is_that_of_differences():
    x, alpha = TWO.astype(np.float64), np.array([[0.5], [2.0]])
    y_bar, h = np.arange(8.0).reshape(2, 4) - 3, 1e-6
    with jax.enable_x64(True):
        f = lambda x, a: rules.pact(x, a, bits=2)
        y, (x_bar, alpha_bar) = value_and_pulled(f, y_bar, x, alpha)
    np.testing.assert_allclose(y, np.round(np.clip(x, 0, alpha) * 3 / alpha) * alpha / 3)
    clipped = lambda x, a: y_bar * np.clip(x, 0, a)
    slopes = (clipped(x, alpha + h) - clipped(x, alpha - h)) / (2 * h)
    np.testing.assert_allclose(alpha_bar, slopes.sum(1, keepdims=True), rtol=1e-6)
    slopes = (clipped(x + h, alpha) - clipped(x - h, alpha)) / (2 * h)
    np.testing.assert_allclose(x_bar, slopes, rtol=1e-6, atol=1e-9)
    assert jax.grad(lambda a: rules.pact(1.0, a, bits=4))(1.0) == 1


def test_dorefa_values():
    """Equations 7 to 9 of the paper, written out."""
    w = TWO.astype(np.float64)
    r = np.tanh(w) / (2 * np.abs(np.tanh(w)).max()) + 0.5
    np.testing.assert_allclose(rules.dorefa_weights(TWO, bits=3), 2 * np.round(7 * r) / 7 - 1,
                               rtol=1e-5, atol=1e-6)  # fmt: skip
    sign = np.where(w >= 0, 1, -1)
    np.testing.assert_allclose(rules.dorefa_weights(TWO, bits=1), sign * np.abs(w).mean(), 1e-6)
    y = rules.dorefa_activations(TWO, bits=3)
    np.testing.assert_allclose(y, np.round(7 * np.clip(w, 0, 1)) / 7, rtol=1e-6)
    assert jnp.isfinite(rules.dorefa_weights(jnp.zeros(3), bits=2)).all()


def test_dorefa_gradients_have_few_values_and_no_bias():
    y_bar = TWO

    @jax.jit
    def gradients(keys):
        pulled = lambda key: jax.vjp(lambda x: rules.dorefa_gradients(x, key, bits=2), TWO)[1](
            y_bar
        )
        return jax.vmap(pulled)(keys)[0]

    got = np.asarray(gradients(jax.random.split(jax.random.key(0), 4000)))
    size = np.abs(y_bar).max(1)
    for row in range(2):
        levels = np.unique(np.round(got[:, row] / size[row], 4))
        np.testing.assert_allclose(levels, [-1, -1 / 3, 1 / 3, 1], atol=1e-4)
    np.testing.assert_allclose(got.mean(0), y_bar, atol=0.06)


@pytest.mark.parametrize("axis", [None, -1, (0, 1)], ids=str)
def test_binary_weights_have_the_scale_of_least_squares(axis):
    y = np.asarray(rules.binarize(TWO, axis=axis))
    groups = {None: [np.s_[:]], -1: [np.s_[:, i] for i in range(4)]}
    for group in groups.get(axis, [(i, j) for i in range(2) for j in range(4)]):
        w, b = TWO[group].reshape(-1, 1), np.sign(TWO[group]).reshape(-1, 1)
        scale = np.linalg.lstsq(b, w, rcond=None)[0]
        np.testing.assert_allclose(y[group].ravel(), (b * scale).ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("run", "pieces"),
    [
        (
            lambda: rules.fake_quantize(ONE, 0.1, bits=0),
            ["of a code", "1 to 24", "got:      0"],
        ),
        (lambda: rules.fake_quantize(ONE, 0.1, bits=4.0), ["width of a code", "4.0"]),
        (lambda: rules.fake_quantize_symmetric(ONE, bits=1), ["2 to 24", "got:      1"]),
        (lambda: rules.lsq(ONE, 0.1, bits=1), ["2 to 24"]),
        (lambda: rules.pact(ONE, 0.1, bits="4"), ["'4'"]),
        (lambda: rules.dorefa_activations(ONE, bits=99), ["1 to 24", "99"]),
        (
            lambda: rules.fake_quantize(TWO, np.ones(3), axis=0),
            ["one scale per channel", "axis 0 of x, of shape (2, 4)", "shape (3,)"],
        ),
        (
            lambda: rules.lsq(TWO, np.ones((3, 1)), bits=4),
            [
                "the step of gk.rules.lsq does not fit x",
                "broadcasts to (2, 4)",
                "shape (3, 1)",
                "length 1",
            ],
        ),
        (lambda: rules.pact(TWO, np.ones((5, 2, 4)), bits=4), ["the alpha of gk.rules.pact"]),
    ],
    ids="none float one-signed lsq pact dorefa scales step alpha".split(),
)
def test_what_is_refused(run, pieces):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - read below
        run()
    for piece in pieces:
        assert piece in str(error.value)
