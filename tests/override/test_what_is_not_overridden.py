"""Only what the user's program calls is overridden: not what rules call, and not JAX itself."""

import contextlib
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit._jax_compat import primitives
from tests.kit.rewriting import primitives_in

X = 0.75
V = np.array([0.5, -1.25, 2.0, 1.5], np.float32)
M = np.array([[2.0, 0.5], [0.25, 1.0]], np.float32)


def wrong(op, *y_bars):
    """A rule that shows wherever it is used."""
    zeros = [jnp.zeros_like(x) for x in op.inputs]
    return tuple(1000.0 + z if jnp.issubdtype(z.dtype, jnp.floating) else None for z in zeros)


@contextlib.contextmanager
def overriding(*keys, rule=wrong):
    """A scope in which the keys may go unused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gk.UnusedOverrideWarning)
        with gk.gradient_override_map(dict.fromkeys(keys, rule)):
            yield


# -- JAX's own rules --------------------------------------------------------------------------

DERIVATIVES = {
    "first": (lambda f: jax.grad(f), np.cos(X)),
    "second": (lambda f: jax.grad(jax.grad(f)), -np.sin(X)),
    "third": (lambda f: jax.grad(jax.grad(jax.grad(f))), -np.cos(X)),
    "forward": (lambda f: jax.jacfwd(f), np.cos(X)),
    "forward over reverse": (lambda f: jax.jacfwd(jax.grad(f)), -np.sin(X)),
    "reverse over forward": (lambda f: jax.grad(jax.jacfwd(f)), -np.sin(X)),
}
WRAPS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, length=1)[0],
    "cond": lambda f: lambda x: lax.cond(x > 0, f, lambda z: z, x),
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
}


@pytest.mark.parametrize("order", DERIVATIVES)
@pytest.mark.parametrize("wrap", WRAPS)
def test_what_the_rule_of_sin_calls_stays_natural(wrap, order):
    derivative, want = DERIVATIVES[order]
    f = derivative(WRAPS[wrap](lambda x: jnp.sin(x)))
    x = jnp.float32(X)
    with overriding("mul", "cos", "neg"):
        assert np.isclose(f(x), want, rtol=1e-5)
        assert np.isclose(jax.jit(f)(x), want, rtol=1e-5)
    assert np.isclose(f(x), want, rtol=1e-5)


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_the_user_calls_beside_it_is_overridden(wrap):
    """Two calls of cos: one by the rule of sin, one by the program."""
    f = WRAPS[wrap](lambda x: jnp.sin(x) + jnp.cos(x))
    with overriding("cos", rule=lambda op, y_bar: 5.0 * y_bar):
        assert np.isclose(jax.grad(f)(jnp.float32(X)), np.cos(X) + 5, rtol=1e-5)
        assert np.isclose(jax.grad(jax.grad(f))(jnp.float32(X)), -np.sin(X), rtol=1e-5)


def test_a_product_of_overridden_products_counts_only_the_users_own():
    """x * x * sin(x): two products of the program; the rest are those of rules."""
    double = lambda op, y_bar: tuple(2 * t for t in op.default_vjp(y_bar))
    f = lambda x: jnp.multiply(jnp.multiply(x, x), jnp.sin(x))
    with gk.gradient_override_map({"mul": double}):
        got = jax.grad(f)(X)
    assert np.isclose(got, 4 * 2 * X * np.sin(X) + 2 * X**2 * np.cos(X), rtol=1e-5)


# Functions whose rules call much, and arguments for them.
FUNCTIONS = {
    "exp": (jnp.exp, V),
    "log": (lambda x: jnp.log(jnp.abs(x)), V),
    "tanh": (jnp.tanh, V),
    "sqrt": (lambda x: jnp.sqrt(jnp.abs(x)), V),
    "logistic": (jax.nn.sigmoid, V),
    "divide": (lambda x: 1 / x, V),
    "power": (lambda x: jnp.abs(x) ** 1.5, V),
    "arctan2": (lambda x: jnp.arctan2(x, 2.0), V),
    "erf": (jax.scipy.special.erf, V),
    "gammaln": (lambda x: jax.scipy.special.gammaln(jnp.abs(x)), V),
    "relu": (jax.nn.relu, V),
    "softplus": (jax.nn.softplus, V),
    "logsumexp": (jax.nn.logsumexp, V),
    "max": (jnp.max, V),
    "prod": (jnp.prod, V),
    "cumsum": (jnp.cumsum, V),
    "cumprod": (jnp.cumprod, V),
    "sort": (jnp.sort, V),
    "top_k": (lambda x: lax.top_k(x, 2)[0], V),
    "index": (lambda x: x[jnp.array([0, 2])], V),
    "slice": (lambda x: x[1:3], V),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (1,), (2,)), V),
    "concatenate": (lambda x: jnp.concatenate([x, x]), V),
    "matmul": (lambda m: m @ m, M),
    "max_pool": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"),
        V,
    ),
    "cholesky": (lambda m: jnp.linalg.cholesky(m @ m.T), M),
    "inv": (jnp.linalg.inv, M),
    "det": (jnp.linalg.det, M),
    "eigh": (lambda m: jnp.linalg.eigh(m @ m.T)[0], M),
    "svd": (lambda m: jnp.linalg.svd(m, compute_uv=False), M),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whatever_else_the_rules_of_a_function_call_stays_natural(name):
    f, x = FUNCTIONS[name]
    loss = lambda x: (jnp.sin(f(x)) * 0.5).sum()
    first = jax.grad(loss)
    second = jax.jit(jax.grad(lambda x: (first(x) * 0.5).sum()))
    natural = first(x), second(x)
    # jnp functions are jitted, and outside of jit some convert their arguments to the same dtype.
    own = primitives_in(jax.make_jaxpr(loss)(x).jaxpr) | {"jit", "convert_element_type"}
    with overriding(*(f"prim:{name}" for name in primitives() if name not in own)):
        got = first(x), second(x)
    for g, n in zip(got, natural, strict=True):
        np.testing.assert_allclose(g, n, rtol=1e-4, atol=1e-5)


def test_what_a_batching_rule_calls_stays_natural():
    f = jax.vmap(lambda x, i: lax.dynamic_slice(x, (i,), (2,)))  # becomes a gather
    g = jax.grad(lambda x, i: f(x, i).sum())
    x, i = np.stack([V, V]), np.array([0, 1])
    want = np.array([[1, 1, 0, 0], [0, 1, 1, 0]])
    with overriding("gather", "scatter", "scatter-add", "concatenate"):
        np.testing.assert_array_equal(g(x, i), want)
        np.testing.assert_array_equal(jax.jit(g)(x, i), want)
    with overriding("dynamic_slice", rule=lambda op, y_bar: (3 + 0 * op.inputs[0], None)):
        np.testing.assert_array_equal(g(x, i), np.full((2, 4), 3))


def test_a_key_that_only_rules_call_is_reported_as_unused():
    rule = lambda op, y_bar: y_bar
    with (
        pytest.warns(gk.UnusedOverrideWarning, match="'cos'"),
        gk.gradient_override_map({"cos": rule}),
    ):
        jax.grad(jnp.sin)(X)


# -- the rules of users -----------------------------------------------------------------------


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_rule_may_call_its_own_operation(wrap):
    square_rule = lambda op, y_bar: jnp.square(op.inputs[0]) * y_bar
    f = WRAPS[wrap](lambda x: jnp.square(x))
    with gk.gradient_override_map({"Square": square_rule}):
        assert np.isclose(jax.grad(f)(jnp.float32(X)), X**2)
        assert np.isclose(jax.grad(jax.grad(f))(jnp.float32(X)), 2 * X)
        assert np.isclose(jax.grad(jax.grad(jax.grad(f)))(jnp.float32(X)), 2)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_rules_may_call_each_others_operations(wrap):
    overrides = {
        "sin": lambda op, y_bar: jnp.exp(op.inputs[0]) * y_bar,
        "exp": lambda op, y_bar: jnp.sin(op.inputs[0]) * y_bar,
    }
    f = wrap(lambda x: jnp.sin(x) + 10 * jnp.exp(x))
    with gk.gradient_override_map(overrides):
        assert np.isclose(jax.grad(f)(X), np.exp(X) + 10 * np.sin(X))
        assert np.isclose(jax.grad(jax.grad(f))(X), np.exp(X) + 10 * np.cos(X))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_jitted_functions_inside_a_rule_are_natural(wrap):
    helper = jax.jit(lambda x: jnp.sin(x))
    rule = lambda op, y_bar: helper(op.inputs[0]) * y_bar
    f = wrap(lambda x: jnp.sin(x) + helper(x))
    with gk.gradient_override_map({"sin": rule}):
        assert np.isclose(jax.grad(f)(X), 2 * np.sin(X))
        assert np.isclose(jax.grad(jax.grad(f))(X), 2 * np.cos(X))


def test_a_scope_that_a_rule_opens_itself_holds():
    inner = lambda op, y_bar: 7.0 * y_bar

    def rule(op, y_bar):
        with gk.gradient_override_map({"sin": inner}):
            return jax.grad(jnp.sin)(op.inputs[0]) * y_bar

    with gk.gradient_override_map({"sin": rule}):
        assert jax.grad(jnp.sin)(X) == 7
        assert jax.jit(jax.grad(jnp.sin))(X) == 7


@gk.custom_gradient
def with_custom_gradient(x):
    return x * 2.0, lambda y_bar: jnp.sin(x) * y_bar


@jax.custom_vjp
def with_custom_vjp(x):
    return x * 2.0


with_custom_vjp.defvjp(lambda x: (x * 2.0, jnp.tanh(x)), lambda t, y_bar: (jnp.sin(t) * y_bar,))


@jax.custom_jvp
def with_custom_jvp(x):
    return x * 2.0


with_custom_jvp.defjvps(lambda x_dot, y, x: jnp.sin(x) * x_dot)


@gk.op("NotOverriddenDouble")
def with_op(x):
    return x * 2.0


_TANH = np.tanh(X)
USERS = {
    "custom_gradient": (with_custom_gradient, np.sin(X), np.cos(X)),
    "custom_vjp": (with_custom_vjp, np.sin(_TANH), np.cos(_TANH) * (1 - _TANH**2)),
    "custom_jvp": (with_custom_jvp, np.sin(X), np.cos(X)),
    "op": (with_op, np.sin(X), np.cos(X)),
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_what_a_users_rule_calls_is_natural(user, wrap):
    f, first, second = USERS[user]
    f = WRAPS[wrap](lambda x, f=f: f(x))
    x = jnp.float32(X)
    with gk.registry_scope():
        gk.RegisterGradient("NotOverriddenDouble")(lambda op, y_bar: jnp.sin(op.inputs[0]) * y_bar)
        with overriding("sin", "mul", "tanh", "cos", "sub"):
            assert np.isclose(jax.grad(f)(x), first, rtol=1e-5)
            assert np.isclose(jax.grad(jax.grad(f))(x), second, rtol=1e-5)


def test_what_an_overridden_function_calls_is_natural_in_its_default():
    """relu's values come from max and its derivative from a selection, whatever they mean."""
    with overriding("max", "select_n", "gt"):
        for f in (jax.nn.relu, jax.jit(jax.nn.relu)):
            np.testing.assert_array_equal(jax.grad(lambda x, f=f: f(x).sum())(V), V > 0)
        double = lambda op, y_bar: 2 * op.default_vjp(y_bar)
        with gk.gradient_override_map({"Relu": double}):
            for f in (jax.nn.relu, jax.jit(jax.nn.relu)):
                np.testing.assert_array_equal(jax.grad(lambda x, f=f: f(x).sum())(V), 2 * (V > 0))


# -- jit caches that JAX's rules and the user share -------------------------------------------

# One scope, in which the rule of `by_rule` calls the jitted function that `by_user` calls too.
SHARED = {
    "where inside relu": (
        "select_n",
        lambda x: jax.nn.relu(x),
        lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)),
        lambda op, y_bar: (None, 7.0 * y_bar, 7.0 * y_bar),
        lambda x: (x > 0).astype(np.float32),
        lambda x: np.full_like(x, 7),
    ),
    "exp inside logaddexp": (
        "exp",
        lambda x: jnp.logaddexp(x, jnp.zeros_like(x)),
        lambda x: jnp.exp(x),
        lambda op, y_bar: 7.0 * y_bar,
        lambda x: 1 / (1 + np.exp(-x)),
        lambda x: np.full_like(x, 7),
    ),
    "cos inside sinc": (
        "cos",
        lambda x: jnp.sinc(x),
        lambda x: jnp.cos(x),
        lambda op, y_bar: 7.0 * y_bar,
        lambda x: np.cos(np.pi * x) / x - np.sin(np.pi * x) / (np.pi * x**2),
        lambda x: np.full_like(x, 7),
    ),
}


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("user_first", [False, True])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_jits_cache_keeps_the_rules_calls_and_the_users_apart(case, user_first, wrap):
    key, by_rule, by_user, rule, rule_grad, user_grad = SHARED[case]
    size = 30 + 2 * user_first + (wrap is jax.jit)  # a shape that is in no cache yet
    x = np.linspace(-1.5, 1.25, size, dtype=np.float32)
    calls = [(by_rule, rule_grad), (by_user, user_grad)]
    if user_first:
        calls.reverse()
    with gk.gradient_override_map({key: rule}):
        for f, want in calls * 2:
            got = jax.grad(wrap(lambda x, f=f: f(x).sum()))(x)
            np.testing.assert_allclose(got, want(x), rtol=1e-3, atol=1e-6)
        both = jax.grad(wrap(lambda x: sum(f(x).sum() for f, _ in calls)))(x)
        np.testing.assert_allclose(both, rule_grad(x) + user_grad(x), rtol=1e-3)
    np.testing.assert_allclose(jax.grad(lambda x: by_rule(x).sum())(x), rule_grad(x), rtol=1e-3)


def test_a_jitted_function_that_a_rule_has_compiled_is_overridden_for_the_user():
    helper = jax.jit(lambda x: jnp.sin(x))

    @jax.custom_vjp
    def f(x):
        return 2 * x

    f.defvjp(lambda x: (2 * x, x), lambda x, y_bar: (helper(x) * y_bar,))
    with gk.gradient_override_map({"sin": lambda op, y_bar: 7.0 * y_bar}):
        for _ in range(2):
            assert np.isclose(jax.grad(jax.grad(f))(X), np.cos(X))
            assert jax.grad(helper)(X) == 7


# -- JAX as it was ----------------------------------------------------------------------------

IMPORTING = """
    import jax, jax.numpy as jnp
    import optax  # which imports submodules of JAX
    from jax import lax
    from jax._src import core
    from jax._src.interpreters import ad, batching, partial_eval
    from jax.extend.core import primitives
    jax.config.update("jax_explain_cache_misses", True)

    def state():
        places = [jax, jax.nn, jnp, lax, core, ad, batching, partial_eval, jax.custom_jvp,
                  jax.custom_vjp, ad.JVPTrace, ad.LinearizeTrace, batching.BatchTrace,
                  core.EvalTrace, core.Primitive, type(jax.named_scope("a")),
                  lax.square_p, lax.sin_p, primitives.jit_p]
        return [dict(vars(place)) for place in places]

    traces = []

    @jax.jit
    def f(x):
        traces.append(x)
        return jax.nn.relu(jnp.sin(x)) ** 2

    grad = jax.grad(f)
    f(1.0), grad(1.0)
    before, count = state(), len(traces)
    context = jax._src.config.trace_context()
    import gradkit
    after = state()
    assert all(a == b for a, b in zip(before, after, strict=True)), "importing changed JAX"
    f(1.0), grad(1.0), jax.grad(f)(1.0)
    assert len(traces) == count, "importing made JAX trace again"
    assert jax._src.config.trace_context() == context
    {more}
    print("as it was")
"""
LEAVING = """
    def fine(op, y_bar): return y_bar
    with gradkit.gradient_override_map({"sin": fine, "Relu": fine}):
        grad(1.0)
    after = state()
    assert all(a == b for a, b in zip(before, after, strict=True)), "a scope changed JAX"
"""


@pytest.mark.parametrize("more", ["", LEAVING], ids=["importing", "leaving the first scope"])
def test_jax_is_as_it_was_after(more):
    code = textwrap.dedent(IMPORTING).replace("{more}", textwrap.dedent(more))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n")[-2:] == ["as it was", ""], done.stderr


def test_calls_outside_a_scope_stay_on_jits_fast_path():
    """After the first scope has come and gone, compiled functions are still not traced anew."""
    traces = []

    @jax.jit
    def f(x):
        traces.append(x)
        return jnp.sin(x)

    with gk.gradient_override_map({"sin": lambda op, y_bar: y_bar}):
        jnp.sin(X)
    f(X)
    with gk.gradient_override_map({"sin": lambda op, y_bar: y_bar}):
        jnp.sin(X)
    f(X)
    assert len(traces) == 1
