"""What a host function returns and raises, and how that reaches the user."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk

X = np.array([0.5, -1.25, 2.0], np.float32)
PLACES = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None]),
    "jit(vmap)": lambda f: lambda x: jax.jit(jax.vmap(f))(x[None]),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=2),
}


@pytest.fixture(autouse=True)
def scope():
    with gk.registry_scope():
        yield


def float32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def text_of(run, error_type):
    """The text of the error; a compiled program keeps no more of it than that."""
    with pytest.raises((error_type, jax.errors.JaxRuntimeError)) as error:
        jax.block_until_ready(run())
    if not isinstance(error.value, error_type):
        assert error_type.__name__ in str(error.value)
    return str(error.value)


# -- what is returned -------------------------------------------------------------------------

WRONG = {
    "shape": (lambda x: x[:2], float32(3), "float32[3]", "float32[2]", "correct the declaration"),
    "integers": (
        lambda x: np.arange(3),
        float32(3),
        "float32[3]",
        "int64[3]",
        "y.astype(np.float32)",
    ),
    "complex": (lambda x: x * 1j, float32(3), "float32[3]", "complex64[3]", "y.astype(np.float32)"),
    "booleans": (lambda x: x > 0, float32(3), "float32[3]", "bool[3]", "y.astype(np.float32)"),
    "reals": (
        lambda x: x,
        jax.ShapeDtypeStruct((3,), jnp.int32),
        "int32[3]",
        "float32[3]",
        "y.astype(np.int32)",
    ),
    "large integers": (
        lambda x: np.full(3, 2**40),
        jax.ShapeDtypeStruct((3,), jnp.int32),
        "int32[3]",
        "int64[3]",
        "does not fit int32",
    ),
    "text": (lambda x: "abc", float32(3), "float32[3]", "str", "return a NumPy array"),
    "tuple": (lambda x: (x, x), float32(3), "expected: *", "got:      (*, *)", "result="),
    "list of numbers": (lambda x: [1.0, 2.0, 3.0], float32(3), "*", "[*, *, *]", "np.asarray"),
    "nothing": (lambda x: None, float32(3), "expected: *", "got:      None", "result="),
    "key": (
        lambda x: {"b": x},
        {"a": float32(3)},
        "{'a': *}",
        "{'b': *}",
        "correct result=",
    ),
    "leaf": (lambda x: {"a": x[0]}, {"a": float32(3)}, "float32[3]", "float32[]", "at y['a']"),
}


@pytest.mark.parametrize("place", ["eager", "jit"])
@pytest.mark.parametrize("name", WRONG)
def test_a_result_that_is_not_as_declared(name, place):
    fn, result, *pieces = WRONG[name]
    op = gk.host_op("TestWrong", fn, result=result)
    text = text_of(lambda: PLACES[place](op)(X), gk.HostResultError)
    for piece in ("the host function of 'TestWrong' returned", "expected:", "got:", *pieces):
        assert piece in text


@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_result_is_found_everywhere(place):
    op = gk.host_op("TestWrong", lambda x: np.append(x, x[:1]), result=lambda x: x)
    text = text_of(lambda: PLACES[place](op)(X), gk.HostResultError)
    assert "'TestWrong'" in text
    assert "float32[4]" in text


def test_host_result_error_is_a_type_error():
    assert issubclass(gk.HostResultError, gk.GradkitError)
    assert issubclass(gk.HostResultError, TypeError)


@pytest.mark.parametrize("place", PLACES)
def test_float64_and_int64_are_cast_within_their_kind(place):
    f = gk.host_op("TestCast", lambda x: x.astype(np.float64) * 2, result=lambda x: x)
    y = jax.tree.leaves(PLACES[place](f)(X))[0]
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(np.ravel(y), X * (4 if place == "scan" else 2))
    counts = gk.host_op("TestCast", lambda x: np.arange(3), result=jax.ShapeDtypeStruct((3,), "i4"))
    if place != "scan":
        assert PLACES[place](counts)(X).dtype == jnp.int32


def test_a_batch_of_the_wrong_shape_names_vmap_method():
    op = gk.host_op("TestBatch", np.sum, result=lambda x: float32(), vmap_method="expand_dims")
    assert float(op(X)) == X.sum()
    with pytest.raises(gk.HostResultError) as error:
        jax.vmap(op)(jnp.stack([X, X]))
    assert "expected: float32[2]" in str(error.value)
    assert "handle the leading axes (2,) that vmap_method= adds" in str(error.value)
    assert 'vmap_method="sequential"' in str(error.value)


BAD_COTANGENTS = {
    "number": (lambda op, b: (b, b, b), "wrong number of cotangents", "2, one per input: 'x', 'p'"),
    "bare": (lambda op, b: b, "wrong number of cotangents", "None stands for zero"),
    "shape": (lambda op, b: (b[:1], None), "argument 0, 'x'", "float32[1]"),
    "kind": (lambda op, b: (np.arange(3), None), "argument 0, 'x'", "int64[3]"),
    "structure": (lambda op, b: (b, {"w": b}), "argument 1, 'p'", "built like"),
    "leaf": (lambda op, b: (b, {"v": b[0]}), "argument 1, 'p', at p['v']", "float32[]"),
}


@pytest.mark.parametrize("place", ["eager", "jit"])
@pytest.mark.parametrize("name", BAD_COTANGENTS)
def test_a_cotangent_that_does_not_fit(name, place):
    vjp, *pieces = BAD_COTANGENTS[name]
    op = gk.host_op("TestBars", lambda x, p: x + p["v"], result=lambda x, p: x, vjp=vjp)
    loss = lambda x: op(x, {"v": x}).sum()
    text = text_of(lambda: PLACES[place](jax.grad(loss))(X), gk.CotangentError)
    assert "vjp of 'TestBars' returned" in text
    for piece in pieces:
        assert piece in text


# -- what is raised ---------------------------------------------------------------------------


class SolverError(ArithmeticError):
    pass


def diverge(x):
    raise SolverError("step 3 is too large")


def raised_by(run, error_type=Exception):
    with pytest.raises(error_type) as error:
        jax.block_until_ready(run())
    return error.value


def frames(error):
    names, traceback = [], error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


@pytest.mark.parametrize("place", ["eager", "vmap"])
def test_an_exception_arrives_with_its_type_traceback_and_the_name(place):
    op = gk.host_op("TestRaise", diverge, result=lambda x: x)
    error = raised_by(lambda: PLACES[place](op)(X), SolverError)
    assert str(error) == "step 3 is too large"
    assert frames(error)[-1] == "diverge"
    assert "while running the host function of 'TestRaise'" in error.__notes__
    assert ("at index 0 of an axis that vmap maps over" in error.__notes__) == (place == "vmap")


def test_an_exception_of_an_eager_gradient_arrives_with_its_type_and_the_name():
    op = gk.host_op("TestRaise", lambda x: x, result=lambda x: x, vjp=lambda op, b: diverge(b))
    error = raised_by(lambda: jax.grad(op)(2.0), SolverError)
    assert frames(error)[-1] == "diverge"
    assert "while running vjp of 'TestRaise'" in error.__notes__


@pytest.mark.parametrize("place", ["jit", "jit(vmap)", "scan"])
def test_a_compiled_program_keeps_type_text_name_and_frames_of_an_exception(place):
    op = gk.host_op("TestRaise", diverge, result=lambda x: x)
    text = str(raised_by(lambda: PLACES[place](op)(X), jax.errors.JaxRuntimeError))
    assert "SolverError: step 3 is too large" in text
    assert "while running the host function of 'TestRaise'" in text
    assert "in diverge" in text


def test_without_jit_the_exception_itself_arrives():
    op = gk.host_op("TestRaise", diverge, result=lambda x: x)
    with jax.disable_jit():
        error = raised_by(lambda: PLACES["scan"](jax.jit(op))(X), SolverError)
    assert frames(error)[-1] == "diverge"


# -- what host_op refuses ---------------------------------------------------------------------


def like(x):
    return x


@pytest.mark.parametrize(
    ("make", "pieces"),
    [
        (lambda: gk.host_op("", like, result=like), ["a non-empty string"]),
        (lambda: gk.host_op("T", 3, result=like), ["host function of 'T'", "got:      int"]),
        (
            lambda: gk.host_op("T", like, result=like, vmap_method="parallel"),
            ["vmap_method= of 'T'", "'sequential', 'expand_dims', 'broadcast_all'", "'parallel'"],
        ),
        (lambda: gk.host_op("T", like, result=like, vjp=3), ["vjp= of 'T'", "vjp(op, *y_bars)"]),
        (
            lambda: gk.host_op("T", like, result=like, vjp=gk.host_op("U", like, result=like)),
            ["vjp= of 'T'", "<host_op U>", '@gradkit.RegisterGradient("T")'],
        ),
        (
            lambda: gk.host_op("T", like, result=lambda x: {"a": "float32"})(X),
            ["result= of 'T'", "jax.ShapeDtypeStruct(shape, dtype)", "got:      str at y['a']"],
        ),
        (
            lambda: gk.host_op("T", like, result=float32())(jax.random.key(0)),
            ["argument 0, 'x', of 'T' is a PRNG key", "jax.random.key_data(key)"],
        ),
    ],
    ids=["name", "function", "vmap_method", "vjp", "vjp is an op", "result", "key"],
)
def test_errors_at_the_door(make, pieces):
    with pytest.raises(gk.RuleError) as error:
        make()
    for piece in pieces:
        assert piece in str(error.value)


def test_key_data_works_where_a_key_does_not():
    draw = gk.host_op(
        "TestDraw", lambda seed: np.random.default_rng(seed).normal(), result=float32()
    )
    key = jax.random.key_data(jax.random.key(0))
    assert float(draw(key)) == float(jax.jit(draw)(key))
