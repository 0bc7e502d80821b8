"""Where a scope may stand: every position gives the overridden derivative, and nothing lingers.

The stated derivative is the cube of the input, for every operation here; the expected numbers
come from the chain rule in `tests.kit.jets`.
"""

import contextlib
import threading
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradkit as gk
from tests.kit import jets
from tests.kit.jax_state import patched_places

X = 0.75
natural = contextlib.nullcontext


def cube_rule(op, y_bar):
    return op.inputs[0] ** 3 * y_bar


def other_rule(op, y_bar):
    return 11.0 * y_bar


# -- what the overridden operation is ---------------------------------------------------------


@gk.op("PositionsSquare")
def square_op(x):
    return x * x


@gk.custom_gradient
def custom_square(x):
    return x * x, lambda y_bar: 2 * x * y_bar


@jax.custom_vjp
def vjp_square(x):
    return x * x


vjp_square.defvjp(lambda x: (x * x, x), lambda x, y_bar: (2 * x * y_bar,))


@jax.custom_jvp
def jvp_square(x):
    return x * x


jvp_square.defjvps(lambda x_dot, y, x: 2 * x * x_dot)


@jax.jit
def jitted_square(x):
    return x * x


# Key, function, and its natural derivatives.
SUBJECTS = {
    "primitive": ("sin", jnp.sin, jets.SIN),
    "custom_jvp function of JAX": ("Relu", jax.nn.relu, jets.RELU),
    "jitted function of JAX": ("silu", jax.nn.silu, jets.SILU),
    "custom_jvp": (jvp_square, jvp_square, jets.SQUARE),
    "custom_vjp": (vjp_square, vjp_square, jets.SQUARE),
    "jitted function": (jitted_square, jitted_square, jets.SQUARE),
    "op": (square_op, square_op, jets.SQUARE),
    "custom_gradient": (custom_square, custom_square, jets.SQUARE),
}


# -- what stands between the scope and the operation ------------------------------------------


def _over_mesh(f):
    mesh = jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    g = jax.shard_map(f, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    return lambda x: g(x * jnp.array([1.0, 2.0, 3.0, 4.0])).sum()


def _four(s, x):
    return s(x) + s(2.0 * x) + s(3.0 * x) + s(4.0 * x)


def _while(f):
    step = lambda state: (state[0] + 1, f(state[1]))
    return lambda x: lax.while_loop(lambda state: state[0] < 2, step, (0, x))[1]


def _static(f):
    """The function as a nested pytree-free closure, compiled with a static argument."""
    g = jax.jit(lambda x, n: f(x) * n, static_argnums=1)
    return lambda x: g(x, 2)


# A function of `f`, and what it computes, of a jet and a step.
TRANSFORMATIONS = {
    "plain": (lambda f: lambda x: f(f(x)), lambda s, x: s(s(x))),
    "jit": (lambda f: jax.jit(lambda x: f(x) + x), lambda s, x: s(x) + x),
    "nested jit": (lambda f: jax.jit(lambda x: f(jax.jit(f)(x))), lambda s, x: s(s(x))),
    "jit with static argument": (_static, lambda s, x: 2.0 * s(x)),
    "scan": (
        lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, length=3)[0],
        lambda s, x: s(s(s(x))),
    ),
    "scan outputs": (
        lambda f: lambda x: lax.scan(lambda c, k: (c, f(k * c)), x, jnp.arange(1.0, 3.0))[1].sum(),
        lambda s, x: s(x) + s(2.0 * x),
    ),
    "map": (
        lambda f: lambda x: lax.map(f, x * jnp.array([1.0, 2.0])).sum(),
        lambda s, x: s(x) + s(2.0 * x),
    ),
    "cond": (
        lambda f: lambda x: lax.cond(x > 0, lambda z: f(z) + z, lambda z: z, x),
        lambda s, x: s(x) + x,
    ),
    "switch": (
        lambda f: lambda x: lax.switch(1, [lambda z: z, lambda z: f(2.0 * z)], x),
        lambda s, x: s(2.0 * x),
    ),
    "while": (_while, lambda s, x: s(s(x))),
    "fori": (lambda f: lambda x: lax.fori_loop(0, 2, lambda _, c: f(c), x), lambda s, x: s(s(x))),
    "remat": (lambda f: jax.checkpoint(lambda x: f(f(x))), lambda s, x: s(s(x))),
    "remat that saves": (
        lambda f: jax.checkpoint(
            lambda x: f(f(x)), policy=jax.checkpoint_policies.everything_saveable
        ),
        lambda s, x: s(s(x)),
    ),
    "vmap": (
        lambda f: lambda x: jax.vmap(f)(x * jnp.array([1.0, 2.0])).sum(),
        lambda s, x: s(x) + s(2.0 * x),
    ),
    "vmap of jit": (
        lambda f: lambda x: jax.vmap(jax.jit(f))(x * jnp.array([1.0, 2.0])).sum(),
        lambda s, x: s(x) + s(2.0 * x),
    ),
    "shard_map": (_over_mesh, _four),
    "jit of shard_map": (lambda f: jax.jit(_over_mesh(f)), _four),
    "remat of scan in jit": (
        lambda f: jax.jit(
            jax.checkpoint(lambda x: lax.scan(lambda c, _: (f(c), None), x, length=2)[0])
        ),
        lambda s, x: s(s(x)),
    ),
}


def derivative(transformation):
    """Reverse mode, except through a while loop."""
    return jax.jacfwd if transformation == "while" else jax.grad


def both_orders(d, g):
    """The first two derivatives; nothing is compiled as a whole, so that JAX's caches are met."""
    first, second = jax.value_and_grad(d(g))(X) if d is jax.grad else jax.jvp(d(g), (X,), (1.0,))
    return float(first), float(second)


def check(got, jet):
    np.testing.assert_allclose(got, (jet.first, jet.second), rtol=2e-5, atol=1e-6)


SHORT = ("plain", "jit", "scan", "cond", "while", "remat", "vmap")
SHORT_AND_MESH = (*SHORT, "jit of shard_map")

# The longest list runs on a primitive; the other subjects on what their hooks could break.
CASES = (
    [("primitive", t) for t in TRANSFORMATIONS]
    + [(s, t) for s in SUBJECTS if s != "primitive" for t in ("plain", "jit", "scan", "remat")]
    + [("custom_jvp function of JAX", t) for t in ("cond", "while", "vmap", "jit of shard_map")]
)


@pytest.mark.parametrize(("subject", "transformation"), CASES)
def test_scope_around_grad_is_natural_before_and_after(subject, transformation):
    key, f, step = SUBJECTS[subject]
    build, expected = TRANSFORMATIONS[transformation]
    d, g = derivative(transformation), build(f)
    check(both_orders(d, g), expected(step, jets.at(X)))
    with gk.gradient_override_map({key: cube_rule}):
        want = expected(jets.stated(step), jets.at(X))
        assert np.isclose(d(g)(X), want.first, rtol=2e-5)
        check(both_orders(d, g), want)
    check(both_orders(d, g), expected(step, jets.at(X)))


@pytest.mark.parametrize("transformation", SHORT_AND_MESH)
def test_a_function_first_met_inside_the_scope_is_natural_afterwards(transformation):
    build, expected = TRANSFORMATIONS[transformation]
    d, g = derivative(transformation), build(jnp.sin)
    with gk.gradient_override_map({"sin": cube_rule}):
        check(both_orders(d, g), expected(jets.stated(jets.SIN), jets.at(X)))
    check(both_orders(d, g), expected(jets.SIN, jets.at(X)))


# -- where the scope stands -------------------------------------------------------------------


def scope():
    return gk.gradient_override_map({"sin": cube_rule})


def inside_the_transformation(build, d):
    def f(x):
        with scope():
            return jnp.sin(x)

    return both_orders(d, build(f))


def inside_grad(build, d):
    g = build(jnp.sin)

    def inside(x):
        with scope():
            return g(x)

    return both_orders(d, inside)


def between_two_grads(build, d):
    g = build(jnp.sin)

    def first(x):
        with scope():
            return d(g)(x)

    return float(first(X)), float(d(first)(X))


def around_jit_of_grad(build, d):
    g = build(jnp.sin)
    with scope():
        return float(jax.jit(d(g))(X)), float(jax.jit(d(jax.jit(d(g))))(X))


def inside_jit_around_grad(build, d):
    g = build(jnp.sin)

    @jax.jit
    def inside(x):
        with scope():
            return d(g)(x), d(d(g))(x)

    return tuple(float(y) for y in inside(X))


def around_vmap_of_grad(build, d):
    g = build(jnp.sin)
    with scope():
        xs = jnp.array([X, X])
        return float(jax.vmap(d(g))(xs)[0]), float(jax.vmap(d(d(g)))(xs)[1])


def around_the_lowering_only(build, d):
    g = build(jnp.sin)
    with scope():
        compiled = [jax.jit(h).lower(X).compile() for h in (d(g), d(d(g)))]
    return tuple(float(c(X)) for c in compiled)


def around_make_jaxpr_only(build, d):
    g = build(jnp.sin)
    with scope():
        program = jax.make_jaxpr(g)(X)
    return both_orders(d, lambda x: jax.core.eval_jaxpr(program.jaxpr, program.consts, x)[0])


def functional_form(build, d):
    return both_orders(d, gk.override(build(jnp.sin), {"sin": cube_rule}))


def functional_form_of_the_derivative(build, d):
    g = build(jnp.sin)
    return (
        float(gk.override(d(g), {"sin": cube_rule})(X)),
        float(gk.override(d(d(g)), {"sin": cube_rule})(X)),
    )


def decorator(build, d):
    @gk.gradient_override_map({"sin": cube_rule})
    def decorated(x):
        return g(x)

    g = build(jnp.sin)
    return both_orders(d, decorated)


def nested_inside_another_rule(build, d):
    g = build(jnp.sin)
    with gk.gradient_override_map({"sin": other_rule}):
        other = float(d(g)(X))
        with scope():
            got = both_orders(d, g)
        assert float(d(g)(X)) == other  # the outer rule is back
    return got


POSITIONS = [
    inside_the_transformation,
    inside_grad,
    between_two_grads,
    around_jit_of_grad,
    inside_jit_around_grad,
    around_vmap_of_grad,
    around_the_lowering_only,
    around_make_jaxpr_only,
    functional_form,
    functional_form_of_the_derivative,
    decorator,
    nested_inside_another_rule,
]
PLACED = [(t, p) for t in SHORT for p in POSITIONS]
PLACED += [("jit of shard_map", p) for p in (inside_the_transformation, inside_grad, decorator)]


@pytest.mark.parametrize(
    ("transformation", "position"), PLACED, ids=[f"{p.__name__}-{t}" for t, p in PLACED]
)
def test_every_position_gives_the_stated_derivatives(transformation, position):
    build, expected = TRANSFORMATIONS[transformation]
    d = derivative(transformation)
    check(position(build, d), expected(jets.stated(jets.SIN), jets.at(X)))
    check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


REVERSIBLE = [t for t in SHORT_AND_MESH if t != "while"]


@pytest.mark.parametrize("transformation", REVERSIBLE)
def test_a_vjp_taken_inside_keeps_the_override_when_pulled_outside(transformation):
    build, expected = TRANSFORMATIONS[transformation]
    g = build(jnp.sin)
    with scope():
        _, pull = jax.vjp(g, X)
        _, pull_twice = jax.vjp(jax.grad(g), X)
    check(
        (float(pull(1.0)[0]), float(pull_twice(1.0)[0])),
        expected(jets.stated(jets.SIN), jets.at(X)),
    )


@pytest.mark.parametrize("transformation", REVERSIBLE)
def test_a_vjp_taken_outside_stays_natural_when_pulled_inside(transformation):
    build, expected = TRANSFORMATIONS[transformation]
    g = build(jnp.sin)
    _, pull = jax.vjp(g, X)
    _, pull_twice = jax.vjp(jax.grad(g), X)
    with scope():
        jnp.sin(1.0)  # the key is of use
        got = float(pull(1.0)[0]), float(pull_twice(1.0)[0])
    check(got, expected(jets.SIN, jets.at(X)))


@pytest.mark.parametrize("transformation", SHORT)
def test_a_linearization_keeps_what_was_active_where_it_was_taken(transformation):
    build, expected = TRANSFORMATIONS[transformation]
    g = build(jnp.sin)
    _, natural_push = jax.linearize(g, X)
    with scope():
        _, push = jax.linearize(g, X)
        assert np.isclose(natural_push(1.0), expected(jets.SIN, jets.at(X)).first, rtol=2e-5)
    assert np.isclose(push(1.0), expected(jets.stated(jets.SIN), jets.at(X)).first, rtol=2e-5)


def test_pulling_under_jit_after_the_scope_keeps_the_override():
    with scope():
        _, pull = jax.vjp(lambda x: jnp.sin(x) * 2, X)
    assert np.isclose(jax.jit(lambda y_bar: pull(y_bar)[0])(1.0), 2 * X**3)


def test_only_the_calls_inside_the_scope_are_overridden():
    def f(x):
        y = jnp.sin(x)
        with scope():
            y = jnp.sin(y)
        return jnp.sin(y)

    want = jets.SIN(jets.stated(jets.SIN)(jets.SIN(jets.at(X))))
    check(both_orders(jax.grad, f), want)
    check(both_orders(jax.grad, jax.jit(f)), want)


def test_the_scope_may_stand_in_one_branch_of_cond():
    def overridden(x):
        with scope():
            return jnp.sin(x)

    f = lambda x: lax.cond(x > 0, overridden, jnp.sin, x)
    assert np.isclose(jax.grad(f)(X), X**3)
    assert np.isclose(jax.grad(f)(-X), np.cos(X))


# -- nesting, None, exceptions ----------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["", "jit", "remat"])
def test_none_restores_the_default_inside_an_outer_scope(wrap):
    f = wrap(lambda x: jnp.sin(x) + jnp.cos(x))
    with gk.gradient_override_map({"sin": cube_rule, "cos": other_rule}):
        with gk.gradient_override_map({"sin": None}):
            assert np.isclose(jax.grad(f)(X), np.cos(X) + 11)
        assert np.isclose(jax.grad(f)(X), X**3 + 11)


def test_none_alone_is_the_default():
    with gk.gradient_override_map({"sin": None}):
        check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


@pytest.mark.parametrize("subject", ["custom_jvp", "custom_vjp", "jitted function", "op"])
def test_none_restores_the_default_of_a_function_object(subject):
    key, f, step = SUBJECTS[subject]
    with gk.gradient_override_map({key: cube_rule}), gk.gradient_override_map({key: None}):
        check(both_orders(jax.grad, f), step(jets.at(X)))


def test_an_inner_scope_adds_to_the_outer_one():
    f = lambda x: jnp.sin(x) + jnp.cos(x) + jnp.tanh(x)
    with (
        gk.gradient_override_map({"sin": cube_rule, "cos": cube_rule}),
        gk.gradient_override_map({"cos": other_rule}),
    ):
        assert np.isclose(jax.grad(f)(X), X**3 + 11 + 1 - np.tanh(X) ** 2)


def test_an_inner_scope_wins_whichever_spelling_its_key_has():
    with (
        gk.gradient_override_map({"Sin": other_rule}),
        gk.gradient_override_map({lax.sin_p: cube_rule}),
    ):
        assert np.isclose(jax.grad(jnp.sin)(X), X**3)


def test_a_key_that_only_an_inner_scope_uses_is_of_use():
    rule = lambda op, y_bar: 5.0 * y_bar  # of this test alone: equal maps share what they matched
    with gk.gradient_override_map({"sin": rule}), gk.gradient_override_map({"cos": None}):
        jnp.cos(X)
        assert jax.grad(jnp.sin)(X) == 5


def test_a_key_that_an_inner_scope_shadows_is_of_use():
    outer, inner = (lambda op, y_bar: 5.0 * y_bar), (lambda op, y_bar: 7.0 * y_bar)
    with gk.gradient_override_map({"sin": outer}), gk.gradient_override_map({"sin": inner}):
        assert jax.grad(jnp.sin)(X) == 7


def test_an_empty_map_changes_nothing():
    with gk.gradient_override_map({}):
        check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


EVERYTHING = {
    "Square": cube_rule,
    "sin": cube_rule,
    jax.nn.relu: cube_rule,
    vjp_square: cube_rule,
    jitted_square: cube_rule,
    "PositionsSquare": cube_rule,
    "block/*:cos": cube_rule,
}


def use_everything(x):
    with jax.named_scope("block"):
        y = jnp.cos(x)
    return jitted_square(vjp_square(square_op(jnp.sin(jnp.square(jax.nn.relu(x)))))) + y


def test_nothing_stays_patched_after_the_scope():
    before = patched_places()
    with gk.gradient_override_map(EVERYTHING):
        assert patched_places() != before
        jax.grad(use_everything)(X)
    assert patched_places() == before


def interrupted(f):
    f(X)
    raise InterruptedError


def test_nothing_stays_patched_after_an_exception():
    before = patched_places()
    with pytest.raises(InterruptedError), gk.gradient_override_map(EVERYTHING):
        interrupted(use_everything)
    assert patched_places() == before
    check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_an_exception_in_a_rule_leaves_no_scope(wrap, order):
    def interrupted_rule(op, y_bar):
        raise InterruptedError

    before = patched_places()
    f = wrap(lambda x: jnp.sin(x) + jax.nn.relu(x))
    for _ in range(order):
        f = jax.grad(f)
    with (
        pytest.raises(InterruptedError) as raised,
        gk.gradient_override_map({"sin": interrupted_rule, "Relu": cube_rule}),
    ):
        f(X)
    assert any("gradient of 'sin'" in note for note in raised.value.__notes__)
    assert patched_places() == before
    check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


def test_an_exception_inside_a_nested_scope_restores_the_outer_one():
    with scope():
        with pytest.raises(InterruptedError), gk.gradient_override_map({"sin": other_rule}):
            interrupted(jnp.sin)
        check(both_orders(jax.grad, jnp.sin), jets.stated(jets.SIN)(jets.at(X)))


def test_an_exception_while_jit_traces_leaves_no_scope():
    @jax.jit
    def f(x):
        with scope():
            jnp.sin(x)
            raise InterruptedError

    before = patched_places()
    with pytest.raises(InterruptedError):
        f(X)
    assert patched_places() == before


# -- decorators and generators ----------------------------------------------------------------


def test_decorated_functions_may_be_called_often_and_call_themselves():
    @gk.gradient_override_map({"sin": cube_rule})
    def f(x, n):
        y = jnp.sin(x)
        return y if n == 1 else f(y, n - 1)

    s = jets.stated(jets.SIN)
    for _ in range(2):
        check(both_orders(jax.grad, lambda x: f(x, 3)), s(s(s(jets.at(X)))))
    check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


def test_a_decorated_function_works_after_an_exception_in_it():
    @gk.gradient_override_map({"sin": cube_rule})
    def f(x, fail):
        y = jnp.sin(x)
        if fail:
            raise InterruptedError
        return y

    with pytest.raises(InterruptedError):
        f(X, True)
    assert np.isclose(jax.grad(f)(X, False), X**3)


def test_decorated_methods_see_their_instance():
    class Model:
        factor = 2.0

        @gk.gradient_override_map({"sin": cube_rule})
        def __call__(self, x):
            return self.factor * jnp.sin(x)

    assert np.isclose(jax.grad(Model())(X), 2 * X**3)


def test_the_functional_form_keeps_name_and_arguments():
    def model(x, *, factor=2.0):
        """A model."""
        return factor * jnp.sin(x)

    overridden = gk.override(model, {"sin": cube_rule})
    assert (overridden.__name__, overridden.__doc__) == ("model", "A model.")
    assert np.isclose(jax.grad(overridden)(X, factor=3.0), 3 * X**3)
    check(both_orders(jax.grad, model), 2.0 * jets.SIN(jets.at(X)))


def overriding_generator(overrides, f):
    with gk.gradient_override_map(overrides):
        while True:
            yield float(jax.grad(f)(X))


def test_a_generator_enters_its_scope_again_each_time_it_is_made():
    for _ in range(2):
        generator = overriding_generator({"sin": cube_rule}, jnp.sin)
        assert np.allclose([next(generator), next(generator)], X**3)
        generator.close()
        check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))


def test_scopes_closed_out_of_order_leave_nothing_active():
    before = patched_places()
    first = overriding_generator({"sin": cube_rule}, jnp.sin)
    second = overriding_generator({"cos": other_rule}, jnp.cos)
    assert np.allclose([next(first), next(second)], [X**3, 11])
    first.close()
    assert np.isclose(jax.grad(jnp.cos)(X), 11)
    check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))
    second.close()
    assert patched_places() == before
    check(both_orders(jax.grad, jnp.sin), jets.SIN(jets.at(X)))
    assert np.isclose(jax.grad(jnp.cos)(X), -np.sin(X))


# -- threads ----------------------------------------------------------------------------------


def in_thread(f):
    """What `f()` gives in another thread."""
    result = []
    thread = threading.Thread(target=lambda: result.append(f()))
    thread.start()
    thread.join()
    return result[0]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_another_thread_is_natural(subject):
    key, f, step = SUBJECTS[subject]
    g = jax.jit(f)
    with gk.gradient_override_map({key: cube_rule}):
        check(in_thread(lambda: both_orders(jax.grad, g)), step(jets.at(X)))
        check(both_orders(jax.grad, g), jets.stated(step)(jets.at(X)))
        check(in_thread(lambda: both_orders(jax.grad, g)), step(jets.at(X)))


def test_two_threads_hold_different_maps_at_the_same_time():
    meet = threading.Barrier(2, timeout=60)
    got = {}

    def work(name, rule, first_out):
        with gk.gradient_override_map({"sin": rule}):
            meet.wait()
            got[name] = float(jax.grad(jax.jit(lambda x: jnp.sin(x)))(X))
            meet.wait()
            if not first_out:
                meet.wait()  # the other thread has left its scope
                got[name, "later"] = float(jax.grad(jnp.sin)(X))
        if first_out:
            got[name, "later"] = float(jax.grad(jnp.sin)(X))
            meet.wait()

    before = patched_places()
    threads = [
        threading.Thread(target=work, args=("cube", cube_rule, True)),
        threading.Thread(target=work, args=("other", other_rule, False)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.isclose(got["cube"], X**3)
    assert np.isclose(got["other"], 11)
    assert np.isclose(got["cube", "later"], np.cos(X))
    assert np.isclose(got["other", "later"], 11)
    assert patched_places() == before


def test_many_threads_entering_and_leaving_never_disturb_each_other():
    wrong = []

    def work(k):
        def rule(op, y_bar):
            return k * y_bar

        for _ in range(5):
            with gk.gradient_override_map({"sin": rule}):
                wrong.extend([] if float(jax.grad(jnp.sin)(X)) == k else [k])
            wrong.extend([] if np.isclose(jax.grad(jnp.sin)(X), np.cos(X)) else [-k])

    before = patched_places()
    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert patched_places() == before


# -- jit's cache ------------------------------------------------------------------------------


@pytest.fixture
def counted():
    """A jitted function that counts its traces."""
    traces = Counter()

    @jax.jit
    def f(x):
        traces["f"] += 1
        return jnp.sin(x) * x

    f.traces = lambda: traces["f"]
    return f


def test_equal_maps_share_a_compiled_function(counted):
    counted(X)
    assert counted.traces() == 1
    for _ in range(3):
        with gk.gradient_override_map({"sin": cube_rule}):
            counted(X)
        assert counted.traces() == 2
        counted(X)
        assert counted.traces() == 2


def test_another_rule_or_key_compiles_anew(counted):
    for n, overrides in enumerate(
        [{"sin": cube_rule}, {"sin": other_rule}, {"sin": None}, {"mul": None}], start=1
    ):
        with gk.gradient_override_map(overrides):
            counted(X)
        assert counted.traces() == n


def test_nested_scopes_share_a_compiled_function_when_they_come_again(counted):
    def nested():
        with (
            gk.gradient_override_map({"sin": cube_rule}),
            gk.gradient_override_map({"mul": None}),
        ):
            return counted(X)

    nested()
    nested()
    assert counted.traces() == 1


def test_the_functional_form_compiles_once(counted):
    g = gk.override(counted, {"sin": cube_rule})
    assert np.isclose(jax.grad(lambda x: g(x) / x)(X), X**3, rtol=1e-5)
    g(X)
    traces = counted.traces()
    g(X)
    assert counted.traces() == traces


def test_a_scope_inside_the_compiled_function_costs_no_retrace():
    traces = []

    @jax.jit
    def f(x):
        traces.append(x)
        with scope():
            return jnp.sin(x)

    for _ in range(3):
        f(X)
    assert len(traces) == 1


def test_a_compiled_function_follows_a_gradient_that_was_registered_anew():
    f = jax.jit(jax.grad(jnp.sin))
    with gk.registry_scope():
        for factor in (2.0, 3.0):
            gk.RegisterGradient("PositionsTimes", replace=True)(lambda op, y, k=factor: k * y)
            with gk.gradient_override_map({"sin": "PositionsTimes"}):
                assert f(X) == factor


def test_no_warning_when_a_cached_function_does_not_call_the_operation_again(counted):
    for _ in range(2):  # a warning would be an error
        with gk.gradient_override_map({"sin": cube_rule}):
            counted(X)


@pytest.mark.parametrize("make", [jnp.float32, np.float64, float], ids=["jax", "numpy", "python"])
def test_a_call_that_is_already_compiled_is_overridden_again(make):
    f = jax.jit(jax.value_and_grad(jnp.sin))
    for _ in range(3):
        assert np.isclose(f(make(X))[1], np.cos(X))
        with scope():
            assert np.isclose(f(make(X))[1], X**3)


def test_a_scope_inside_a_rule_leaves_the_scopes_around_the_rule_alone():
    def rule_with_a_scope(op, y_bar):
        with gk.gradient_override_map({"cos": other_rule}):
            return y_bar * jax.grad(jnp.cos)(op.inputs[0])

    with gk.gradient_override_map({"sin": other_rule}):
        with gk.gradient_override_map({"tan": rule_with_a_scope}):
            assert np.isclose(jax.grad(jnp.tan)(X), 11)
            assert np.isclose(jax.grad(jnp.sin)(X), 11)
        assert np.isclose(jax.grad(jnp.sin)(X), 11)
        assert np.isclose(jax.grad(jnp.tan)(X), 1 + np.tan(X) ** 2)
    assert np.isclose(jax.grad(jnp.sin)(X), np.cos(X))
