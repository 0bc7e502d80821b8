"""A scan of few states: the values and derivatives of `lax.scan`, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradkit import ops

rng = np.random.default_rng(0)
W = 0.5 * rng.standard_normal((3, 3)).astype(np.float32)
C = {"h": np.float32([0.1, -0.2, 0.3]), "n": np.int32(0)}


def cell(carry, x):
    h = jnp.tanh(W @ carry["h"] + x["a"])
    return {"h": h, "n": carry["n"] + 1}, (h * x["b"], carry["n"])


def inputs(n):
    return {"a": rng.standard_normal((n, 3)).astype(np.float32), "b": np.linspace(0, 1, n)}


def total(scan, **options):
    def loss(h, xs):
        carry, (ys, numbers) = scan(cell, {**C, "h": h}, xs, **options)
        return jnp.sum(carry["h"] ** 2) + jnp.sum(ys**2), (ys, numbers, carry)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)


@pytest.mark.parametrize(
    ("n", "branching", "reverse"),
    [(1, 2, False), (2, 2, True), (7, 8, False), (8, 8, True), (13, 3, True), (29, 2, False)],
)
def test_values_and_gradients_are_those_of_scan(n, branching, reverse):
    xs = jax.tree.map(np.float32, inputs(n))
    plain = total(lax.scan, reverse=reverse)
    ours = total(ops.checkpointed_scan, reverse=reverse, branching=branching)
    found, wanted = jax.jit(lambda h, xs: (ours(h, xs), plain(h, xs)))(C["h"], xs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, wanted)


def oscillate(c, _):
    return c + 0.1 * jnp.sin(c[::-1]), None


def end(c, scan=ops.checkpointed_scan, **options):
    return jnp.sum(scan(oscillate, c, length=11, **options)[0] ** 2)


def test_holds_under_every_transformation():
    cs = rng.standard_normal((2, 3)).astype(np.float32)
    ours = lambda c: end(c, branching=3)
    plain = lambda c: end(c, lax.scan)

    def ways(f):
        mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.shard_map(jax.vmap(f), mesh=mesh, in_specs=jax.P("i"), out_specs=jax.P("i"))
        return {
            "vmap": jax.vmap(jax.grad(f))(cs),
            "forward": jax.jacfwd(f)(cs[0]),
            "second": jax.hessian(f)(cs[0]),
            "reverse over reverse": jax.jacrev(jax.jacrev(f))(cs[0]),
            "remat": jax.grad(jax.checkpoint(f))(cs[0]),
            "scan": lax.scan(lambda n, c: (n, jax.grad(f)(c)), 0, cs)[1],
            "cond": lax.cond(cs[0, 0] > 0, jax.grad(f), lambda c: -jax.grad(f)(c), cs[0]),
            "shard_map": jax.grad(lambda cs: spread(cs).sum())(cs),
        }

    found, wanted = jax.jit(lambda: (ways(ours), ways(plain)))()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_types_are_kept_and_the_gradient_is_that_of_differences(dtype):
    with jax.enable_x64(dtype == "float64"):
        c = jnp.asarray([0.3, -0.4, 0.5], dtype)
        gradient = jax.jit(jax.grad(end))(c)
        assert gradient.dtype == dtype
        if dtype == "float64":
            up, down = (end(c + s * jnp.array([0.0, 1e-6, 0.0])) for s in (1, -1))
            np.testing.assert_allclose(gradient[1], (up - down) / 2e-6, rtol=1e-8)


def test_memory_grows_with_the_logarithm():
    def temporaries(n, scan, **options):
        h = jax.ShapeDtypeStruct((64,), jnp.float32)
        step = lambda h, _: (jnp.tanh(jnp.roll(h, 1) * 1.1), None)
        loss = lambda h: scan(step, h, length=n, **options)[0].sum()
        program = jax.jit(jax.grad(loss)).lower(h).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries(4096, lax.scan) > 20 * temporaries(4096, ops.checkpointed_scan)
    binary = [temporaries(n, ops.checkpointed_scan, branching=2) for n in (64, 4096)]
    assert binary[1] < 3 * binary[0]


def test_errors_say_what_is_unclear():
    with pytest.raises(ValueError, match=r"at least two parts[\s\S]*branching=1"):
        ops.checkpointed_scan(oscillate, jnp.ones(3), length=4, branching=1)
    for xs, length in ((None, None), (jnp.ones(3), 4), (1.0, None)):
        with pytest.raises(ValueError, match=r"how many steps there are[\s\S]*or length"):
            ops.checkpointed_scan(oscillate, jnp.ones(3), xs, length)


def test_no_steps():
    carry, ys = ops.checkpointed_scan(cell, C, jax.tree.map(np.float32, inputs(0)))
    np.testing.assert_array_equal(carry["h"], C["h"])
    assert ys[0].shape == (0, 3)
