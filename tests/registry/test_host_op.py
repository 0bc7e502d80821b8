"""Functions outside JAX as operations: values, gradients, batches and costs."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import lax

import gradkit as gk

X = np.array([0.5, -1.25, 2.0, 1.5], np.float32)


@pytest.fixture(autouse=True)
def scope():
    with gk.registry_scope():
        yield


def like(x):
    return x


def cube_vjp(op, y_bar):
    (x,) = op.inputs
    return 5 * x**2 * y_bar  # not the derivative of x^3, so that it shows


def cube_op(**options):
    return gk.host_op("TestHostCube", lambda x: x**3, result=like, **options)


def interpolate(x, knots, values):
    return np.interp(x, knots, values)


def interpolate_vjp(op, y_bar):
    x, knots, values = op.inputs
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    t = (x - knots[i]) / (knots[i + 1] - knots[i])
    x_bar = y_bar * (values[i + 1] - values[i]) / (knots[i + 1] - knots[i])
    values_bar = np.zeros_like(values)
    np.add.at(values_bar, i, (1 - t) * y_bar)
    np.add.at(values_bar, i + 1, t * y_bar)
    return x_bar, None, values_bar


def interpolation(vjp=interpolate_vjp):
    return gk.host_op("TestInterp", interpolate, result=lambda x, *_: x, vjp=vjp)


KNOTS = np.linspace(-2, 3, 6).astype(np.float32)
VALUES = np.array([1.0, -1.0, 0.5, 2.0, -2.0, 0.0], np.float32)


# -- values and gradients ---------------------------------------------------------------------


def test_value_and_gradient_of_a_numpy_routine_are_those_of_jnp_interp():
    interp = interpolation()
    x = X + 0.1  # no point is a knot
    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_allclose(
            wrap(interp)(x, KNOTS, VALUES), jnp.interp(x, KNOTS, VALUES), rtol=1e-5
        )
        got = wrap(jax.grad(lambda x, v: interp(x, KNOTS, v).sum(), (0, 1)))(x, VALUES)
        want = jax.grad(lambda x, v: jnp.interp(x, KNOTS, v).sum(), (0, 1))(x, VALUES)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)


def test_a_registered_gradient_is_jax_code_and_may_call_a_second_host_op():
    @gk.host_op("TestErf", result=like)
    def erf(x):
        return scipy.special.erf(x)

    @gk.host_op("TestGauss", result=like)
    def gauss(x):
        return 2 / np.sqrt(np.pi) * np.exp(-(x**2))

    gk.RegisterGradient("TestErf")(lambda op, y_bar: y_bar * gauss(op.inputs[0]))
    gk.RegisterGradient("TestGauss")(lambda op, y_bar: -2 * op.inputs[0] * op.outputs[0] * y_bar)
    orders = [
        (erf, jax.scipy.special.erf),
        (jax.grad(erf), jax.grad(jax.scipy.special.erf)),
        (jax.jacfwd(erf), jax.grad(jax.scipy.special.erf)),
        (jax.hessian(erf), jax.hessian(jax.scipy.special.erf)),
        (jax.grad(jax.grad(jax.grad(erf))), jax.jacfwd(jax.hessian(jax.scipy.special.erf))),
    ]
    for got, want in orders:
        np.testing.assert_allclose(got(0.7), want(0.7), rtol=1e-5)
        np.testing.assert_allclose(jax.jit(got)(0.7), want(0.7), rtol=1e-5)


def test_a_registered_gradient_goes_before_vjp():
    cube = cube_op(vjp=cube_vjp)
    assert float(jax.grad(cube)(2.0)) == 20.0
    gk.RegisterGradient("TestHostCube")(lambda op, y_bar: 7 * y_bar)
    assert float(jax.grad(cube)(2.0)) == 7.0


def test_the_host_gets_read_only_numpy_arrays_and_static_attributes():
    seen = []

    @gk.host_op("TestSeen", result=lambda x, n: (x, x), vjp=lambda op, *bars: look(op, bars))
    def f(x, n, *, scale=2, label="l"):
        seen.append((type(x), x.dtype, x.shape, x.flags.writeable, type(n), n.dtype, scale, label))
        return scale * x, n + x

    def look(op, bars):
        arrays = [*op.inputs, *op.outputs, *bars]
        assert all(type(a) is np.ndarray and not a.flags.writeable for a in arrays)
        seen.append((op.type, op.name, dict(op.attrs), len(op.inputs), len(op.outputs)))
        return op.get_attr("scale") * bars[0] + bars[1], None

    def call(x):
        with jax.named_scope("encoder"):
            return sum(f(x, 3, scale=5))

    for run in (jax.grad(call), jax.jit(jax.grad(call))):
        seen.clear()
        assert float(run(2.0)) == 6.0
        value, gradient = seen
        f32, i32 = np.dtype("float32"), np.dtype("int32")
        assert value == (np.ndarray, f32, (), False, np.ndarray, i32, 5, "l")
        attrs = {"scale": 5, "label": "l"}
        assert gradient == ("TestSeen", "encoder/TestSeen", attrs, 2, 2)


def test_attributes_reach_result_if_it_asks_for_them():
    def powers(x, *, n=3):
        return x ** np.arange(n)

    result = lambda x, n: jax.ShapeDtypeStruct((n,), x.dtype)
    f = gk.host_op("TestPowers", powers, result=result)
    np.testing.assert_array_equal(f(2.0), [1, 2, 4])
    np.testing.assert_array_equal(jax.jit(lambda x: f(x, n=5))(2.0), [1, 2, 4, 8, 16])


def test_pytrees_in_and_out():
    def f(p, *, power):
        return {"a": p["x"] ** power, "rest": [p["y"][0], p["y"][1].astype(np.int32)]}

    struct = jax.ShapeDtypeStruct((2,), jnp.float32)
    result = {"a": struct, "rest": [struct, jax.ShapeDtypeStruct((2,), jnp.int32)]}

    def vjp(op, y_bar):
        (p,) = op.inputs
        assert y_bar["rest"][1].dtype == jax.dtypes.float0
        n = op.get_attr("power")
        return {"x": n * p["x"] ** (n - 1) * y_bar["a"], "y": (y_bar["rest"][0], None), "z": None}

    op = gk.host_op("TestTree", f, result=result, vjp=vjp)
    p = {"x": jnp.array([1.0, 2.0]), "y": (jnp.ones(2), jnp.full(2, 3.0)), "z": None}
    loss = lambda p: (lambda y: y["a"].sum() + 4 * y["rest"][0].sum())(op(p, power=3))
    for run in (jax.grad(loss), jax.jit(jax.grad(loss))):
        got = run(p)
        np.testing.assert_array_equal(got["x"], [3, 12])
        np.testing.assert_array_equal(got["y"][0], [4, 4])
        np.testing.assert_array_equal(got["y"][1], [0, 0])
    assert op(p, power=2)["rest"][1].dtype == jnp.int32


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        seen = set()

        def sin(x):
            seen.add(x.dtype.name)
            return np.sin(x.astype(np.float64))

        def vjp(op, y_bar):
            seen.update([op.inputs[0].dtype.name, y_bar.dtype.name])
            return np.cos(op.inputs[0].astype(np.float64)) * y_bar

        f = gk.host_op("TestSin", sin, result=like, vjp=vjp)
        x = jnp.asarray(X, dtype)
        eps = float(jnp.finfo(dtype).eps)
        for wrap in (lambda f: f, jax.jit):
            y, x_bar = wrap(jax.value_and_grad(lambda x: f(x).sum()))(x)
            assert wrap(f)(x).dtype == y.dtype == x_bar.dtype == dtype
            want = np.cos(np.asarray(x, np.float64))
            np.testing.assert_allclose(np.asarray(x_bar, np.float64), want, rtol=eps, atol=eps)
        assert seen == {dtype}


def test_complex_numbers_have_the_cotangents_of_jax():
    f = gk.host_op("TestComplex", np.square, result=like, vjp=lambda op, b: 2 * op.inputs[0] * b)
    z = jnp.array([1 + 2j, -0.5j])
    real_part = lambda f: lambda z: (f(z) * (2 - 1j)).sum().real
    for wrap in (lambda f: f, jax.jit):
        want = jax.grad(real_part(jnp.square))(z)
        np.testing.assert_allclose(wrap(jax.grad(real_part(f)))(z), want, rtol=1e-6)


def test_64_bit_types_stand_for_32_bit_ones_where_jax_has_no_others():
    f = gk.host_op("TestWide", np.sum, result=jax.ShapeDtypeStruct((), np.float64))
    assert f(X).dtype == jax.jit(f)(X).dtype == jnp.float32
    with jax.enable_x64(True):
        assert f(X).dtype == jax.jit(f)(X).dtype == jnp.float64


def test_integer_and_boolean_results():
    f = gk.host_op(
        "TestCount",
        lambda x: (np.count_nonzero(x > 0), x > 0),
        result=lambda x: (
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct(x.shape, jnp.bool),
        ),
    )
    for run in (f, jax.jit(f)):
        n, flags = run(X)
        assert int(n) == 3
        np.testing.assert_array_equal(flags, X > 0)


def test_methods_defaults_strings_and_calls_by_name():
    class Layer:
        factor = 3.0

        @gk.host_op("TestMethod", result=lambda self, x, mode: x, vjp=lambda op, b: (9 * b, None))
        def apply(self, x, mode="plain"):
            return self.factor * x if mode == "plain" else -x

    layer = Layer()
    assert float(layer.apply(2.0, "plain")) == 6.0
    assert float(jax.jit(lambda x: layer.apply(mode="minus", x=x))(2.0)) == -2.0
    assert float(jax.jit(jax.grad(lambda x: layer.apply(x, "plain")))(2.0)) == 9.0


def test_no_inputs():
    f = gk.host_op("TestNothing", lambda: np.float32(7), result=jax.ShapeDtypeStruct((), "float32"))
    assert float(f()) == float(jax.jit(f)()) == 7.0
    np.testing.assert_array_equal(jax.vmap(lambda x: x + f())(X), X + 7)


def test_wraps_and_has_a_name():
    f = gk.host_op("TestNamed", interpolate, result=like)
    assert f.__name__ == "interpolate"
    assert repr(f) == "<host_op TestNamed>"


# -- how often, and where, the host is called -------------------------------------------------


def callbacks(fn, *args):
    """How many calls of the host a compiled program holds."""
    text = jax.jit(fn).lower(*args).compile().as_text()
    return sum("custom-call(" in line and "callback" in line for line in text.splitlines())


def test_a_program_holds_one_callback_for_the_value_and_one_for_the_gradient():
    cube = cube_op(vjp=cube_vjp)
    total = lambda x: cube(x).sum()
    assert callbacks(cube, X) == 1
    assert callbacks(jax.value_and_grad(total), X) == 2
    assert callbacks(lambda x: jax.value_and_grad(total)(x)[0], X) == 1
    assert callbacks(lambda x: (cube(x), 2 * x)[1], X) == 0
    assert callbacks(jax.vmap(jax.grad(cube)), X) == 2


def test_a_jax_gradient_that_needs_no_output_leaves_the_value_out():
    cube = cube_op()
    gk.RegisterGradient("TestHostCube")(lambda op, y_bar: 3 * op.inputs[0] ** 2 * y_bar)
    assert callbacks(jax.grad(lambda x: cube(x).sum()), X) == 0


def test_called_on_values_it_runs_at_once_in_the_callers_thread():
    threads = []

    def f(x):
        threads.append(threading.current_thread())
        return x

    op = gk.host_op("TestHere", f, result=like, vjp=lambda op, y_bar: f(y_bar))
    op(X)
    jax.grad(op)(2.0)
    jax.vmap(jax.grad(op))(X)
    assert len(threads) == 1 + 2 + 8
    assert set(threads) == {threading.current_thread()}


def test_results_are_copied():
    buffer = np.zeros(64, np.float32)

    def f(x):
        buffer[:] = x
        return buffer

    op = gk.host_op("TestBuffer", f, result=like)
    first = op(jnp.ones(64))
    op(jnp.full(64, 2.0))
    np.testing.assert_array_equal(first, np.ones(64))


def test_large_arrays_in_a_loop_do_not_deadlock():
    f = gk.host_op("TestLarge", lambda x: 0.5 * x, result=like, vjp=lambda op, y_bar: 0.5 * y_bar)
    step = lambda c, _: (f(jnp.sin(c)), None)
    run = jax.jit(jax.grad(lambda x: lax.scan(step, x, None, length=3)[0].sum()))
    started = time.monotonic()
    assert np.isfinite(run(jnp.ones((1000, 1000)))).all()
    assert time.monotonic() - started < 60


# -- vmap -------------------------------------------------------------------------------------


def weighted(x, w):
    return (x * w).sum(axis=-1)


def weighted_vjp(op, y_bar):
    x, w = op.inputs
    return w * y_bar[..., None] + 0 * x, x * y_bar[..., None] + 0 * w


@pytest.mark.parametrize("method", ["sequential", "expand_dims", "broadcast_all"])
def test_vmap(method):
    f = gk.host_op(
        "TestWeighted",
        weighted,
        result=lambda x, w: jax.ShapeDtypeStruct((), x.dtype),
        vjp=weighted_vjp,
        vmap_method=method,
    )
    natural = lambda x, w: jnp.sum(x * w)
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(2))
    programs = [
        lambda f: jax.vmap(f)(x[0], w[0]),
        lambda f: jax.vmap(f, in_axes=(1, None))(x[0].T, w[0, 0]),
        lambda f: jax.vmap(jax.vmap(f))(x, w),
        lambda f: jax.vmap(jax.vmap(f, (0, None)), (None, 0))(x[0], w[0]),
        lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None))(x[0], w[0]),
        lambda f: jax.vmap(jax.grad(f, (0, 1)), (0, None))(x[0], w[0, 0]),
        lambda f: jax.grad(lambda x, w: jax.vmap(f, (0, None))(x, w).sum(), (0, 1))(x[0], w[0, 0]),
        lambda f: jax.jacrev(jax.vmap(f, (0, None)), (0, 1))(x[0], w[0, 0]),
        lambda f: jax.vmap(f)(x[0, :0], w[0, :0]),
    ]
    for program in programs:
        for wrap in (lambda run: run, jax.jit):
            got = wrap(lambda p=program: p(f))()
            want = program(natural)
            for g, h in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(g, h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "shapes"),
    [
        ("sequential", [((4,), (4,))] * 3),
        ("expand_dims", [((3, 4), (1, 4))]),
        ("broadcast_all", [((3, 4), (3, 4))]),
    ],
)
def test_what_the_host_sees_under_vmap(method, shapes):
    seen = []

    def f(x, w):
        seen.append((x.shape, w.shape))
        return weighted(x, w)

    result = lambda x, w: jax.ShapeDtypeStruct((), x.dtype)
    op = gk.host_op("TestShapes", f, result=result, vmap_method=method)
    mapped = jax.vmap(op, (0, None))
    x, w = jnp.ones((3, 4)), jnp.ones(4)
    for run in (mapped, jax.jit(mapped)):
        seen.clear()
        np.testing.assert_array_equal(run(x, w), [4, 4, 4])
        assert seen == shapes
    assert callbacks(mapped, x, w) == 1


# -- overrides, survey, check -----------------------------------------------------------------


def test_the_type_is_a_key_of_override_maps():
    cube = cube_op(vjp=cube_vjp)
    clipped = lambda op, y_bar: jnp.clip(op.default_vjp(y_bar), -1, 1)
    assert float(jax.grad(gk.override(cube, {"TestHostCube": "Identity"}))(2.0)) == 1.0
    for run in (jax.grad(cube), jax.jit(jax.grad(cube))):
        with gk.gradient_override_map({"TestHostCube": clipped}):
            assert float(run(2.0)) == 1.0
            assert float(run(0.25)) == 0.3125
        assert float(run(2.0)) == 20.0


def test_a_survey_lists_it():
    cube = cube_op(vjp=cube_vjp)
    (found,) = gk.overridable_ops(lambda x: cube(x), X)
    assert (found.key, found.kind, found.count) == ("TestHostCube", "op", 1)


def test_a_missing_gradient_is_the_error_of_op():
    cube = cube_op()
    assert float(jax.jit(cube)(2.0)) == 8.0
    for run in (jax.grad(cube), jax.jit(jax.grad(cube)), jax.grad(jax.jit(cube))):
        with pytest.raises(gk.UnknownGradientError) as error:
            run(2.0)
        assert "operation type 'TestHostCube' requires a gradient" in str(error.value)
        assert '@gradkit.RegisterGradient("TestHostCube")' in str(error.value)
    gk.NotDifferentiable("TestHostCube")
    assert float(jax.grad(cube)(2.0)) == 0.0


def test_default_vjp_without_a_gradient_is_the_same_error():
    gk.RegisterGradient("TestHostCube")(lambda op, y_bar: op.default_vjp(y_bar))
    with pytest.raises(gk.UnknownGradientError, match="'TestHostCube' requires a gradient"):
        jax.grad(cube_op())(2.0)


def true_cube_vjp(op, y_bar):
    return 3 * op.inputs[0] ** 2 * y_bar


def test_a_check_proves_a_host_gradient_and_catches_a_planted_error():
    right = gk.check(cube_op(vjp=true_cube_vjp), X, modes="reverse")
    assert right.ok, str(right)
    for planted in (cube_vjp, lambda op, y_bar: -true_cube_vjp(op, y_bar)):
        assert not gk.check(cube_op(vjp=planted), X, modes="reverse").ok


def test_gradients_agree_with_finite_differences_in_float64():
    with jax.enable_x64(True):
        interp = interpolation()
        x, values = X.astype(np.float64) + 0.1, VALUES.astype(np.float64)
        loss = lambda x, v: (interp(x, KNOTS.astype(np.float64), v) ** 2).sum()
        grads = jax.jit(jax.grad(loss, (0, 1)))(x, values)
        h = 1e-6
        for argument, grad in enumerate(grads):
            for i in range(len(grad)):
                ends = []
                for step in (h, -h):
                    args = [x.copy(), values.copy()]
                    args[argument][i] += step
                    ends.append(float(loss(*args)))
                np.testing.assert_allclose(grad[i], (ends[0] - ends[1]) / (2 * h), atol=1e-7)


def test_vjp_has_no_default_to_fall_back_on():
    cube = cube_op(vjp=lambda op, y_bar: op.default_vjp(y_bar))
    with pytest.raises(gk.UnknownGradientError, match="in vjp= of 'TestHostCube': it is the def"):
        jax.grad(cube)(2.0)
