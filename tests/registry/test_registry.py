"""Registering gradients by name."""

import collections
import gc
import importlib
import sys

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk


@pytest.fixture(autouse=True)
def scope():
    with gk.registry_scope():
        yield


def times_ten(op, y_bar):
    return 10.0 * y_bar


def test_register_returns_the_rule_and_get_gradient_finds_it():
    assert gk.RegisterGradient("Ten")(times_ten) is times_ten
    assert gk.get_gradient("Ten") is times_ten
    assert gk.registered_gradients()["Ten"] is times_ten


def test_identity_exists_from_the_start():
    assert "Identity" in gk.registered_gradients()


def test_registered_gradients_is_a_sorted_read_only_copy():
    gk.RegisterGradient("ZZ")(times_ten)
    gk.RegisterGradient("AA")(times_ten)
    names = list(gk.registered_gradients())
    assert names == sorted(names)
    with pytest.raises(TypeError):
        gk.registered_gradients()["New"] = times_ten


def test_a_duplicate_is_an_error_that_names_the_first():
    gk.RegisterGradient("Ten")(times_ten)

    def other(op, y_bar):
        return y_bar

    with pytest.raises(gk.RegistryError) as error:
        gk.RegisterGradient("Ten")(other)
    text = str(error.value)
    assert "a gradient is already registered under 'Ten'" in text
    assert "first registered by times_ten at test_registry.py:" in text
    assert "replace=True" in text
    assert gk.get_gradient("Ten") is times_ten
    with pytest.raises(gk.RegistryError, match="already registered"):
        gk.NotDifferentiable("Ten")
    with pytest.raises(gk.RegistryError, match="already registered"):
        gk.RegisterGradient("Identity")(other)


def test_replace_takes_the_name():
    gk.RegisterGradient("Ten")(times_ten)
    gk.RegisterGradient("Ten", replace=True)(lambda op, y_bar: y_bar)
    assert gk.get_gradient("Ten") is not times_ten
    gk.NotDifferentiable("Ten", replace=True)
    with gk.gradient_override_map({"Square": "Ten"}):
        assert float(jax.grad(jnp.square)(3.0)) == 0.0


def test_a_reloaded_module_registers_again_with_replace(tmp_path, monkeypatch):
    source = (
        "import gradkit\n"
        "@gradkit.RegisterGradient('Reloaded', replace=True)\n"
        "def rule(op, y_bar):\n    return y_bar\n"
    )
    (tmp_path / "reloaded_rules.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloaded_rules")
    first = gk.get_gradient("Reloaded")
    importlib.reload(module)
    assert gk.get_gradient("Reloaded") is not first
    del sys.modules["reloaded_rules"]


def test_a_miss_says_did_you_mean():
    gk.RegisterGradient("GuidedRelu")(times_ten)
    with pytest.raises(gk.UnknownGradientError, match="did you mean 'GuidedRelu'"):
        gk.get_gradient("GuidedRelux")
    with pytest.raises(LookupError):
        gk.get_gradient("Nope")


@pytest.mark.parametrize("name", [3, "", None])
def test_a_name_is_a_string(name):
    with pytest.raises(gk.RuleError, match="non-empty string"):
        gk.RegisterGradient(name)
    with pytest.raises(gk.RuleError, match="non-empty string"):
        gk.NotDifferentiable(name)


def test_a_rule_is_callable():
    with pytest.raises(gk.RuleError, match="'Broken' is not callable"):
        gk.RegisterGradient("Broken")(3)
    assert "Broken" not in gk.registered_gradients()


def test_registry_scope_forgets_and_restores_even_on_errors():
    gk.RegisterGradient("Ten")(times_ten)
    before = dict(gk.registered_gradients())
    with pytest.raises(RuntimeError), gk.registry_scope():
        gk.RegisterGradient("Inner")(times_ten)
        gk.RegisterGradient("Ten", replace=True)(lambda op, y_bar: y_bar)
        raise RuntimeError
    assert dict(gk.registered_gradients()) == before


def test_many_calls_leave_nothing_behind():
    """No call of a custom function adds to the registry or to a cache that outlives it."""
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: 3 * y_bar))
    scale = gk.op("LeakScale")(lambda x: x * 2)
    gk.RegisterGradient("LeakScale")(times_ten)

    def run(n):
        for _ in range(n):
            f(1.0)
            jax.grad(f)(1.0)
            jax.jvp(scale, (1.0,), (1.0,))
            jax.make_jaxpr(lambda x: f(scale(x)))(1.0)
            jax.make_jaxpr(jax.hessian(lambda x: f(scale(x))))(1.0)
            jax.make_jaxpr(jax.grad(lambda x: jax.vmap(f)(x).sum()))(jnp.ones(2))
            with gk.gradient_override_map({"Square": times_ten}):
                jax.grad(jnp.square)(1.0)

    run(2)
    names, before = len(gk.registered_gradients()), live_objects()
    run(30)
    assert len(gk.registered_gradients()) == names
    # What other tests have left may go meanwhile; nothing may come.
    assert not live_objects() - before


def live_objects():
    """How many objects of gradkit's own classes are alive."""
    gc.collect()
    return collections.Counter(
        type(o).__qualname__
        for o in gc.get_objects()
        if str(type(o).__module__).startswith("gradkit.")
    )
