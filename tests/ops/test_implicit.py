"""Implicit differentiation: solutions and derivatives, against SciPy and finite differences."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import ops

SLOW = pytest.mark.slow
RNG = np.random.default_rng(0)
N = 5
W = RNG.normal(size=(N, N)) / 4
B = RNG.normal(size=N)


def layer(z, w, b):
    return jnp.tanh(w @ z + b)


def scipy_fixed_point(w, b):
    f = lambda z: np.tanh(w @ z + b) - z
    return scipy.optimize.root(f, np.zeros(N), tol=1e-14).x


def equation(z, w, b):
    return z + 0.3 * jnp.sin(w @ z) + 0.1 * z**3 - b


def scipy_root(w, b):
    f = lambda z: z + 0.3 * np.sin(w @ z) + 0.1 * z**3 - b
    return scipy.optimize.root(f, np.zeros(N), tol=1e-14).x


def energy(z, w, b):
    return jnp.sum(jnp.cosh(w @ z)) + 0.5 * jnp.sum((z - b) ** 2)


def scipy_argmin(w, b):
    f = lambda z: w.T @ np.sinh(w @ z) + z - b
    return scipy.optimize.root(f, np.zeros(N), tol=1e-14).x


PROBLEMS = {
    "fixed_point": (ops.fixed_point, layer, scipy_fixed_point),
    "root": (ops.root, equation, scipy_root),
    "argmin": (ops.argmin, energy, scipy_argmin),
}


def central(f, x, step=1e-5):
    """Gradient of a scalar function in NumPy, one coordinate at a time."""
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = np.zeros_like(x)
        d[i] = step
        out[i] = (f(x + d) - f(x - d)) / (2 * step)
    return out


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", PROBLEMS)
def test_values_gradients_and_their_derivatives_are_those_of_scipy(name, x64):
    solve, f, by_scipy = PROBLEMS[name]
    loss = lambda w, b: jnp.sum(jnp.sin(solve(f, jnp.zeros(N), w, b)))
    towards = (np.zeros((N, N)), np.ones(N))
    derivatives = lambda *at: jax.jvp(jax.value_and_grad(loss, (0, 1)), at, towards)
    (value, (w_bar, b_bar)), (value_dot, (_, b_bar_dot)) = jax.jit(derivatives)(W, B)

    exact = lambda w, b: np.sin(by_scipy(w, b)).sum()
    np.testing.assert_allclose(value, exact(W, B), rtol=1e-10)
    np.testing.assert_allclose(w_bar, central(lambda w: exact(w, B), W), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(b_bar, central(lambda b: exact(W, b), B), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(value_dot, b_bar.sum(), rtol=1e-9)
    step = 1e-3
    second = (exact(W, B + step) - 2 * value + exact(W, B - step)) / step**2
    np.testing.assert_allclose(b_bar_dot.sum(), second, rtol=1e-4)


@SLOW
def test_reverse_over_reverse(x64):
    loss = lambda t: jnp.sum(ops.fixed_point(layer, jnp.zeros(N), W, B + t))
    seconds = lambda t: (jax.grad(jax.grad(loss))(t), jax.jacfwd(jax.jacfwd(loss))(t))
    np.testing.assert_allclose(*jax.jit(seconds)(0.1), rtol=1e-9)


@SLOW
def test_the_house_check_at_order_two():
    solved = lambda b: ops.fixed_point(layer, jnp.zeros(N), W.astype(np.float32), b)
    gk.assert_gradients(solved, B.astype(np.float32), order=2)


def test_pytrees_integers_and_closed_over_values(x64):
    def loss(scale, closed):
        def f(z, args):
            a = jnp.cos(z["b"]) * args["scale"] / args["n"]
            return {"a": jnp.stack([a, a]), "b": closed * z["a"][0]}

        init = {"a": jnp.zeros(2), "b": 0.0}
        z = ops.fixed_point(f, init, {"scale": scale, "n": 2})
        return z["a"][1] + z["b"]

    def exact(scale, closed):
        a = scipy.optimize.brentq(lambda a: a - np.cos(closed * a) * scale / 2, -2, 2, xtol=1e-15)
        return a + closed * a

    got = jax.jit(jax.grad(loss, (0, 1)))(0.8, 0.5)
    want = central(lambda x: exact(*x), np.array([0.8, 0.5]))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def kepler(solve):
    return lambda a: solve(lambda z, a: 1.0 + a * jnp.sin(z), 0.0, a)


def by_hand(a):
    z = scipy.optimize.brentq(lambda z: z - 1 - a * np.sin(z), 0, 4)
    return np.sin(z) / (1 - a * np.cos(z))


def _guarded(f):
    return jax.checkpoint(lambda x: jax.lax.cond(x > -1, f, jnp.sin, x))


XS = np.array([0.0, 0.3, 0.6, 0.9], np.float32)
WRAPS = {
    "shard_map of vmap": lambda f: jax.shard_map(
        jax.vmap(jax.grad(f)),
        mesh=jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=P("i"),
        out_specs=P("i"),
    ),
    "scan of remat of cond": lambda f: jax.grad(
        lambda xs: jax.lax.scan(lambda c, x: (c + _guarded(f)(x), None), 0.0, xs)[0]
    ),
}


@pytest.mark.parametrize(
    "name", ["shard_map of vmap", pytest.param("scan of remat of cond", marks=SLOW)]
)
def test_transformations(name):
    got = jax.jit(WRAPS[name](kepler(ops.fixed_point)))(XS)
    np.testing.assert_allclose(got, [by_hand(float(x)) for x in XS], rtol=1e-4)


def test_bfloat16():
    value, slope = jax.jit(jax.value_and_grad(kepler(ops.fixed_point)))(jnp.bfloat16(0.5))
    assert value.dtype == slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(slope, by_hand(0.5), rtol=0.05)


WIDE = 160  # above the size up to which matrices are built


SOLVERS = {
    "iteration": ops.Anderson(memory=0),
    "anderson": ops.Anderson(),
    "newton": ops.Newton(),
}


@pytest.mark.parametrize(
    "name", ["iteration", *(pytest.param(n, marks=SLOW) for n in ("anderson", "newton"))]
)
def test_large_systems_go_through_gmres(name):
    solver = SOLVERS[name]
    w = np.random.default_rng(1).normal(size=(WIDE, WIDE)) / np.sqrt(WIDE) * 0.7
    b = np.ones(WIDE)
    solved = lambda b: jnp.sum(ops.fixed_point(layer, jnp.zeros(WIDE), w, b, solver=solver) ** 2)
    w = w.astype(np.float32)
    got = jax.jit(jax.grad(solved))(b.astype(np.float32))
    z = np.zeros(WIDE)
    for _ in range(200):
        z = np.tanh(w @ z + b)
    slope = 1 - z**2
    want = slope * np.linalg.solve(np.eye(WIDE) - (slope[:, None] * w).T, 2 * z)
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())


def test_a_root_that_gmres_cannot_get_near_is_not_claimed():
    # The basis of a shift has to grow to all unknowns before the residual falls at all.
    f = lambda z: jnp.roll(z, 1) + 0.1 * jnp.sin(z) - jnp.linspace(1.0, 2.0, WIDE)
    found = jax.jit(lambda z: ops.Newton().find_root(f, z, 1e-5, 100))(jnp.zeros(WIDE))
    assert not found.converged
    assert found.residual > 0.1


def test_anderson_converges_where_the_plain_iteration_diverges_and_in_fewer_steps():
    diverging = lambda z: 1.0 - 3.0 * z
    slow = lambda z: 0.95 * jnp.array([1.0, 0.9, 0.8, -0.7]) * z + 1.0

    def run(memory):
        find = ops.Anderson(memory).find_fixed_point
        return find(diverging, jnp.zeros(1), 1e-5, 200), find(slow, jnp.zeros(4), 1e-5, 200).steps

    (found, steps), (lost, plain_steps) = jax.jit(lambda: (run(5), run(0)))()
    np.testing.assert_allclose(found.z, 0.25, rtol=1e-5)
    assert not lost.converged
    assert steps <= 10
    assert plain_steps >= 100


def test_anderson_passes_places_where_a_solution_nearly_exists():
    c = np.linspace(0.268, 0.28, 8)  # at 0.266 two solutions near -0.44 have become one, and gone
    f = lambda z, c: jnp.tanh(2 * z) + c
    find = jax.jit(
        lambda c: ops.Anderson().find_fixed_point(lambda z: f(z, c), 0 * c - 1, 1e-6, 200)
    )
    found = find(c.astype(np.float32))
    assert found.converged
    np.testing.assert_allclose(found.z - np.tanh(2 * np.float64(found.z)), c, atol=1e-5)
    assert (found.z > 1).all()


def test_memory_does_not_grow_with_steps():
    w, b = W.astype(np.float32), B.astype(np.float32)
    solve = lambda b: ops.fixed_point(layer, jnp.zeros(N), w, b, max_steps=10**6, tol=0.0)
    program = jax.jit(jax.grad(lambda b: jnp.sum(solve(b)))).lower(b).compile()
    assert program.memory_analysis().temp_size_in_bytes < 20_000, "a million steps are 20 MB"


OTHERS = {
    "newton": ("root", optx.Newton(1e-6, 1e-6), lx.GMRES(1e-6, 1e-6)),
    "function": (
        "root",
        lambda f, z: jax.lax.fori_loop(0, 40, lambda _, z: z - f(z) / 2, z),
        lambda matvec, b: jnp.linalg.solve(jax.vmap(matvec, out_axes=1)(jnp.eye(N)), b),
    ),
    "iteration": ("fixed_point", optx.FixedPointIteration(1e-6, 1e-6), "gmres"),
    "bfgs": ("argmin", optx.BFGS(1e-6, 1e-6), "cg"),
}


@pytest.mark.parametrize(
    "name", ["newton", *(pytest.param(n, marks=SLOW) for n in ("function", "iteration", "bfgs"))]
)
def test_other_solvers_give_the_same(name):
    problem, solver, linear_solver = OTHERS[name]
    solve, f, by_scipy = PROBLEMS[problem]
    w, b = W.astype(np.float32), B.astype(np.float32)
    by = {"solver": solver, "linear_solver": linear_solver}
    loss = lambda b: jnp.sum(solve(f, jnp.zeros(N), w, b, **by))
    value, b_bar = jax.jit(jax.value_and_grad(loss))(b)
    np.testing.assert_allclose(value, by_scipy(W, B).sum(), rtol=1e-3, atol=1e-4)
    want = central(lambda b: by_scipy(W, b).sum(), B)
    np.testing.assert_allclose(b_bar, want, rtol=1e-3, atol=1e-4)


@SLOW
def test_logistic_regression_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x = RNG.normal(size=(60, 4))
    y = (x @ [1.0, -2.0, 0.5, 0.0] + RNG.normal(size=60) > 0).astype(int)

    def objective(w, c):
        signs = 2 * y - 1
        return c * jnp.sum(jax.nn.softplus(-signs * (x @ w))) + 0.5 * jnp.sum(w**2)

    def fitted(c):
        model = LogisticRegression(C=c, fit_intercept=False, tol=1e-12, max_iter=10_000)
        return model.fit(x, y).coef_[0]

    with jax.enable_x64(True):
        w, slope = jax.jit(
            lambda c: jax.jvp(lambda c: ops.argmin(objective, jnp.zeros(4), c), (c,), (1.0,))
        )(0.5)
    np.testing.assert_allclose(w, fitted(0.5), rtol=1e-5)
    np.testing.assert_allclose(slope, (fitted(0.51) - fitted(0.49)) / 0.02, rtol=1e-2)


def test_a_minimum_is_found_from_afar_and_on_a_saddle(x64):
    rosenbrock = lambda z, a: (a - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2
    z, info = jax.jit(lambda a: ops.argmin(rosenbrock, jnp.array([-1.2, 1.0]), a, info=True))(1.0)
    np.testing.assert_allclose(z, [1, 1], rtol=1e-8)
    assert info.converged
    double_well = lambda z: (z**2 - 1) ** 2 + 0.1 * z
    at = jax.jit(lambda: ops.argmin(double_well, 0.3))()
    assert abs(at + 1.0121) < 1e-3 or abs(at - 0.9872) < 1e-3


# --- linear systems -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "positive"),
    [
        ("cg", True),
        pytest.param("dense", True, marks=SLOW),
        pytest.param("dense", False, marks=SLOW),
        pytest.param("gmres", False, marks=SLOW),
        pytest.param(lx.CG(1e-10, 1e-10), True, marks=SLOW),
    ],
    ids="cg cholesky lu gmres lineax".split(),
)
def test_linear_solve(solver, positive, x64):
    a = np.eye(N) * 2 + (W @ W.T if positive else W)

    def loss(a, b):
        x = ops.linear_solve(lambda x: a @ x, b, solver=solver, positive_definite=positive)
        return jnp.sum(jnp.sin(x))

    value, (a_bar, b_bar) = jax.jit(jax.value_and_grad(loss, (0, 1)))(a, B)
    x = np.linalg.solve(a, B)
    adjoint = np.linalg.solve(a.T, np.cos(x))
    np.testing.assert_allclose(value, np.sin(x).sum(), rtol=1e-9)
    np.testing.assert_allclose(b_bar, adjoint, rtol=1e-8)
    np.testing.assert_allclose(a_bar, -np.outer(adjoint, x), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("solver", ["gmres", "cg"])
def test_iterative_solvers_restart_and_meet_awkward_right_hand_sides(solver, x64):
    spectrum = np.geomspace(1, 100, 60)
    q = np.linalg.qr(RNG.normal(size=(60, 60)))[0]
    a = q * spectrum @ q.T
    solve = lambda b: ops.linear_solve(
        lambda x: a @ x, b, solver=solver, positive_definite=solver == "cg"
    )
    b = RNG.normal(size=60)
    eigenvector = q[:, 0]  # exact after one step
    found = jax.jit(jax.vmap(solve))(np.stack([b, 0 * b, eigenvector]))
    np.testing.assert_allclose(found[0], np.linalg.solve(a, b), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(found[1], np.zeros(60))
    np.testing.assert_allclose(found[2], eigenvector, atol=1e-10)


def test_singular_and_indefinite_systems_do_not_pass_unseen():
    projection, minus, b = lambda x: x.at[0].set(0.0), lambda x: -x, jnp.ones(3)

    @jax.jit
    def run():
        return (
            ops.linear_solve(projection, b),
            ops.linear_solve(projection, b, solver="gmres"),
            ops.linear_solve(minus, b, positive_definite=True),
            ops.linear_solve(minus, b, positive_definite=True, solver="cg"),
        )

    assert np.isnan(run()).all()


# --- solvers outside JAX --------------------------------------------------------------------------


def test_external_solver_has_the_gradient_of_its_equation():
    # In float32: JAX looks at what comes from the host in a thread of its own, outside x64's scope.
    w, b = W.astype(np.float32), B.astype(np.float32)

    @ops.external_solver(residual=equation, result=lambda w, b: b)
    def solve(w, b):
        return np.float32(scipy_root(np.float64(w), b))

    loss = lambda b: jnp.sum(jnp.sin(solve(w, b)))

    @jax.jit
    def derivatives(b):
        rows = jax.vmap(jax.value_and_grad(loss))(jnp.stack([b + 1, b]))
        return rows, jax.jvp(jax.grad(loss), (b,), (jnp.ones(N),))

    (values, rows), (b_bar, b_bar_dot) = derivatives(b)
    exact = lambda b: np.sin(scipy_root(W, b)).sum()
    np.testing.assert_allclose(values, [exact(B + 1), exact(B)], rtol=1e-5)
    np.testing.assert_allclose(rows[0], central(exact, B + 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows[1], b_bar, rtol=1e-5)
    np.testing.assert_allclose(b_bar, central(exact, B), rtol=1e-4, atol=1e-5)
    second = (exact(B + 1e-3) - 2 * exact(B) + exact(B - 1e-3)) / 1e-6
    np.testing.assert_allclose(b_bar_dot.sum(), second, rtol=1e-3)


def test_external_solver_that_lies_is_found_out():
    declare = functools.partial(
        ops.external_solver, residual=lambda z, a: z**2 - a, result=lambda a: a, tol=1e-3
    )

    @declare
    def liar(a):
        return a

    assert jnp.isnan(liar(4.0))
    assert liar(1.0) == 1.0
    with pytest.raises(gk.ConvergenceError, match="'liar' found no solution") as error:
        declare(liar.__wrapped__, on_failure="error")(4.0)
    assert "after" not in str(error.value), "it does not say how many steps it took"


# --- what does not converge, and what is refused --------------------------------------------------


def test_what_does_not_converge_is_nan_an_error_or_kept():
    def solve(a, on_failure="nan"):
        f = lambda z: jnp.cos(z) * a
        plain = ops.Anderson(memory=0)
        options = {"max_steps": 1, "on_failure": on_failure, "info": True, "solver": plain}
        return ops.fixed_point(f, 5.0, **options)

    @jax.jit
    def run(a):
        return jax.value_and_grad(lambda a: solve(a)[0])(a), solve(a, "keep")

    lost, (z, info) = run(1.0)
    assert np.isnan(lost).all()
    assert jnp.isfinite(z)
    assert not info.converged
    assert info.steps == 1
    assert info.residual > 1e-3
    with pytest.raises(gk.ConvergenceError, match="gk.ops.fixed_point found no solution") as error:
        solve(1.0, "error")
    assert isinstance(error.value, ArithmeticError)
    for piece in ("a residual of 6.8e-01 after 1 steps", 'on_failure="keep"'):
        assert piece in str(error.value)
    compiled = jax.jit(jax.vmap(jax.grad(lambda a: solve(a, "error")[0])))
    with pytest.raises(jax.errors.JaxRuntimeError, match="gk.ops.fixed_point found no solution"):
        jax.block_until_ready(compiled(jnp.array([0.0, 1.0])))


def test_roots_that_are_not_there_are_nan():
    equations = (lambda z: jnp.sqrt(z) - 2, -1.0), (lambda z: z**2 + 1, 0.5)
    for z, info in jax.jit(lambda: [ops.root(f, init, info=True) for f, init in equations])():
        assert jnp.isnan(z)
        assert not info.converged


@pytest.mark.parametrize(
    ("run", "pieces"),
    [
        (lambda: ops.root(lambda z: z, 1), ["init of gk.ops.root", "real floating", "int32[]"]),
        (lambda: ops.root(lambda z: z, {"a": 1j}), ["init of gk.ops.root['a']", "complex64[]"]),
        (lambda: ops.root(lambda z: z, ()), ["holds no array"]),
        (
            lambda: ops.fixed_point(lambda z: z[:2], jnp.zeros(3)),
            ["the function given to gk.ops.fixed_point", "float32[3]", "float32[2]"],
        ),
        (
            lambda: ops.argmin(lambda z: z, jnp.zeros(3)),
            ["does not return one number", "float32[3]", "sum what it returns"],
        ),
        (
            lambda: ops.argmin(lambda z: z, 0.0, solver=ops.Anderson()),
            ["no solver for it", "gk.ops.Newton()", "gradkit[solvers]", "Anderson("],
        ),
        (
            lambda: ops.root(lambda z: z, 0.0, on_failure="pass"),
            ["on_failure= of gk.ops.root", "'nan', 'error', 'keep'", "'pass'"],
        ),
        (
            lambda: ops.linear_solve(lambda x: x, jnp.ones(2), solver="lu"),
            ["no linear solver 'lu'", "'dense', 'gmres', 'cg'", "lineax"],
        ),
        (
            lambda: ops.linear_solve(lambda x: x[:1], jnp.ones(2)),
            ["what matvec of gk.ops.linear_solve returns", "float32[2]", "float32[1]"],
        ),
        (
            lambda: ops.root(lambda z: z, jnp.ones(2), solver=lambda f, z: z[0]),
            ["what the function given as solver= returns", "float32[2]", "float32[]"],
        ),
        (
            lambda: ops.external_solver(3, residual=lambda z: z, result=lambda: 0),
            ["gk.ops.external_solver is not callable", "int"],
        ),
        (
            lambda: ops.external_solver(residual=None, result=None, on_failure="raise")(abs),
            ["on_failure= of gk.ops.external_solver", "'nan', 'error', 'keep'", "'raise'"],
        ),
    ],
)  # fmt: skip
def test_what_is_refused(run, pieces):
    with pytest.raises(gk.SolverError) as error:
        run()
    assert isinstance(error.value, TypeError)
    assert isinstance(error.value, ValueError)
    for piece in pieces:
        assert piece in str(error.value)
