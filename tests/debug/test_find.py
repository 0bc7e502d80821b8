"""What `find_nonfinite` takes, and what it says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from gradkit._jax_compat import primitives
from gradkit.debug import find_nonfinite
from gradkit.debug._advice import _BACKWARD, _FORWARD

SOME = np.array([1.0, 0.0, 2.0], np.float32)


def log_sum(x):
    return jnp.sum(jnp.log(x))


LINE = log_sum.__code__.co_firstlineno + 1


def root_sum(x, y):
    return jnp.sum(jnp.sqrt(x)) + jnp.sum(jnp.sqrt(y))


def test_the_report_reads():
    text = str(find_nonfinite(log_sum, SOME))
    for piece in (
        f"Inf from log at tests/debug/test_find.py:{LINE}",
        "index:     (1,)",
        "input:     float32[3] = 0.0",
        "output:    float32[3] = -inf",
        "fix:       the log of zero or less",
    ):
        assert piece in text
    assert "scope" not in text


def test_the_report_on_a_gradient_reads():
    def f(x):
        with jax.named_scope("block"):
            return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))

    text = str(find_nonfinite(f, SOME))
    for piece in (
        "NaN from the gradient of sqrt at tests/debug/test_find.py:",
        "scope:     block",
        "primal:    float32[3] = 0.0",
        "cotangent: float32[3] = 0.0",
        "gradient:  float32[3] = nan",
        "jnp.where(ok, f(jnp.where(ok, x, 1.0)), 0.0)",
    ):
        assert piece in text


def test_the_double_where_of_the_advice_is_safe():
    def f(x):
        ok = x > 0
        return jnp.sum(jnp.where(ok, jnp.sqrt(jnp.where(ok, x, 1.0)), 0.0))

    assert find_nonfinite(f, SOME) is None
    np.testing.assert_allclose(jax.grad(f)(SOME), [0.5, 0.0, 0.25 * 2**0.5], rtol=1e-6)


def test_an_argument_that_is_not_finite_is_named():
    origin = find_nonfinite(log_sum, np.array([1.0, np.nan], np.float32))
    assert (origin.argument, origin.index, origin.kind) == ("args[0]", (1,), "nan")
    assert "NaN in args[0], which is an argument" in str(origin)
    assert "value:     float32[2] = nan" in str(origin)


@pytest.mark.parametrize(
    ("argnums", "found"), [(0, False), (1, True), ((0, 1), True), (-1, True), (None, True)], ids=str
)
def test_argnums_chooses_the_gradient(argnums, found):
    origin = find_nonfinite(root_sum, SOME + 1, SOME, argnums=argnums)
    assert (origin is not None) == found


def test_forward_looks_at_the_value_alone():
    assert find_nonfinite(root_sum, SOME, SOME, direction="forward") is None
    assert find_nonfinite(log_sum, SOME, direction="forward").primitive == "log"


def test_forward_of_what_has_no_gradient():
    def f(x):
        return jax.lax.while_loop(lambda x: x < 9, lambda x: x * x, x)

    with pytest.raises(ValueError, match="Reverse-mode") as caught:
        find_nonfinite(f, 2.0)
    assert "direction='forward'" in caught.value.__notes__[0]
    assert find_nonfinite(f, 2.0, direction="forward") is None


def test_auxiliary_outputs_are_not_looked_at():
    def f(x):
        return jnp.sum(x), {"log": jnp.log(x)}

    assert find_nonfinite(f, SOME, has_aux=True) is None
    assert find_nonfinite(f, SOME).primitive == "log"


def test_integers_keys_and_what_is_no_array_are_passed_on():
    def f(key, n, name, parameters):
        noise = jax.random.normal(key, (3,))
        assert name == "log"
        return {"out": jnp.log(noise * parameters["w"] * n), "n": n}

    args = jax.random.key(0), 0, "log", {"w": SOME, "no": None}
    origin = find_nonfinite(f, *args, argnums=None)
    assert (origin.primitive, origin.index) == ("log", (0,))
    assert find_nonfinite(lambda n: n // 2, 3) is None


def test_outputs_without_a_gradient_stay_out_of_the_backward_pass():
    def f(x):
        return jnp.argmax(jnp.sqrt(x)), jnp.sum(x)

    assert find_nonfinite(f, SOME) is None


def test_a_scan_over_keys_and_in_reverse():
    def f(x):
        def body(c, key):
            return c - 1, jnp.sqrt(c) + jax.random.uniform(key)

        keys = jax.random.split(jax.random.key(0), 5)
        return jnp.sum(jax.lax.scan(body, x, keys, reverse=True)[1])

    assert find_nonfinite(f, 2.0).iteration == (1,)
    assert find_nonfinite(f, 9.0) is None


def test_shard_map_is_named_as_a_whole():
    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    spec = PartitionSpec("i")

    @partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def logs(x):
        return jnp.log(x)

    assert find_nonfinite(lambda x: logs(x).sum(), SOME).primitive == "shard_map"
    assert find_nonfinite(lambda x: logs(x).sum(), SOME + 1) is None


def test_a_function_that_is_a_gradient_already():
    origin = find_nonfinite(jax.grad(lambda x: jnp.linalg.norm(x)), SOME * 0)
    assert (origin.primitive, origin.kind) == ("div", "inf")
    assert origin.source.startswith("tests/debug/test_find.py:")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_every_floating_point_type(dtype):
    def f(x):
        return jnp.sum(jnp.abs(1 / x))

    origin = find_nonfinite(f, jnp.array([1, 0], dtype))
    assert (origin.primitive, origin.index) == ("div", (1,))
    assert dtype in origin.inputs[1].type


def test_float64():
    with jax.enable_x64(True):
        assert find_nonfinite(lambda x: jnp.exp(x), np.float64(800)).outputs[0].type == "float64[]"
        assert find_nonfinite(lambda x: jnp.exp(x), np.float64(700)) is None


def test_what_is_infinite_only_in_the_compiled_program(monkeypatch):
    monkeypatch.setattr("gradkit.debug._find._Subject.badness", lambda self, backward: "nan")
    origin = find_nonfinite(lambda x: x * 2, 1.0)
    assert (origin.primitive, origin.kind) == ("jit", "nan")
    assert "jax.disable_jit()" in origin.advice


def test_an_unknown_direction():
    with pytest.raises(ValueError, match="direction that it does not know") as caught:
        find_nonfinite(log_sum, SOME, direction="sideways")
    assert "expected: 'both' or 'forward'" in str(caught.value)
    assert "got:      'sideways'" in str(caught.value)


def test_argnums_out_of_range():
    with pytest.raises(ValueError, match="out of range") as caught:
        find_nonfinite(log_sum, SOME, argnums=1)
    assert "expected: positions of the 1 arguments" in str(caught.value)
    assert "got:      1" in str(caught.value)


@pytest.mark.parametrize("primitive", sorted({*_FORWARD, *_BACKWARD}))
def test_the_advice_is_about_primitives_of_jax(primitive):
    assert primitive in primitives()
