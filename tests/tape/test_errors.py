"""What a tape refuses, and what it says then."""

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk


def recorded(f, x, **options):
    with gk.GradientTape(**options) as tape:
        x = tape.watch(x)
        y = f(x)
    return tape, x, y


def square(x):
    return x * x


def raises(error, *pieces):
    return pytest.raises(error, match=r"(.|\n)*".join(pieces))


def test_errors_are_also_builtin_ones():
    assert issubclass(gk.TapeError, RuntimeError)
    assert issubclass(gk.TapeError, gk.GradkitError)
    assert issubclass(gk.TapeArgumentError, TypeError)
    assert issubclass(gk.TapeArgumentError, ValueError)
    assert issubclass(gk.TapeArgumentError, gk.GradkitError)


@pytest.mark.parametrize("again", ["gradient", "jacobian", "batch_jacobian"])
@pytest.mark.parametrize("first", ["gradient", "jacobian", "batch_jacobian"])
def test_second_derivative_of_a_tape_that_is_not_persistent(first, again):
    tape, x, y = recorded(square, jnp.ones(2))
    getattr(tape, first)(y, x)
    with raises(gk.TapeError, "used up", r"fix:.*one call.*persistent=True"):
        getattr(tape, again)(y, x)


def test_refused_arguments_do_not_use_the_tape_up():
    tape, x, y = recorded(square, jnp.ones(2))
    with pytest.raises(gk.TapeArgumentError):
        tape.gradient(None, x)
    with pytest.raises(gk.TapeArgumentError):
        tape.gradient(y, x, output_gradients=jnp.ones(3))
    with pytest.raises(gk.TapeArgumentError):
        tape.gradient(y, x, unconnected_gradients="nonsense")
    assert tape.gradient(y, x).shape == (2,)


def test_tape_that_recorded_nothing():
    with raises(gk.TapeError, "recorded nothing yet", r"fix:.*with gk.GradientTape\(\) as tape"):
        gk.GradientTape().gradient(1.0, 2.0)


def test_tape_is_entered_within_itself():
    tape = gk.GradientTape()
    with tape, raises(gk.TapeError, "records already", "fix:.*another tape"), tape:
        pass
    with tape:
        x = tape.watch(3.0)
        y = x * x
    assert float(tape.gradient(y, x)) == 6


def test_watch_before_and_after_the_block():
    tape = gk.GradientTape()
    message = ("watch was called while the tape does not record", "fix:.*`with` block")
    with raises(gk.TapeError, *message):
        tape.watch(1.0)
    with tape, tape.stop_recording(), raises(gk.TapeError, *message):
        tape.watch(1.0)
    with raises(gk.TapeError, *message):
        tape.watch(1.0)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, lambda f: lambda x: jax.vmap(f)(x[None])])
def test_watch_inside_a_function_that_jax_traces(transform):
    with gk.GradientTape() as tape, raises(gk.TapeError, "inside a function that JAX traces"):
        transform(lambda x: jnp.sum(tape.watch(x)))(jnp.float32(1))


def test_stop_recording_outside_of_the_block():
    tape = gk.GradientTape()
    with (
        raises(gk.TapeError, "stop_recording was called while", "fix:.*`with` block"),
        tape.stop_recording(),
    ):
        pass


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (jnp.arange(3), r"x cannot be watched(.|\n)*int32\[3\]"),
        ({"n": [True]}, r"x\['n'\]\[0\] cannot be watched(.|\n)*bool\[\]"),
        (3, r"x cannot be watched(.|\n)*int32\[\]"),
        (jax.random.key(0), r"x cannot be watched"),
    ],
    ids=["integers", "boolean", "int", "key"],
)
def test_watching_what_has_no_gradient(x, got):
    with gk.GradientTape() as tape, raises(gk.TapeArgumentError, got):
        tape.watch(x)
    with gk.GradientTape() as tape, raises(gk.TapeArgumentError, r"fix:.*astype\(float\)"):
        tape.watch(x)


def test_watching_what_is_no_array():
    with gk.GradientTape() as tape:
        with raises(gk.TapeArgumentError, r"x\['f'\] is not an array", "got:.*str"):
            tape.watch({"f": "text"})
        with raises(gk.TapeArgumentError, "x holds no array", "got:.*NoneType"):
            tape.watch(None)


def test_target_or_source_is_no_array():
    tape, x, y = recorded(square, 3.0)
    with raises(gk.TapeArgumentError, "target holds no array", "got:.*NoneType"):
        tape.gradient(None, x)
    with raises(gk.TapeArgumentError, r"target\[1\] is not an array", "got:.*str"):
        tape.gradient([y, "y"], x)
    with raises(gk.TapeArgumentError, "sources is not an array", "got:.*function"):
        tape.gradient(y, square)
    with raises(gk.TapeArgumentError, "sources holds no array", "got:.*list"):
        tape.jacobian(y, [])


@pytest.mark.parametrize("x", [jnp.ones(2), 3.0], ids=["array", "float"])
def test_source_is_what_was_given_to_watch(x):
    with gk.GradientTape() as tape:
        watched = tape.watch({"x": x})["x"]
        y = watched * watched
    with raises(
        gk.TapeError, r"sources\[0\] is what was given to watch", r"fix:.*x = tape.watch\(x\)"
    ):
        tape.gradient(y, [x])
    assert tape.gradient(y, watched) is not None


def test_unconnected_gradients_is_another_word():
    tape, x, y = recorded(square, 3.0)
    for call in (tape.gradient, tape.jacobian, tape.batch_jacobian):
        with raises(gk.TapeArgumentError, "expected: 'none' or 'zero'", "got:.*'nonsense'"):
            call(y, x, unconnected_gradients="nonsense")


@pytest.mark.parametrize(
    ("weights", "pieces"),
    [
        (jnp.ones(3), [r"fit target\['a'\]", r"expected: float32\[2\]", r"got: .*float32\[3\]"]),
        (jnp.float32(1), [r"expected: float32\[2\]", r"got: .*float32\[\]", "fix:.*None for"]),
        (jnp.ones(2, jnp.bfloat16), [r"got: .*bfloat16\[2\]"]),
    ],
    ids=["shape", "rank", "dtype"],
)
def test_output_gradient_does_not_fit(weights, pieces):
    tape, x, y = recorded(lambda x: {"a": x * x}, jnp.ones(2))
    with raises(gk.TapeArgumentError, *pieces):
        tape.gradient(y, x, output_gradients={"a": weights})


@pytest.mark.parametrize("weights", [[jnp.ones(2)], (jnp.ones(2), None), [None] * 3, jnp.ones(2)])
def test_output_gradients_have_another_structure(weights):
    tape, x, y = recorded(lambda x: [x * x, x], jnp.ones(2))
    with raises(
        gk.TapeArgumentError, "structure of target", "expected:", "got:", "fix:.*None stands for"
    ):
        tape.gradient(y, x, output_gradients=weights)


def test_jacobian_of_integers():
    tape, x, y = recorded(jnp.argmax, jnp.ones(2))
    with raises(gk.TapeArgumentError, "target has no Jacobian", r"got:.*int32\[\]"):
        tape.jacobian(y, x)


def test_jacobian_of_a_complex_target_with_a_real_source():
    tape, x, y = recorded(lambda x: x * 1j, jnp.ones(2))
    with raises(gk.TapeArgumentError, r"target\['y'\] is complex and sources\['x'\] real", "fix:"):
        tape.jacobian({"y": y}, {"x": x})


def test_batch_jacobian_without_a_common_batch_axis():
    tape, x, y = recorded(lambda x: jnp.ones(3) * x[0], jnp.ones(2))
    with raises(
        gk.TapeArgumentError, "no batch axis in common", r"float32\[3\] and source float32\[2\]"
    ):
        tape.batch_jacobian(y, x)
    tape, x, y = recorded(square, 3.0)
    with raises(gk.TapeArgumentError, "no batch axis in common"):
        tape.batch_jacobian(y, x)
    with raises(gk.TapeArgumentError, "target of batch_jacobian is a pytree", "expected: one"):
        tape.batch_jacobian([y], x)


def test_error_of_a_rule_reaches_the_user():
    @gk.custom_gradient
    def wrong(x):
        return x * x, lambda y_bar: (y_bar, y_bar)

    tape, x, y = recorded(lambda x: wrong(x), 3.0)
    with raises(gk.CotangentError, "'wrong' returned the wrong number"):
        tape.gradient(y, x)


def test_use_on_another_thread_is_refused_by_jax():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool, gk.GradientTape() as tape:
        x = tape.watch(3.0)
        with pytest.raises(jax.errors.UnexpectedTracerError):
            pool.submit(lambda: x * 2).result()
