"""Small positive definite systems against NumPy, finite differences and LAPACK's path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit.ops import _spd, spd_solve
from tests.losses.test_losses_everywhere import check_every_transformation

RNG = np.random.default_rng(0)


def problem(*shape, n, m=None):
    root = RNG.normal(size=(*shape, n, n))
    b = RNG.normal(size=(*shape, n) if m is None else (*shape, n, m))
    return root @ np.swapaxes(root, -1, -2) + np.eye(n), b


@pytest.mark.parametrize(
    ("shape", "n", "m"),
    [((), 1, None), ((3,), 2, None), ((2, 3), 3, 2), ((3,), 5, None), ((3,), 9, None)],
)
def test_values_and_derivatives_are_those_of_numpys_solution(shape, n, m):
    a, b = problem(*shape, n=n, m=m)
    a_dot, b_dot, x_bar = (
        RNG.normal(size=a.shape),
        RNG.normal(size=b.shape),
        RNG.normal(size=b.shape),
    )

    def reference(t):
        c, d = a + t * (a_dot + np.swapaxes(a_dot, -1, -2)) / 2, b + t * b_dot
        return np.linalg.solve(c, d if m else d[..., None]).reshape(b.shape)

    slope = (8 * (reference(1e-4) - reference(-1e-4)) - reference(2e-4) + reference(-2e-4)) / 12e-4
    with jax.enable_x64(True):

        @jax.jit
        def found(a, b):
            forward = jax.jvp(spd_solve, (a, b), (a_dot, b_dot))[1]
            x, pull = jax.vjp(spd_solve, a, b)
            return x, forward, pull(jnp.asarray(x_bar))

        x, forward, (a_bar, b_bar) = found(a, b)
    np.testing.assert_allclose(x, reference(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(forward, slope, rtol=1e-6, atol=1e-8)
    reverse = np.vdot(a_bar, a_dot) + np.vdot(b_bar, b_dot)
    np.testing.assert_allclose(reverse, np.vdot(x_bar, slope), rtol=1e-7)


def test_both_paths_give_the_same(monkeypatch):
    a, b = (z.astype(np.float32) for z in problem(4, n=3))

    def slopes():
        cubes = lambda a, b: jnp.sum(spd_solve(a, b) ** 3)
        return jax.jit(jax.value_and_grad(cubes, (0, 1)))(a, b)

    entries = slopes()
    monkeypatch.setattr(_spd, "_UNROLLED", 0)
    for ours, lapack in zip(jax.tree.leaves(entries), jax.tree.leaves(slopes()), strict=True):
        np.testing.assert_allclose(ours, lapack, rtol=1e-3, atol=1e-4)


def test_no_lapack_is_called_for_small_ones():
    a, b = problem(4, n=_spd._UNROLLED)
    program = jax.jit(jax.grad(lambda a, b: jnp.sum(spd_solve(a, b) ** 2))).lower(a, b)
    assert "custom_call" not in program.as_text()


def of_matrix(x):
    """A function of `[4, 2]`."""
    return jnp.sum(spd_solve(x.T @ x + jnp.eye(2), x[0]) ** 2 * x[1])


def test_every_transformation_gives_the_same_derivatives():
    check_every_transformation(of_matrix, 1e-2, second=(2e-3, 2e-3), rest=(2e-3, 2e-3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_check_to_second_order(dtype):
    a, b = (z.astype(dtype) for z in problem(2, n=3))
    with jax.enable_x64(dtype == np.float64):
        report = gk.check(spd_solve, a, b, order=2, points=0)
    assert report.ok, str(report)


@pytest.mark.parametrize("n", [3, 9])
def test_only_the_matrix_that_is_not_positive_definite_gives_nan(n):
    a = jnp.stack([jnp.eye(n), jnp.eye(n).at[-1, -1].set(-1.0), jnp.zeros((n, n))])
    x = jax.jit(spd_solve)(a, jnp.ones((3, n)))
    np.testing.assert_array_equal(x[0], 1)
    assert np.isnan(x[1:]).all()


def test_only_the_symmetric_part_counts():
    a, b = problem(n=2)
    skew = np.triu(RNG.normal(size=(2, 2)), 1)
    solve = jax.jit(spd_solve)
    np.testing.assert_allclose(solve(a + skew - skew.T, b), solve(a, b), rtol=1e-4)


def test_bfloat16_is_computed_in_float32():
    a, b = (jnp.asarray(z, jnp.bfloat16) for z in problem(3, n=2))
    solve = jax.jit(spd_solve)
    x = solve(a, b)
    assert x.dtype == jnp.bfloat16
    wide = solve(a.astype(jnp.float32), b.astype(jnp.float32))
    np.testing.assert_array_equal(x, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("a", "b"), [((3, 2), (3,)), ((4, 3, 3), (3,)), ((3, 3), (2,)), ((3,), (3,))]
)
def test_errors_show_both_shapes(a, b):
    with pytest.raises(ValueError, match="gk.ops.spd_solve takes matrices") as error:
        spd_solve(np.ones(a), np.ones(b))
    for piece in ("a [..., n, n], b [..., n] or [..., n, m]", f"a {a}, b {b}", "jax.vmap"):
        assert piece in str(error.value)


def test_complex_numbers_are_an_error():
    with pytest.raises(TypeError, match="real numbers only"):
        spd_solve(1j * np.eye(2), np.ones(2))
