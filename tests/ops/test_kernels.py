"""Sums over all pairs, beside NumPy, SciPy, scikit-learn and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import PartitionSpec as P
from sklearn.gaussian_process.kernels import Matern
from sklearn.metrics.pairwise import rbf_kernel

import gradkit as gk
from gradkit import losses, ops
from gradkit.ops._kernel_profiles import KERNELS

RNG = np.random.default_rng(0)
# Two blocks of each, the last ones moved back, and points that coincide.
X, Z = RNG.standard_normal((290, 3)), RNG.standard_normal((333, 3))
Z[:9] = X[:9]
V, WEIGHTS = RNG.standard_normal((333, 2)), RNG.standard_normal((290, 2))
H = np.array([0.8, 1.1, 1.7])


def r(x, z, h=1.0):
    return np.sqrt((((x[:, None] - z[None]) / h) ** 2).sum(-1))


def matern(nu):
    return lambda x, z, h=1.0: Matern(length_scale=1.0, nu=nu)(x / h, z / h)


MATRICES = {
    "gaussian": lambda x, z, h=1.0: rbf_kernel(x / h, z / h, gamma=0.5),
    "laplace": lambda *points: np.exp(-r(*points)),
    "energy": lambda *points: -r(*points),
    "matern32": matern(1.5),
    "matern52": matern(2.5),
    "cauchy": lambda *points: 1 / (1 + r(*points) ** 2),
    "inverse_multiquadric": lambda *points: 1 / np.sqrt(1 + r(*points) ** 2),
}


def slope_at_zero(fn, step=1e-4):
    """Its derivative, by differences of fourth order."""
    one, two = (fn(h) - fn(-h) for h in (step, 2 * step))
    return (8 * one - two) / (12 * step)


def some(names, quick):
    """All of the names, those that are not quick among the slow tests."""
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


def test_every_kernel_has_a_matrix_here():
    assert set(MATRICES) == set(KERNELS)


@pytest.mark.parametrize("kernel", MATRICES)
def test_profiles_and_their_slopes_are_those_of_the_matrix(kernel):
    t = np.array([0.01, 0.3, 1.0, 7.0, 40.0])

    def by_matrix(step):
        return MATRICES[kernel](np.sqrt(t + step)[:, None], np.zeros((1, 1)))[:, 0]

    with jax.enable_x64(True):
        value, slope = (fn(jnp.asarray(t)) for fn in (KERNELS[kernel].value, KERNELS[kernel].slope))
    np.testing.assert_allclose(value, by_matrix(0), atol=1e-14)
    np.testing.assert_allclose(slope, slope_at_zero(by_matrix), rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("kernel", some(MATRICES, ["energy"]))
def test_products_and_their_slopes_are_those_of_the_matrix(kernel):
    matrix, at = MATRICES[kernel], (X, Z, V, H)
    along = [RNG.standard_normal(np.shape(x)) for x in at]
    along[1][:9] = along[0][:9]  # what coincides stays together: there may be a kink

    def by_matrix(step):
        x, z, v, h = (x + step * d for x, d in zip(at, along, strict=True))
        return np.vdot(WEIGHTS, matrix(x, z, h) @ v)

    def loss(x, z, v, h):
        y = ops.kernel_matvec(x, z, v, kernel=kernel, bandwidth=h)
        return jnp.vdot(WEIGHTS, y), y

    slope = slope_at_zero(by_matrix)
    with jax.enable_x64(True):
        x_bars, y = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))(*at)
    np.testing.assert_allclose(y, matrix(X, Z, H) @ V, atol=1e-12)
    found = sum(np.vdot(x_bar, d) for x_bar, d in zip(x_bars, along, strict=True))
    np.testing.assert_allclose(found, slope, rtol=1e-7)


def slope_by_numpy(x, z, v, weights):
    """The gradient by `x` of the sum of distances, with zeros where points coincide."""
    difference = x[:, None] - z[None]
    distance = np.sqrt((difference**2).sum(-1, keepdims=True))
    unit = np.where(distance > 0, difference / np.where(distance > 0, distance, 1), 0)
    return -((weights @ v.T)[..., None] * unit).sum(1)


@pytest.mark.parametrize("features", some([3, 40], [40]))
def test_a_kink_has_gradient_zero_and_its_neighbours_theirs(features):
    x = RNG.standard_normal((270, features)) + 5
    v, weights = (RNG.standard_normal((270, 1)) for _ in range(2))
    z = x.copy()
    z[10:20] += 1e-6 * RNG.standard_normal((10, features))
    x, z = x.astype(np.float32), z.astype(np.float32)
    exact = slope_by_numpy(x.astype(np.float64), z.astype(np.float64), v, weights)
    centred = x - np.asarray(z).mean(0), z - np.asarray(z).mean(0)

    @jax.jit
    @jax.grad
    def x_bar(x, z):
        y = ops.kernel_matvec(x, z, v.astype(np.float32), kernel="energy")
        return jnp.vdot(jnp.asarray(weights, jnp.float32), y)

    np.testing.assert_allclose(x_bar(x, x), slope_by_numpy(x, x, v, weights), atol=2e-3)
    close = np.r_[10:20]
    far = np.setdiff1d(np.arange(270), close)
    found = x_bar(x, z)
    np.testing.assert_allclose(found[far], exact[far], atol=2e-3)
    assert np.isfinite(found[close]).all()
    assert np.abs(centred[0] - centred[1])[close].max() < 1e-5


def test_close_points_far_from_the_origin_keep_their_distance():
    x = (1000 + 0.02 * RNG.standard_normal((64, 3))).astype(np.float32)
    exact = rbf_kernel(x.astype(np.float64), gamma=0.5 / 0.01**2).sum(1)

    def by_product(x):
        t = (x**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * x @ x.T
        return jnp.exp(-jnp.maximum(t, 0) / 0.01**2 / 2).sum(1)

    ours = jax.jit(partial(ops.kernel_matvec, bandwidth=0.01))(x, x, jnp.ones(64))
    np.testing.assert_allclose(ours, exact, rtol=2e-3)
    assert np.abs(by_product(x) - exact).max() > 0.5 * exact.max()


def test_mean_divides_by_the_weights():
    w = RNG.random(333)
    with jax.enable_x64(True):
        mean = jax.jit(partial(ops.kernel_mean, bandwidth=0.7))
        y, plain = mean(X, Z, w), mean(X, Z)
    matrix = rbf_kernel(X, Z, gamma=0.5 / 0.7**2)
    np.testing.assert_allclose(y, matrix @ w / w.sum(), atol=1e-13)
    np.testing.assert_allclose(plain, matrix.mean(1), atol=1e-13)


def test_one_dimensional_energy_distance_is_the_square_of_scipys():
    with jax.enable_x64(True):
        found = jax.jit(losses.energy_distance)(X[:, :1], Z[:, 1:2])
    expected = scipy.stats.energy_distance(X[:, 0], Z[:, 1]) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "unbiased"),
    [
        ("gaussian", True),
        pytest.param("energy", False, marks=pytest.mark.slow),
        pytest.param("gaussian", False, marks=pytest.mark.slow),
        pytest.param("energy", True, marks=pytest.mark.slow),
    ],
)
def test_discrepancies_and_their_slopes_are_those_of_the_matrices(kernel, unbiased):
    matrix, at, z = MATRICES[kernel], (X, 0.9), Z[9:]
    along = [RNG.standard_normal(np.shape(x)) for x in at]

    def by_matrices(step):
        x, h = (x + step * d for x, d in zip(at, along, strict=True))
        h = 1.0 if kernel == "energy" else h
        within = [matrix(points, points, h) for points in (x, z)]
        if unbiased:
            means = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in within]
        else:
            means = [k.mean() for k in within]
        return sum(means) - 2 * matrix(x, z, h).mean()

    def loss(x, h):
        if kernel == "energy":
            return losses.energy_distance(x, z, unbiased=unbiased)
        return losses.mmd(x, z, bandwidth=h, unbiased=unbiased)

    slope = slope_at_zero(by_matrices)
    with jax.enable_x64(True):
        value, x_bars = jax.jit(jax.value_and_grad(loss, (0, 1)))(*at)
    np.testing.assert_allclose(value, by_matrices(0), atol=1e-13)
    found = sum(np.vdot(x_bar, d) for x_bar, d in zip(x_bars, along, strict=True))
    np.testing.assert_allclose(found, slope, rtol=1e-6)


def test_half_precision_is_computed_in_float32():
    x, z, v = (jnp.asarray(array[:50], jnp.bfloat16) for array in (X, Z, V))
    exact = rbf_kernel(*(np.asarray(array, np.float64) for array in (x, z)), gamma=0.5)
    y, x_bar = jax.jit(jax.value_and_grad(lambda x: ops.kernel_matvec(x, z, v)[0, 0]))(x)
    assert y.dtype == x_bar.dtype == jnp.bfloat16
    expected = exact[0] @ np.asarray(v, np.float64)[:, 0]
    np.testing.assert_allclose(float(y), expected, rtol=2**-8)
    assert jax.eval_shape(losses.mmd, x, z).dtype == jnp.bfloat16


SMALL = [jnp.asarray(array[:5], np.float32) for array in (X, Z, V)]
OURS = partial(ops.kernel_matvec, kernel="matern52", bandwidth=0.6)


def plain(x, z, v):
    s = jnp.sqrt(5 * ((x[:, None] - z[None]) ** 2).sum(-1) / 0.36 + 1e-20)
    return ((1 + s + s**2 / 3) * jnp.exp(-s)) @ v


def loss_of(fn):
    return lambda *x: (fn(*x) ** 2).sum()


X_SMALL, Z_SMALL, V_SMALL = SMALL[0], SMALL[1] + 1, SMALL[2]
PROGRAMS = {
    "vmap of grad": lambda f: jax.vmap(jax.grad(loss_of(f), (0, 1, 2)), (0, None, None))(
        jnp.stack([X_SMALL, 2 * X_SMALL]), Z_SMALL, V_SMALL
    ),
    "grad of scan and remat": lambda f: jax.grad(
        lambda z: jax.lax.scan(
            jax.checkpoint(lambda c, _: (c + f(c, z, z), None)), X_SMALL, length=2
        )[0].sum()
    )(Z_SMALL),
    "jvp": lambda f: jax.jvp(lambda x: f(x, Z_SMALL, V_SMALL), (X_SMALL,), (X_SMALL + 1,)),
    "hessian": lambda f: jax.hessian(lambda x: loss_of(f)(x, Z_SMALL, V_SMALL))(X_SMALL),
    "reverse over reverse": lambda f: jax.grad(
        lambda *x: loss_of(jax.grad(loss_of(f)))(*x), (0, 1, 2)
    )(X_SMALL, Z_SMALL, V_SMALL),
    "shard_map": lambda f: jax.grad(
        loss_of(
            jax.shard_map(
                f,
                mesh=jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,)),
                in_specs=(P("i"), P(), P()),
                out_specs=P("i"),
            )
        ),
        (0, 1, 2),
    )(jnp.concatenate([X_SMALL, X_SMALL]), Z_SMALL, V_SMALL),
}


@pytest.mark.parametrize("name", some(PROGRAMS, ["vmap of grad"]))
def test_every_transformation_gives_what_plain_code_gives(name):
    found, expected = (jax.jit(lambda f=f: PROGRAMS[name](f))() for f in (OURS, plain))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_second_derivative_of_a_smooth_kernel_where_points_coincide():
    def along_a_line(s):
        return ops.kernel_matvec(s[None, None], jnp.zeros((1, 1)), jnp.ones(1), kernel="matern52")

    with jax.enable_x64(True):
        curvature = jax.jit(jax.hessian(along_a_line))(jnp.zeros(()))
    np.testing.assert_allclose(curvature, [-5 / 3])  # of (1 + s + s^2 / 3) exp(-s), s = sqrt(5) r


@pytest.mark.parametrize("features", [3, 20])
def test_points_themselves_do_not_drown_the_pull_of_far_ones(features):
    rng = np.random.default_rng(0)
    x, z = (1e4 * rng.standard_normal((n, features)) for n in (5, 4))
    gradient = jax.jit(jax.grad(lambda x, z: losses.mmd(x, z, kernel="cauchy")))
    with jax.enable_x64(True):
        found = gradient(x, z)
    differences = [x[:, None] - other[None] for other in (x, z)]
    pulls = [-2 * d / (1 + (d**2).sum(-1, keepdims=True)) ** 2 for d in differences]
    exact = 2 * pulls[0].sum(1) / 25 - 2 * pulls[1].sum(1) / 20
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", MATRICES)
def test_the_check_finds_nothing(kernel):
    x, z, v = X_SMALL, Z_SMALL, V_SMALL
    report = gk.check(lambda *x: ops.kernel_matvec(*x, kernel=kernel), x, z, v, order=2)
    assert report.ok, report
    # Of samples that nearly coincide, what the means' difference leaves is rounding.
    apart = lambda x, z: jnp.abs(x).max() > 1e-3
    report = gk.check(lambda x, z: losses.mmd(x, z, kernel=kernel), x, z, order=2, domain=apart)
    assert report.ok, report


@pytest.mark.parametrize(
    "ours", [ops.kernel_mean, pytest.param(losses.mmd, marks=pytest.mark.slow)]
)
def test_memory_is_that_of_blocks(ours):
    points = jax.ShapeDtypeStruct((4096, 16), jnp.float32)

    def by_product(x, z):
        t = (x**2).sum(1)[:, None] + (z**2).sum(1)[None] - 2 * x @ z.T
        return jnp.exp(-t / 2).mean(1)

    def temporaries(fn):
        gradient = jax.jit(jax.grad(lambda *x: (fn(*x) ** 2).sum(), (0, 1)))
        return gradient.lower(points, points).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(by_product) > 20 * temporaries(ours)


@pytest.mark.parametrize(
    ("call", "error", "pieces"),
    [
        (
            lambda: ops.kernel_mean(jnp.ones(3), jnp.ones((2, 1))), ValueError,
            ["gk.ops.kernel_mean", "x[N, D]", "x[3]", "z[2, 1]"],
        ),
        (
            lambda: ops.kernel_mean(jnp.ones((3, 1)), jnp.ones((2, 1)), kernel="gausian"),
            ValueError, ["'gausian'", "did you mean 'gaussian'", "'matern52'"],
        ),
        (
            lambda: ops.kernel_mean(jnp.ones((3, 2)), jnp.ones((2, 2)), bandwidth=jnp.ones(3)),
            ValueError, ["one bandwidth", "(2,)", "float32[3]"],
        ),
        (
            lambda: ops.kernel_matvec(jnp.ones((3, 2)), jnp.ones((2, 2)), jnp.ones(3)),
            ValueError, ["gk.ops.kernel_matvec", "[2, E]", "float32[3]"],
        ),
        (
            lambda: losses.mmd(1j * jnp.ones((3, 2)), jnp.ones((2, 2))), TypeError,
            ["gk.losses.mmd", "real", "complex64"],
        ),
        (
            lambda: losses.energy_distance(jnp.ones((1, 2)), jnp.ones((2, 2)), unbiased=True),
            ValueError, ["gk.losses.energy_distance", "two points", "1 and 2"],
        ),
    ],
)  # fmt: skip
def test_errors_say_what_does_not_fit(call, error, pieces):
    with pytest.raises(error) as caught:
        call()
    for piece in ["expected:", *pieces]:
        assert piece in str(caught.value)
