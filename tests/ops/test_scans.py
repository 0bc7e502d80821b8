"""Linear recurrences and cumulative sums of exponentials, beside SciPy, NumPy and dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter

import gradkit as gk
from gradkit import ops
from gradkit.ops import _recurrence

RNG = np.random.default_rng(0)
A, X, H0 = RNG.normal(size=(6, 2)), RNG.normal(size=(3, 6, 2)), RNG.normal(size=(3, 1))


def dense(a, x, h0, reverse):
    """The recurrence along axis 1 as a dense linear system."""
    n = x.shape[1]
    first, offset = (n - 1, 1) if reverse else (0, -1)
    inputs = x + jnp.zeros_like(x).at[:, first].set(1) * a[None, first : first + 1] * h0[..., None]
    system = jnp.eye(n)[..., None] - jnp.eye(n, k=offset)[..., None] * a[:, None]
    solve = lambda system, x: jnp.linalg.solve(system, x.T).T  # one channel of all rows
    return jax.vmap(solve, (2, 2), 2)(system, inputs)


def test_values_are_those_of_a_filter():
    x = RNG.normal(size=(50, 3))
    expected = lfilter([1], [1, -0.9], x, axis=0)
    got = ops.linear_recurrence(np.float32(0.9), x.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    backwards = ops.linear_recurrence(0.9, x.astype(np.float32)[::-1], reverse=True)
    np.testing.assert_allclose(backwards[::-1], got)


@pytest.mark.parametrize(
    ("kind", "reverse"),
    [
        ("complex", True),
        pytest.param("real", False, marks=pytest.mark.slow),
        pytest.param("real", True, marks=pytest.mark.slow),
        pytest.param("complex", False, marks=pytest.mark.slow),
    ],
)
def test_derivatives_are_those_of_the_dense_system(kind, reverse):
    with jax.enable_x64(True):
        a = jnp.asarray(A + 1j * A[::-1] if kind == "complex" else A)
        args = (a, jnp.asarray(X), jnp.asarray(H0))
        size = lambda h: jnp.sum(jnp.abs(h) ** 2 * jnp.arange(1, 7.0)[None, :, None])
        ours = lambda *args: size(ops.linear_recurrence(*args, axis=1, reverse=reverse))
        plain = lambda *args: size(dense(*args, reverse))

        @jax.jit
        def of_each():
            every = {}
            for name, f in {"ours": ours, "plain": plain}.items():
                grad = jax.grad(f, (0, 1, 2))
                v = tuple(jnp.ones_like(arg) for arg in args)
                every[name] = (
                    f(*args), grad(*args), jax.jvp(f, args, v)[1],
                    jax.jvp(grad, args, v)[1], jax.vjp(grad, *args)[1](v),
                )  # fmt: skip
            return every

        found = of_each()
        for got, expected in zip(*map(jax.tree.leaves, (found["ours"], found["plain"]))):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
def test_other_platforms_find_the_same_in_a_tree(reverse):
    a, x = (jnp.asarray(z, jnp.float32) for z in (np.broadcast_to(A, X.shape), X))
    there = _recurrence._by_steps, _recurrence._in_tree
    back = _recurrence._back_by_steps, _recurrence._back_in_tree
    found = jax.jit(lambda a, x: [[f(a, x, reverse) for f in pair] for pair in (there, back)])(a, x)
    for one, other in found:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_keeps_the_factors_and_the_states_only():
    a, x = jnp.full((40, 3), 0.5), jnp.ones((40, 3))
    pull = jax.eval_shape(lambda a, x: jax.vjp(ops.linear_recurrence, a, x)[1], a, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == 2 * x.size


def test_types_and_empty_lengths():
    assert jax.jit(ops.linear_recurrence)(1, np.ones(3, int)).tolist() == [1, 2, 3]
    typed = lambda a, dtype: jax.eval_shape(ops.linear_recurrence, a, jnp.ones(3, dtype)).dtype
    assert typed(1.0, jnp.bfloat16) == jnp.bfloat16
    assert typed(1j, jnp.float32) == jnp.complex64
    for shape in (0, 2), (3, 0):
        x = jnp.ones(shape)
        assert ops.linear_recurrence(x, x, jnp.ones(shape[1])).shape == shape
        assert jax.grad(lambda x: ops.cumlogsumexp(x).sum())(x).shape == shape


@pytest.mark.parametrize("reverse", [False, True])
def test_cumlogsumexp_and_its_gradient_are_those_of_numpy(reverse):
    x = 5 * RNG.normal(size=(7, 3))
    w = RNG.normal(size=(7, 3))
    turn = lambda z: z[::-1] if reverse else z
    y = np.logaddexp.accumulate(turn(x))
    # dy_t / dx_s = exp(x_s - y_t) for s <= t.
    weights = np.tril(np.ones((7, 7)))[..., None] * np.exp(turn(x)[None] - y[:, None])
    expected = turn(np.einsum("tc,tsc->sc", turn(w), weights))
    with jax.enable_x64(True):
        f = lambda x: ops.cumlogsumexp(x, reverse=reverse)

        @jax.jit
        def found(x, w):
            y, pull = jax.vjp(f, x)
            return y, *pull(w), jnp.vdot(w, jax.jvp(f, (x,), (w,))[1])

        got, x_bar, forward = found(x, w)
        np.testing.assert_allclose(turn(got), y, rtol=1e-13)
        np.testing.assert_allclose(x_bar, expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(forward, np.vdot(expected, w), rtol=1e-10)


def test_cumlogsumexp_is_exact_far_from_zero_and_over_many_steps():
    x = jnp.array([-1000.0, 1000.0, 999.0])
    np.testing.assert_allclose(ops.cumlogsumexp(x), [-1000, 1000, 1000 + np.log1p(np.exp(-1))])
    long = ops.cumlogsumexp(jnp.zeros(200_000))
    np.testing.assert_allclose(long, np.log(np.arange(1, 200_001)), rtol=1e-6)


def test_cumlogsumexp_holds_at_infinity():
    x = jnp.array([-jnp.inf, -jnp.inf, 1.0, -jnp.inf, 1.0])
    y, pull = jax.jit(lambda x: jax.vjp(ops.cumlogsumexp, x))(x)
    np.testing.assert_allclose(y, [-np.inf, -np.inf, 1, 1, 1 + np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones(5))[0], [0, 0, 2.5, 0, 0.5], rtol=1e-6)
    rows = jnp.array([[0.0, jnp.inf, 1.0], [0.0, jnp.nan, 1.0]])
    expected = [[0, np.inf, np.inf], [0, np.nan, np.nan]]
    np.testing.assert_array_equal(jax.jit(lambda x: ops.cumlogsumexp(x, 1))(rows), expected)


@pytest.mark.slow
def test_the_house_check_passes_at_second_order():
    f32 = lambda x: np.asarray(x, np.float32)
    gk.assert_gradients(lambda x: ops.cumlogsumexp(x, 1), f32(X), order=2)
    gk.assert_gradients(
        lambda a, x, h0: ops.linear_recurrence(a, x, h0, axis=1), f32(A), f32(X), f32(H0), order=2
    )


def test_errors_say_what_to_mend():
    for argument, a, h0 in ("a", jnp.ones(5), None), ("h0", 1.0, jnp.ones(6)):
        with pytest.raises(ValueError, match=f"got a '{argument}' that does not fit") as error:
            ops.linear_recurrence(a, X, h0)
        assert "expected: a shape that broadcasts to" in str(error.value)
        assert "got:      shape" in str(error.value)
    with pytest.raises(ValueError, match=r"gk.ops.linear_recurrence got an axis"):
        ops.linear_recurrence(1.0, X, axis=3)
    with pytest.raises(TypeError, match=r"gk.ops.cumlogsumexp is defined for real numbers only"):
        ops.cumlogsumexp(jnp.ones(3, complex))
