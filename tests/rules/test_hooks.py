"""Hooks show the cotangent, change no value and no gradient, and cost nothing where unused."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradkit as gk
from gradkit.rules import cotangent_norm, on_cotangent, print_cotangent, tap

X = jnp.array([0.3, -0.7, 1.2])

HOOKS = {
    "tap": lambda x: tap(x, "h"),
    "on_cotangent": lambda x: on_cotangent(x, lambda x_bar: None),
    "print_cotangent": lambda x: print_cotangent(x),
    "cotangent_norm": lambda x: cotangent_norm(x, "h"),
}


@pytest.fixture(params=HOOKS)
def hook(request):
    return HOOKS[request.param]


def operations(fn, *args):
    """The optimised HLO without source lines and module names."""
    text = jax.jit(fn).lower(*args).compile().as_text()
    text = text[text.index("\n%") if "\n%" in text else text.index("\nENTRY") :]
    text = re.sub(r", metadata=\{[^}]*\}", "", text)
    return re.sub(r"%?[\w.-]*(jit_|main)[\w.-]*", "main", text)


def loop(hook):
    def loss(x):
        step = lambda c, _: (jax.checkpoint(lambda c: jnp.sin(hook(c * x)))(c), None)
        return jnp.sum(hook(lax.scan(step, x, length=3)[0]))

    return loss


DERIVATIVES = {
    "value": lambda f: f,
    "grad": jax.grad,
    "grad(vmap)": lambda f: jax.grad(lambda x: jnp.sum(jax.vmap(f)(x))),
    "vmap(grad)": lambda f: jax.vmap(jax.grad(f)),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
    "hessian": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_tap_leaves_the_compiled_program_as_it_is(name):
    derive = DERIVATIVES[name]
    x = jnp.stack([X, X]) if "vmap" in name else X
    got = operations(derive(loop(HOOKS["tap"])), x)
    assert got == operations(derive(loop(lambda x: x)), x)


@pytest.mark.parametrize("name", ["value", "jvp"])
def test_every_hook_costs_nothing_without_reverse_mode(hook, name):
    got = operations(DERIVATIVES[name](loop(hook)), X)
    assert got == operations(DERIVATIVES[name](loop(lambda x: x)), X)


@pytest.mark.parametrize("name", ["grad", "jvp", "hessian", "vmap(grad)"])
def test_hooks_change_no_derivative(hook, name):
    derive = DERIVATIVES[name]
    x = jnp.stack([X, X]) if "vmap" in name else X
    got, want = (jax.jit(derive(loop(h)))(x) for h in (hook, lambda x: x))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_hooks_return_the_pytree_that_they_are_given(hook):
    tree = {"a": X, "b": (jnp.arange(3), None, "text", 2.0, jax.random.key(0))}
    out = hook(tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    assert out["b"][2] == "text"
    np.testing.assert_array_equal(out["a"], X)
    assert jax.random.key_data(out["b"][4]).tolist() == [0, 0]


def test_hooks_can_be_transposed(hook):
    (x_bar,) = jax.linear_transpose(lambda x: hook(2 * x), X)(X)
    np.testing.assert_allclose(x_bar, 2 * X)


def test_hooks_of_nothing_are_nothing(hook):
    assert hook({}) == {}
    assert hook(None) is None


def calls_of(run):
    """What callbacks have seen, in any order."""
    seen = []
    run(lambda x: on_cotangent(x, lambda x_bar: seen.append(np.asarray(x_bar))))
    jax.effects_barrier()
    return sorted(np.concatenate([np.ravel(x_bar) for x_bar in seen]).tolist())


class TestOnCotangent:
    """The cotangent of x*x in sum(sin(x*x)) is cos(x*x)."""

    want = sorted(np.cos(np.array([0.3, -0.7, 1.2]) ** 2).tolist())

    @pytest.mark.parametrize(
        "run",
        [
            lambda f: jax.grad(f)(X),
            lambda f: jax.jit(jax.grad(f))(X),
            lambda f: jax.grad(jax.jit(f))(X),
            lambda f: jax.grad(jax.checkpoint(f))(X),
            lambda f: jax.vmap(jax.grad(f))(X),
            lambda f: jax.grad(lambda x: jnp.sum(jax.vmap(f)(x)))(X),
            lambda f: jax.grad(lambda x: lax.scan(lambda c, a: (c + f(a), None), 0.0, x)[0])(X),
            lambda f: jax.grad(lambda x: lax.cond(x[0] > 0, f, jnp.sum, x))(X),
            lambda f: jax.vjp(f, X)[1](1.0),
        ],
        ids="grad jit grad(jit) remat vmap(grad) grad(vmap) scan cond vjp".split(),
    )
    def test_sees_each_cotangent_once(self, run):
        seen = calls_of(lambda h: run(lambda x: jnp.sum(jnp.sin(h(x * x)))))
        np.testing.assert_allclose(seen, self.want, rtol=1e-6)

    def test_sees_one_example_a_call_under_vmap(self):
        shapes = []
        f = lambda x: jnp.sum(on_cotangent(x, lambda x_bar: shapes.append(x_bar.shape)) ** 2)
        jax.grad(lambda xs: jnp.sum(jax.vmap(f)(xs)))(jnp.ones((4, 3)))
        jax.effects_barrier()
        assert shapes == [(3,)] * 4

    def test_sees_none_in_a_branch_that_is_not_taken(self):
        run = lambda h: jax.grad(lambda x: lax.cond(x > 9, lambda x: h(x), jnp.sin, x))(1.0)
        seen = []
        run(lambda x: on_cotangent(x, seen.append))
        jax.effects_barrier()
        assert seen == []

    def test_gets_the_structure_of_the_value(self):
        seen = []
        f = lambda x: on_cotangent({"a": x, "n": jnp.arange(2), "b": [2 * x]}, seen.append)
        jax.grad(lambda x: jnp.sum(f(x)["a"] * X + f(x)["b"][0]))(X)
        jax.effects_barrier()
        assert len(seen) == 2
        assert {str(jax.tree.structure(bar)) for bar in seen} == {
            "PyTreeDef({'a': *, 'b': [*], 'n': None})"
        }

    def test_ordered_calls_keep_the_order_of_the_backward_pass(self):
        seen = []
        hook = lambda x: on_cotangent(x, lambda x_bar: seen.append(float(x_bar)), ordered=True)

        def loss(x):
            return lax.scan(lambda c, _: (2 * hook(c), None), x, length=5)[0]

        jax.jit(jax.grad(loss))(1.0)
        jax.effects_barrier()
        assert seen == [2.0, 4.0, 8.0, 16.0, 32.0]

    def test_an_error_of_the_callback_reaches_the_user(self):
        def callback(x_bar):
            raise ZeroDivisionError("planted")

        with pytest.raises(Exception, match="planted"):
            jax.grad(lambda x: on_cotangent(x, callback))(1.0)
            jax.effects_barrier()

    def test_what_is_called_is_a_function(self):
        with pytest.raises(gk.RuleError) as error:
            on_cotangent(X, "print")
        text = str(error.value)
        assert "on_cotangent needs a function to call" in text
        assert "callback(x_bar)" in text
        assert "str" in text

    def test_still_called_while_others_are_collected(self):
        seen = []
        loss = lambda x: tap(on_cotangent(x, seen.append) * 3, "h")
        _, _, cotangents = gk.collect_cotangents(loss, 1.0)
        jax.effects_barrier()
        assert seen == [3.0]
        assert cotangents["h"] == 1.0


class TestPrinting:
    def test_the_cotangent(self, capfd):
        jax.grad(lambda x: 3 * print_cotangent(x, "{{x}} gets {:.2f}"))(1.0)
        jax.effects_barrier()
        assert capfd.readouterr().out == "{x} gets 3.00\n"

    def test_the_norm(self, capfd):
        tree = {"a": jnp.ones(2), "b": jnp.ones(())}
        loss = lambda t: jnp.dot(t["a"], jnp.array([0.0, 3.0])) + 4 * t["b"]
        jax.grad(lambda t: loss(cotangent_norm(t, "{w}")))(tree)
        jax.effects_barrier()
        assert capfd.readouterr().out == "{w}: 5.0\n"

    @pytest.mark.parametrize("fmt", ["no place", "{} and {}", "{x}", "{", 3])
    def test_a_format_has_one_place(self, fmt):
        with pytest.raises(gk.RuleError) as error:
            print_cotangent(X, fmt)
        assert "needs a format with one place for the cotangent" in str(error.value)
        assert 'such as "label {}"' in str(error.value)

    def test_a_norm_has_a_name(self):
        with pytest.raises(gk.RuleError, match="a norm has a name"):
            cotangent_norm(X, "")


def test_a_tap_finds_what_perturb_of_flax_finds():
    class Model(nn.Module):
        perturbed: bool

        @nn.compact
        def __call__(self, x):
            h = nn.tanh(nn.Dense(4)(x))
            h = self.perturb("h", h) if self.perturbed else tap(h, "h")
            return jnp.sum(nn.Dense(2)(h) ** 2)

    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    variables = Model(True).init(jax.random.key(0), x)
    params = {"params": variables["params"]}
    loss = lambda z: Model(True).apply({**params, "perturbations": z}, x)
    want = jax.grad(loss)(variables["perturbations"])["h"]
    _, _, cotangents = gk.collect_cotangents(lambda p: Model(False).apply(p, x), params)
    np.testing.assert_allclose(cotangents["h"], want, rtol=1e-5)


def test_hooks_are_forgotten_with_their_program():
    import gc

    from gradkit._hook import Hook

    def run(i):
        f = lambda x: on_cotangent(tap(x, "h"), lambda x_bar: i)
        jax.jit(lambda x: f(x)).lower(X)

    for i in range(20):
        run(i)
    gc.collect()
    assert sum(isinstance(o, Hook) for o in gc.get_objects()) < 10
