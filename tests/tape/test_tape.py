"""What a tape is asked, and what it answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk

X = np.array([1.0, 2.0], np.float32)


def test_pytrees_of_sources_and_targets():
    params = {"w": jnp.array([[1.0, 2.0]]), "b": [jnp.float32(3.0), np.float32(4.0)]}
    with gk.GradientTape() as tape:
        params = tape.watch(params)
        y = {"p": params["w"].sum() * params["b"][0], "n": (params["b"][1] ** 2, jnp.int32(7))}
    got = tape.gradient(y, params)
    want = {"w": np.array([[3.0, 3.0]]), "b": [3.0, 8.0]}
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_source_may_be_computed_from_another_source():
    with gk.GradientTape() as tape:
        x = tape.watch(3.0)
        y = x * x
        z = y * x
    assert [float(g) for g in tape.gradient([z, y], [x, y, z])] == [27 + 6, 3 + 1, 1]


def test_output_gradients_weigh_the_targets():
    with gk.GradientTape(persistent=True) as tape:
        x = tape.watch(jnp.asarray(X))
        y = {"a": x * x, "b": x + 1}
        total = y["a"].sum()
    weigh = {"a": jnp.array([10.0, 100.0]), "b": None}
    np.testing.assert_array_equal(tape.gradient(y, x, weigh), [21, 401])
    np.testing.assert_array_equal(tape.gradient(y["a"], x, weigh["a"]), [20, 400])
    np.testing.assert_array_equal(tape.gradient(y["a"], x, np.array([1.0, 0.0], "f")), [2, 0])
    np.testing.assert_array_equal(tape.gradient(total, x, 5), [10, 20])


def test_unconnected_sources_are_none_or_zero():
    with gk.GradientTape(persistent=True) as tape:
        x, other = tape.watch((jnp.asarray(X), jnp.ones((3, 1), jnp.bfloat16)))
        y = x * 2
        parts = [y, jax.lax.stop_gradient(x), jnp.round(x), jnp.argmax(x), jnp.ones(2)]
    assert tape.gradient(y, other) is None
    assert tape.gradient(y, {"o": other, "x": x})["o"] is None
    zeros = tape.gradient(y, [other, jnp.ones(2)], unconnected_gradients="zero")
    assert [(z.shape, z.dtype.name) for z in zeros] == [((3, 1), "bfloat16"), ((2,), "float32")]
    assert not any(np.any(z) for z in zeros)
    assert [tape.gradient(part, x) is None for part in parts] == [False, True, True, True, True]
    assert tape.jacobian(y, other) is None
    assert tape.jacobian(y, other, unconnected_gradients="zero").shape == (2, 3, 1)
    assert tape.batch_jacobian(y[:1], other[:1]) is None
    zeros = tape.batch_jacobian(y[:1], other[:1], unconnected_gradients="zero")
    assert (zeros.shape, zeros.dtype) == ((1, 1), jnp.bfloat16)


def test_what_is_computed_outside_of_the_block_is_a_constant():
    with gk.GradientTape(persistent=True) as tape:
        x = tape.watch(jnp.asarray(X))
        y = x * x
        with tape.stop_recording():
            z = y * 3
        w = y * z
    late = y * 3
    assert not isinstance(z, jax.core.Tracer)
    assert not isinstance(late, jax.core.Tracer)
    assert tape.gradient(z, x) is None
    assert tape.gradient(late, x) is None
    np.testing.assert_array_equal(tape.gradient(w, x), 3 * X**2 * 2 * X)


def test_stopped_tape_leaves_others_recording():
    with gk.GradientTape() as outer:
        x = outer.watch(3.0)
        with gk.GradientTape() as inner:
            a = inner.watch(x)
            with inner.stop_recording():
                y = a * a
    assert inner.gradient(y, a) is None
    assert float(outer.gradient(y, x)) == 6


def test_operations_before_watch_do_not_count():
    with gk.GradientTape() as tape:
        x = 3.0
        y = x * x
        x = tape.watch(x)
        z = y * x
    assert float(tape.gradient(z, x)) == 9


def test_watching_again_keeps_the_connection():
    with gk.GradientTape() as tape:
        x = tape.watch(3.0)
        y = tape.watch(x * x)
        z = y * 2
    assert [float(g) for g in tape.gradient(z, [x, y])] == [12, 2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["outer first", "inner first"])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_order_in_which_nested_tapes_watch_does_not_matter(order, transform):
    @transform
    def derivatives(x):
        with gk.GradientTape() as outer, gk.GradientTape() as inner:
            for i in order:
                x = (outer, inner)[i].watch(x)
            y = x**3
        return inner.gradient(y, x), outer.gradient(y, x)

    assert list(map(float, derivatives(2.0))) == [12, 12]


def test_outer_tape_sees_the_inner_gradient_but_not_the_other_way_round():
    with gk.GradientTape(persistent=True) as outer:
        x = outer.watch(2.0)
        with gk.GradientTape() as inner:
            a = inner.watch(x)
            y = a**3
        slope = inner.gradient(y, a)
        product = slope * a
    assert float(outer.gradient(slope, x)) == 12
    assert float(outer.gradient(product, x)) == 6 * 2**2 + 3 * 2**2
    assert float(outer.gradient(y, x)) == 12


def test_watched_value_is_not_the_value_that_was_given():
    def both(x):
        with gk.GradientTape() as tape:
            a = tape.watch(x)
            y = a * x
        return tape.gradient(y, a), y

    for transform in (lambda f: f, jax.jit, jax.vmap):
        gradient, y = transform(both)(jnp.array([2.0, 3.0]))
        np.testing.assert_array_equal(gradient, [2, 3])
        np.testing.assert_array_equal(y, [4, 9])
    # Around the tape, both factors move.
    assert jax.grad(lambda x: both(x)[1])(2.0) == 4


def test_inside_grad_the_values_of_a_block_go_on_moving():
    def penalised(w):
        with gk.GradientTape() as tape:
            x = tape.watch(jnp.asarray(X))  # a constant of the outer derivative
            y = jnp.sum(jnp.sin(w * x))
        return y + jnp.sum(tape.gradient(y, x) ** 2) + x[0]

    def reference(w):
        def f(x):
            return jnp.sum(jnp.sin(w * x))

        return f(jnp.asarray(X)) + jnp.sum(jax.grad(f)(jnp.asarray(X)) ** 2)

    for transform in (lambda f: f, jax.jit):
        got = transform(jax.grad(penalised))(0.7)
        np.testing.assert_allclose(got, jax.grad(reference)(0.7), rtol=1e-6)


def test_rule_that_returns_its_argument_makes_another_value():
    @gk.custom_gradient
    def first(a, b):
        return a, lambda y_bar: (None, 7 * y_bar)

    def f(x, constant):
        with gk.GradientTape(persistent=True) as tape:
            x = tape.watch(x)
            y = first(constant, x)
        return tape.gradient(y, x), tape.gradient(constant, x, unconnected_gradients="zero")

    for transform in (lambda f: f, jax.jit):
        assert list(map(float, transform(f)(2.0, 3.0))) == [7, 0]


@jax.custom_jvp
def stopped(x):
    return x


@stopped.defjvp
def _stopped_jvp(primals, tangents):
    return primals[0], jnp.zeros_like(tangents[0])


@jax.custom_vjp
def passed_on(x):
    return x


passed_on.defvjp(lambda x: (x, None), lambda _, y_bar: (7 * y_bar,))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_rule_that_returns_its_argument_unmoved_makes_a_constant(transform):
    @transform
    def gradients(x):
        with gk.GradientTape() as tape:
            x = tape.watch(x)
            y = jax.lax.stop_gradient(x)
            z = stopped(x)
            with tape.stop_recording():
                w = passed_on(x)
            total = x * y * z * w
        return tape.gradient([total], [x, y, w], unconnected_gradients="zero")

    assert list(map(float, gradients(2.0))) == [8, 0, 0]


def test_reset_forgets_and_goes_on():
    with gk.GradientTape() as tape:
        x = tape.watch(3.0)
        y = x * x
        tape.reset()
        assert tape.watched_variables() == ()
        assert not isinstance(x * 1, jax.core.Tracer)
        a = tape.watch(5.0)
        z = a * x
    assert float(tape.gradient(z, a)) == 3
    tape.reset()
    assert tape.gradient(y, x) is None


def test_tape_may_be_entered_again():
    tape = gk.GradientTape(persistent=True)
    with tape:
        x = tape.watch(3.0)
        y = x * x
    z = y * 2
    with tape:
        w = y * x
    assert tape.gradient(z, x) is None
    assert float(tape.gradient(w, x)) == 27


def test_used_tape_begins_anew_when_entered_again():
    tape = gk.GradientTape()
    for factor in (2.0, 3.0):
        with tape:
            x = tape.watch(1.0)
            y = factor * x
        assert float(tape.gradient(y, x)) == factor


def test_watched_variables_in_the_order_of_watch():
    with gk.GradientTape() as tape:
        a, b = tape.watch((1.0, 2.0))
        c = tape.watch(3.0)
    assert [x is y for x, y in zip(tape.watched_variables(), (a, b, c), strict=True)] == [True] * 3
    assert gk.GradientTape().watched_variables() == ()


def test_gradient_in_the_block_stops_a_tape_that_is_not_persistent():
    with gk.GradientTape() as tape:
        x = tape.watch(3.0)
        g = tape.gradient(x * x, x)
        later = x * 2
    assert float(g) == 6
    assert not isinstance(later, jax.core.Tracer)


def test_jacobian_is_that_of_jacrev():
    def f(x):
        return {"outer": jnp.outer(jnp.sin(x), x), "sum": jnp.sum(x**2)}

    x = jnp.asarray(X)
    want = jax.jacrev(f)(x)
    with gk.GradientTape() as tape:
        a = tape.watch(x)
        y = f(a)
    got = tape.jacobian(y, [a])
    for key in want:
        np.testing.assert_allclose(got[key][0], want[key], rtol=1e-6)


def test_jacobian_of_a_holomorphic_function():
    z = jnp.array([1 + 2j, 0.5j])
    with gk.GradientTape() as tape:
        a = tape.watch(z)
        y = a**3
    np.testing.assert_allclose(tape.jacobian(y, a), np.diag(3 * np.asarray(z) ** 2), rtol=1e-5)


def test_batch_jacobian_is_one_jacobian_per_example():
    def f(x):
        return jnp.stack([jnp.sin(x).sum(), x[0, 1] ** 2, x.prod()])

    x = jnp.arange(1.0, 25.0).reshape(4, 2, 3) / 10
    with gk.GradientTape() as tape:
        a = tape.watch(x)
        y = jax.vmap(f)(a)
    got = tape.batch_jacobian(y, a)
    assert got.shape == (4, 3, 2, 3)
    np.testing.assert_allclose(got, jax.vmap(jax.jacrev(f))(x), rtol=1e-5)


def test_jacobian_inside_jit_and_vmap():
    def f(x):
        with gk.GradientTape() as tape:
            x = tape.watch(x)
            y = jnp.sin(x) * x[0]
        return tape.jacobian(y, x)

    x = jnp.stack([X, 2 * X])
    want = jax.vmap(jax.jacrev(lambda x: jnp.sin(x) * x[0]))(x)
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(x), want, rtol=1e-6)


# -- gradkit's own rules ----------------------------------------------------------------------


def times_ten(op, y_bar):
    return 10 * y_bar


def test_override_holds_on_the_tape():
    def recorded(x, scope_inside):
        with gk.GradientTape() as tape:
            x = tape.watch(x)
            if scope_inside:
                with gk.gradient_override_map({"Square": times_ten}):
                    y = jnp.square(x) * x
            else:
                y = jnp.square(x) * x
        return tape.gradient(y, x)

    for transform in (lambda f: f, lambda f: jax.jit(f, static_argnums=1)):
        assert float(transform(recorded)(3.0, True)) == 9 + 30
        with gk.gradient_override_map({"Square": times_ten}):
            assert float(transform(recorded)(3.0, False)) == 9 + 30
        assert float(transform(recorded)(3.0, False)) == 27


def test_override_touches_neither_the_derivative_nor_what_adds_it_up():
    def each_times_ten(op, y_bar):
        return tuple(10 * y_bar for _ in op.inputs)

    with gk.gradient_override_map(dict.fromkeys(["add", "mul", "cos"], each_times_ten)):
        with gk.GradientTape(persistent=True) as tape:
            x = tape.watch(2.0)
            y = jnp.sin(x)
            z = jax.lax.sub(y, jnp.exp(x))
            other = jax.lax.cos(x) * x + x
            slope = tape.gradient(y, x)
        assert float(tape.gradient(z, x)) == pytest.approx(np.cos(2) - np.exp(2), rel=1e-6)
        assert float(tape.gradient(slope, x)) == pytest.approx(-np.sin(2), rel=1e-6)
        # What the program calls is overridden: cos(x) in a product in a sum, and the other two.
        assert float(tape.gradient(other, x)) == 1000 + 100 + 10


def test_registered_operation_on_the_tape():
    with gk.registry_scope():

        @gk.op("TapedHalf")
        def half(x, *, n=1):
            return x / 2**n

        @gk.RegisterGradient("TapedHalf")
        def _(op, y_bar):
            return y_bar * op.get_attr("n") * 100

        with gk.GradientTape() as tape:
            x = tape.watch(3.0)
            y = half(x, n=2) * x
        assert float(tape.gradient(y, x)) == 0.75 + 3 * 200


def test_host_function_on_the_tape():
    with gk.registry_scope():
        cbrt = gk.host_op("TapedCbrt", np.cbrt, result=lambda x: x)

        @gk.RegisterGradient("TapedCbrt")
        def _(op, y_bar):
            return y_bar / (3 * op.outputs[0] ** 2)

        with gk.GradientTape() as tape:
            x = tape.watch(8.0)
            y = cbrt(x)
        assert float(tape.gradient(y, x)) == pytest.approx(1 / 12)


def test_rule_may_use_a_tape():
    @gk.custom_gradient
    def cubed(x):
        with gk.GradientTape() as tape:
            a = tape.watch(x)
            y = a**3
        slope = tape.gradient(y, a)
        return y, lambda y_bar: 2 * slope * y_bar

    assert cubed(2.0) == 8
    assert jax.grad(cubed)(2.0) == 24
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(cubed)))(jnp.asarray(X)), [6, 24])
    with gk.GradientTape() as tape:
        x = tape.watch(2.0)
        y = cubed(x)
    assert float(tape.gradient(y, x)) == 24


def test_value_of_a_custom_function_keeps_its_rule_at_second_order():
    @gk.custom_gradient
    def f(x):
        return x**3, lambda y_bar: 5 * x**2 * y_bar

    with gk.GradientTape() as outer:
        x = outer.watch(2.0)
        with gk.GradientTape() as inner:
            x = inner.watch(x)
            y = f(x)
        inner.gradient(y, x)
    assert float(outer.gradient(y, x)) == 20
