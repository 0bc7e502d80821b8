"""Rules that are nonlinear or awkward run verbatim in reverse mode, wherever they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk

X = np.array([0.5, -1.25, 2.0, 1.5], np.float32)
D = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


def _clip(x, d):
    return jnp.clip(d, -0.75, 0.75)


def _sign(x, d):
    return jnp.sign(d) * x


def _normalise(x, d):
    return d / jnp.sqrt(1e-3 + (d * d).sum())


def _affine(x, d):
    return 2 * d + 1


def _constant(x, d):
    return jnp.full_like(x, 3.0)


def _while(x, d):
    return lax.while_loop(lambda c: jnp.abs(c).max() > 0.5, lambda c: c / 2, d)


def _cond(x, d):
    return lax.cond(jnp.sum(d) > 0, lambda: d * x, lambda: -d)


def _callback(x, d):
    shape = jax.ShapeDtypeStruct(d.shape, d.dtype)
    return jax.pure_callback(lambda a: np.tanh(a), shape, d, vmap_method="expand_dims")


def _vjp_inside(x, d):
    return jax.vjp(jnp.sin, x)[1](d)[0]


def _scan(x, d):
    return lax.scan(lambda c, _: (c * 0.5 + d, None), d, None, length=3)[0]


RULES = {
    "clip": _clip,
    "sign": _sign,
    "normalise": _normalise,
    "affine": _affine,
    "constant": _constant,
    "while_loop": _while,
    "cond": _cond,
    "pure_callback": _callback,
    "vjp_inside": _vjp_inside,
    "scan": _scan,
}


def function_with(rule):
    return gk.custom_gradient(lambda x: (jnp.cos(x), lambda d: rule(x, d)))


def reference_with(rule):
    """The same function by `jax.custom_vjp`, which is right where it runs at all."""
    f = jax.custom_vjp(jnp.cos)
    f.defvjp(lambda x: (jnp.cos(x), x), lambda x, d: (rule(x, d),))
    return f


def loss(f):
    return lambda x: (jnp.asarray(D) * f(x * 0.5)).sum()


WHERE = {
    "grad": lambda f: jax.grad(loss(f))(X),
    "jit(grad)": lambda f: jax.jit(jax.grad(loss(f)))(X),
    "grad(jit)": lambda f: jax.grad(jax.jit(loss(f)))(X),
    "vmap(grad)": lambda f: jax.vmap(jax.grad(loss(f)))(jnp.stack([X, 2 * X])),
    "grad(vmap)": lambda f: jax.grad(lambda x: jax.vmap(loss(f))(x).sum())(jnp.stack([X, 2 * X])),
    "jit(vmap(grad))": lambda f: jax.jit(jax.vmap(jax.grad(loss(f))))(jnp.stack([X, X + 1])),
    "grad(scan)": lambda f: jax.grad(
        lambda x: lax.scan(lambda c, w: (f(c) + w, c.sum()), x, jnp.asarray(X))[0].sum()
    )(X),
    "jit(grad(scan))": lambda f: jax.jit(
        jax.grad(lambda x: lax.scan(lambda c, w: (f(c) + w, None), x, jnp.asarray(X))[0].sum())
    )(X),
    "grad(cond)": lambda f: jax.grad(lambda x: lax.cond(x.sum() > 0, loss(f), jnp.sum, x))(X),
    "grad(remat)": lambda f: jax.grad(loss(jax.checkpoint(lambda x: f(f(x)))))(X),
    "jit(grad(remat(scan)))": lambda f: jax.jit(
        jax.grad(
            lambda x: jax.checkpoint(lambda z: lax.scan(lambda c, _: (f(c), None), z, None, 3))(x)[
                0
            ].sum()
        )
    )(X),
    "grad(scan(remat))": lambda f: jax.grad(
        lambda x: lax.scan(jax.checkpoint(lambda c, w: (f(c) + w, None)), x, jnp.asarray(X))[
            0
        ].sum()
    )(X),
    "vmap(grad(remat(cond)))": lambda f: jax.vmap(
        jax.grad(jax.checkpoint(lambda x: lax.cond(x.sum() > 0, loss(f), jnp.sum, x)))
    )(jnp.stack([X, -X])),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", RULES)
def test_rule_runs_verbatim(name, where):
    rule = RULES[name]
    np.testing.assert_allclose(
        WHERE[where](function_with(rule)), WHERE[where](reference_with(rule)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["clip", "sign", "normalise", "affine", "constant", "cond"])
def test_forward_mode_of_a_nonlinear_rule_is_refused(name):
    f = function_with(RULES[name])
    for push in (jax.jvp, lambda *a: jax.jit(lambda x, v: jax.jvp(f, (x,), (v,)))(X, D)):
        with pytest.raises(gk.ForwardModeError, match="is not linear in its cotangent"):
            push(f, (X,), (D,))
    with pytest.raises(gk.ForwardModeError):
        jax.jacfwd(f)(X)
    with pytest.raises(gk.ForwardModeError):
        jax.hessian(lambda x: f(x).sum())(X) if name == "affine" else jax.jacfwd(jax.jit(f))(X)


def test_forward_mode_error_names_function_and_operation():
    @gk.custom_gradient
    def clipped(x):
        return x, lambda d: jnp.clip(d, -1, 1)

    with pytest.raises(gk.ForwardModeError) as error:
        jax.jvp(clipped, (1.0,), (1.0,))
    text = str(error.value)
    assert "the gradient of 'clipped' cannot be run in forward mode" in text
    assert "is not linear in the cotangent" in text
    assert "use reverse mode" in text


@pytest.mark.parametrize(
    "rule",
    [
        lambda x, d: d * x + 0.0,
        lambda x, d: jnp.where(x > 0, d, 0.0),
        lambda x, d: jnp.pad(d[1:], (1, 0)),
        lambda x, d: d[::-1] - jnp.cumsum(d),
        lambda x, d: (d.reshape(2, 2) @ jnp.ones((2, 2))).ravel() / 3,
        lambda x, d: lax.scan(lambda c, _: (c * 0.5, None), d, None, length=2)[0],
        lambda x, d: lax.cond(jnp.sum(x) > 0, lambda: 2 * d, lambda: d),
        lambda x, d: jax.vjp(jnp.sin, x)[1](d)[0],
        lambda x, d: d.at[0].set(0.0),
        lambda x, d: jnp.take(d, jnp.array([1, 0, 3, 2])).astype("float32"),
        lambda x, d: jax.jit(lambda d: -d)(d),
        lambda x, d: None,
    ],
)
def test_forward_mode_of_a_linear_rule_is_its_transpose(rule):
    f = function_with(rule)
    reverse = jax.jacrev(f)(X)
    np.testing.assert_allclose(jax.jacfwd(f)(X), reverse, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(jax.jit(f)))(X), reverse, rtol=1e-6)


def test_a_rule_may_call_its_own_function():
    @gk.custom_gradient
    def newton_sqrt(a):
        y = lax.fori_loop(0, 30, lambda _, y: 0.5 * (y + a / y), a)
        return y, lambda y_bar: y_bar * 0.5 / newton_sqrt(a)

    for f in (newton_sqrt, jax.jit(newton_sqrt)):
        d = f
        for expected in (1 / 4, -1 / 32, 3 / 256):
            d = jax.grad(d)
            np.testing.assert_allclose(d(4.0), expected, rtol=1e-5)


def test_higher_orders_differentiate_the_stated_gradient():
    f = gk.custom_gradient(lambda x: (x**3, lambda y_bar: y_bar * 5 * x**3))
    d = f
    for expected in (40.0, 60.0, 60.0):
        d = jax.grad(d)
        assert float(d(2.0)) == expected


def test_a_captured_output_differentiates_naturally():
    @gk.custom_gradient
    def f(x):
        y = x**2
        return y, lambda y_bar: y_bar * y

    assert float(jax.grad(f)(3.0)) == 9.0
    assert float(jax.grad(jax.grad(f))(3.0)) == 6.0  # d(x^2)/dx, not f's own gradient


def test_inner_custom_gradient_in_the_rule_gives_the_second_derivative():
    @gk.custom_gradient
    def slope(x, y_bar):
        return 2 * x * y_bar, lambda d: (100.0 * d * y_bar, 2 * x * d)

    f = gk.custom_gradient(lambda x: (x * x, lambda y_bar: slope(x, y_bar)))
    assert float(jax.grad(f)(3.0)) == 6.0
    assert float(jax.grad(jax.grad(f))(3.0)) == 100.0
    assert float(jax.grad(jax.grad(lambda x: f(x) ** 2))(3.0)) == 1872.0


def test_a_forward_pass_without_derivative_has_higher_orders():
    @gk.custom_gradient
    def host_sin(x):
        shape = jax.ShapeDtypeStruct(jnp.shape(x), jnp.float32)
        y = jax.pure_callback(np.sin, shape, x, vmap_method="expand_dims")
        return y, lambda y_bar: y_bar * jnp.cos(x)

    for f in (host_sin, jax.jit(host_sin), lambda x: jax.vmap(host_sin)(jnp.stack([x, x]))[0]):
        np.testing.assert_allclose(jax.grad(f)(0.3), np.cos(0.3), rtol=1e-6)
        np.testing.assert_allclose(jax.grad(jax.grad(f))(0.3), -np.sin(0.3), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(host_sin)))(0.3), -np.sin(0.3), rtol=1e-6)


def test_an_output_without_a_path_calls_no_rule():
    calls = []

    @gk.custom_gradient
    def f(x):
        def grad(y_bar):
            calls.append(1)
            return jnp.ones_like(x)

        return x * 2, grad

    assert float(jax.grad(lambda x: x + 0 * lax.stop_gradient(f(x)))(3.0)) == 1.0
    assert calls == []


def test_side_effects_run_once(capfd):
    @gk.custom_gradient
    def f(x):
        jax.debug.print("forward")

        def grad(y_bar):
            jax.debug.print("backward")
            return y_bar

        return x * 2, grad

    for run in (jax.grad(f), jax.jit(jax.grad(f)), jax.grad(jax.jit(f))):
        run(3.0)
        jax.effects_barrier()
        assert sorted(capfd.readouterr().out.split()) == ["backward", "forward"]


def test_unmapped_arguments_sum_over_the_batch():
    @gk.custom_gradient
    def affine(w, x):
        return w * x, lambda y_bar: (jnp.clip(y_bar * x, -1, 1), y_bar * w)

    xs = jnp.array([0.5, 2.0, -3.0])
    w_bar = jax.grad(lambda w: jax.vmap(affine, (None, 0))(w, xs).sum())(2.0)
    np.testing.assert_allclose(w_bar, 0.5 + 1 - 1)


@pytest.mark.parametrize(
    "wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["eager", "jit", "remat"]
)
def test_linear_transpose_is_the_rule_where_it_can_do_without_the_input(wrap):
    w = jnp.array([1.0, 2.0])
    tripled = gk.custom_gradient(lambda x: (w * x, lambda y_bar: 3 * w * y_bar))
    (x_bar,) = jax.linear_transpose(wrap(tripled), w)(jnp.ones(2))
    np.testing.assert_array_equal(x_bar, [3.0, 6.0])
    scaled = gk.custom_gradient(lambda x, w: (w * x, lambda y_bar: (w * y_bar, x * y_bar)))
    (x_bar,) = jax.linear_transpose(wrap(lambda x: scaled(x, w)), w)(jnp.ones(2))
    np.testing.assert_array_equal(x_bar, w)


def test_linear_transpose_of_a_rule_that_looks_at_the_input_is_that_of_the_function():
    f = gk.custom_gradient(lambda x: (2 * x, lambda y_bar: y_bar * jnp.sign(x)))
    assert jax.linear_transpose(f, 1.0)(1.0) == (2.0,)
