"""The cotangents at taps are the derivatives by a perturbation there.

Each program is written once, with a hole `at(y, *steps)`. Filled with a tap it is what a user
writes; filled with the addition of an explicit argument, of which each step of a loop takes its own
slice, it is the oracle.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

import gradkit as gk
from gradkit.rules import cotangent_norm, tap

X = jnp.array([0.3, -0.7, 1.2])


def straight(x, at):
    return jnp.sum(jnp.sin(at(x * x)) * x)


def jitted(x, at):
    return jax.jit(lambda x: jax.jit(lambda x: jnp.sum(jnp.sin(at(x * x))))(x) * 2)(x)


def checkpointed(x, at):
    return jnp.sum(jax.checkpoint(lambda x: jnp.sin(jnp.sin(at(x * x)) * x))(x))


def checkpointed_with_policy(x, at):
    policy = jax.checkpoint_policies.dots_saveable
    return jnp.sum(jax.checkpoint(lambda x: jnp.sin(at(jnp.outer(x, x) @ x)), policy=policy)(x))


def scanned(x, at):
    def step(c, i):
        c = jnp.sin(at(c * x, i))
        return c, c * i

    c, ys = lax.scan(step, x, jnp.arange(4))
    return jnp.sum(c) + jnp.sum(ys**2)


def scanned_in_reverse(x, at):
    step = lambda c, i: (jnp.sin(at(c * x, i)) + i, None)
    return jnp.sum(lax.scan(step, x, jnp.arange(4), reverse=True)[0])


def unrolled_scan(x, at):
    step = lambda c, i: (jnp.sin(at(c * x, i)), None)
    return jnp.sum(lax.scan(step, x, jnp.arange(4), unroll=2)[0])


def scanned_twice(x, at):
    def outer(c, i):
        inner = lambda c, j: (jnp.sin(at(c * x, i, j)) + j, None)
        return lax.scan(inner, c, jnp.arange(3))[0], None

    return jnp.sum(lax.scan(outer, x, jnp.arange(2))[0])


def fori(x, at):
    return jnp.sum(lax.fori_loop(0, 4, lambda i, c: jnp.sin(at(c * x, i)), x))


def branch_taken(x, at):
    return jnp.sum(lax.cond(x[0] > 0, lambda x: jnp.sin(at(x * x)), lambda x: x, x))


def branch_not_taken(x, at):
    return jnp.sum(lax.cond(x[0] < 0, lambda x: jnp.sin(at(x * x)), lambda x: x, x))


def switched(x, at):
    branches = [lambda x: x, lambda x: jnp.cos(at(x * x)), lambda x: 2 * x]
    return jnp.sum(lax.switch(jnp.int32(x[2]), branches, x))


def scanned_remat_of_cond(x, at):
    @jax.checkpoint
    def body(c, i):
        return lax.cond(i % 2 == 0, lambda c: jnp.sin(at(c * x, i)), lambda c: c * x, c)

    return jnp.sum(lax.scan(lambda c, i: (body(c, i), None), x, jnp.arange(4))[0])


def mapped_cond(x, at):
    ys = jax.vmap(lambda a: lax.cond(a > 0, jnp.sin, jnp.cos, a * a))(x)
    return jnp.sum(at(ys) ** 2)


def inner_derivative(x, at):
    return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(at(x * x))))(x) ** 2)


def inner_derivative_of_scan(x, at):
    return jnp.sum(jax.grad(lambda x: scanned(x, at))(x) ** 2)


def inner_forward_derivative(x, at):
    return jnp.sum(jax.jvp(lambda x: jnp.sin(at(x * x)), (x,), (x,))[1])


def off_the_path(x, at):
    at(x * x)
    return jnp.sum(lax.stop_gradient(jnp.sin(x))) + jnp.sum(x)


def around_own_rules(x, at):
    cube = gk.custom_gradient(lambda x: (x**3, lambda y_bar: 5 * x**2 * y_bar))
    return jnp.sum(jax.nn.relu(cube(at(cube(x)))))


def loop_beside(x, at):
    n = lax.while_loop(lambda n: n < 3, lambda n: n + 1, 0)
    return jnp.sum(jnp.sin(at(x * x)) * n)


def matrix(x, at):
    return jnp.linalg.slogdet(at(jnp.outer(x, x) + jnp.eye(3)))[1]


PROGRAMS = {
    f.__name__: (f, shape)
    for f, shape in [
        (straight, (3,)),
        (jitted, (3,)),
        (checkpointed, (3,)),
        (checkpointed_with_policy, (3,)),
        (scanned, (4, 3)),
        (scanned_in_reverse, (4, 3)),
        (unrolled_scan, (4, 3)),
        (scanned_twice, (2, 3, 3)),
        (fori, (4, 3)),
        (branch_taken, (3,)),
        (branch_not_taken, (3,)),
        (switched, (3,)),
        (scanned_remat_of_cond, (4, 3)),
        (mapped_cond, (3,)),
        (inner_derivative, (3,)),
        (inner_derivative_of_scan, (4, 3)),
        (inner_forward_derivative, (3,)),
        (off_the_path, (3,)),
        (around_own_rules, (3,)),
        (loop_beside, (3,)),
        (matrix, (3, 3)),
    ]
}
FEW = ("straight", "checkpointed", "scanned", "branch_not_taken", "inner_derivative")
MOST = [
    name if name in FEW else pytest.param(name, marks=pytest.mark.slow, id=name)
    for name in PROGRAMS
]
NOT_IN_A_LOOP = [name for name, (_, shape) in PROGRAMS.items() if len(shape) == 1]


def tapped(name):
    program, _ = PROGRAMS[name]
    return lambda x: program(x, lambda y, *steps: tap(y, "h"))


def oracle(name):
    """The program's value by its argument and by the perturbation."""
    program, shape = PROGRAMS[name]
    return lambda x, z: program(x, lambda y, *steps: y + z[steps]), shape


def expected(name, x):
    fn, shape = oracle(name)
    return jax.value_and_grad(fn, argnums=(0, 1))(x, jnp.zeros(shape, x.dtype))


def collected(name, x):
    value, grads, cotangents = gk.collect_cotangents(tapped(name), x)
    return value, (grads, cotangents["h"])


def assert_close(got, want, tolerance=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert jnp.shape(a) == jnp.shape(b)
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", PROGRAMS)
def test_cotangent_is_the_derivative_by_a_perturbation(name):
    assert_close(collected(name, X), expected(name, X))


@pytest.mark.parametrize("name", MOST)
def test_cotangents_under_jit_in_float64(name):
    with jax.enable_x64(True):
        x = jnp.asarray(np.array(X), jnp.float64)
        got = jax.jit(lambda x: collected(name, x))(x)
        assert_close(got, jax.jit(lambda x: expected(name, x))(x), 1e-12)


@pytest.mark.parametrize("name", MOST)
def test_cotangents_of_a_batch(name):
    xs = jnp.stack([X, 2 * X, -X])
    got = jax.vmap(lambda x: collected(name, x))(xs)
    want = [expected(name, x) for x in xs]
    assert_close(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *want), 1e-4)


@pytest.mark.parametrize("name", MOST)
def test_cotangents_differentiate(name):
    of_bar = lambda f: lambda x: jnp.sum(jnp.sin(f(name, x)[1][1]))
    got, want = (jax.grad(of_bar(f))(X) for f in (collected, expected))
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize(
    "name", ["straight", *(pytest.param(n, marks=pytest.mark.slow) for n in FEW[1:])]
)
def test_cotangents_have_a_forward_derivative(name):
    got, want = (jax.jacfwd(lambda x: f(name, x)[1][1])(X) for f in (collected, expected))
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("name", ["straight", "scanned", "branch_taken", "inner_derivative"])
def test_cotangent_agrees_with_finite_differences(name):
    fn, shape = oracle(name)
    fn = jax.jit(fn)
    with jax.enable_x64(True):
        x = jnp.asarray(np.array(X), jnp.float64)
        got = collected(name, x)[1][1]
        for i in np.ndindex(shape):
            step = jnp.zeros(shape).at[i].set(1e-6)
            slope = (fn(x, step) - fn(x, -step)) / 2e-6
            np.testing.assert_allclose(got[i], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FEW)
def test_bfloat16_cotangents_have_the_dtype_of_the_value(name):
    _, grads, cotangents = gk.collect_cotangents(tapped(name), X.astype(jnp.bfloat16))
    assert grads.dtype == cotangents["h"].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", [n for n in NOT_IN_A_LOOP if "inner" not in n])
def test_tap_inside_vmap_is_stacked_along_the_batch(name):
    program, _ = PROGRAMS[name]
    xs = jnp.stack([X, 2 * X])
    loss = lambda xs: jnp.sum(jax.vmap(lambda x: program(x, lambda y: tap(y, "h")))(xs))
    _, grads, cotangents = gk.collect_cotangents(loss, xs)
    want = [expected(name, x)[1] for x in xs]
    assert_close((grads, cotangents["h"]), jax.tree.map(lambda a, b: jnp.stack([a, b]), *want))


def test_tap_of_what_is_not_mapped_sums_over_the_batch():
    loss = lambda w: jnp.sum(jax.vmap(lambda x: tap(w, "w") * x)(X))
    assert_close(gk.collect_cotangents(loss, 2.0)[2]["w"], jnp.sum(X))


def test_taps_come_in_the_order_of_the_program_with_their_structure():
    def loss(x):
        pair = tap({"a": x * x, "b": (jnp.arange(3), None, "text", x[0])}, "pair")
        last = tap(jnp.sin(pair["a"]) * pair["b"][3], "last")
        return jnp.sum(last)

    _, _, cotangents = gk.collect_cotangents(loss, X)
    assert list(cotangents) == ["pair", "last"]
    assert_close(cotangents["last"], jnp.ones(3))
    pair = cotangents["pair"]
    assert pair["b"][:3] == (None, None, None)
    assert_close(pair["a"], jnp.cos(X * X) * X[0])
    assert_close(pair["b"][3], jnp.sum(jnp.sin(X * X)))


def test_complex_cotangents_follow_jax():
    loss = lambda x, z=0: jnp.sum(jnp.abs(tap(x * (1 + 2j), "h") + z) ** 2)
    want = jax.grad(loss, argnums=1)(X, jnp.zeros(3, jnp.complex64))
    np.testing.assert_allclose(gk.collect_cotangents(loss, X)[2]["h"], want, rtol=1e-6)


def test_negative_zero_passes_a_tap_as_it_is():
    value, *_ = gk.collect_cotangents(lambda x: tap(x, "h"), jnp.float32(-0.0))
    assert np.signbit(value)


class TestOptions:
    def loss(self, w, x, n, *, power):
        for _ in range(n):
            x = tap(w["a"] * x, "h") ** power
        return jnp.sum(x) + jnp.sum(w["b"]), {"x": x, "label": "text"}

    def test_those_of_value_and_grad(self):
        args = {"a": X, "b": 2.0}, 3.0, 1
        got = gk.collect_cotangents(self.loss, *args, argnums=(0, -2), has_aux=True, power=2)
        loss = lambda *args: self.loss(*args, power=2)[0]
        want = jax.value_and_grad(loss, argnums=(0, 1))(*args)
        (value, aux), grads, cotangents = got
        assert_close((value, grads), want)
        assert_close(aux["x"], (X * 3) ** 2)
        assert aux["label"] == "text"
        assert_close(cotangents["h"], 2 * X * 3)

    def test_one_argument_by_number(self):
        args = {"a": X, "b": 2.0}, 3.0, 1
        _, grad, _ = gk.collect_cotangents(self.loss, *args, argnums=1, has_aux=True, power=2)
        assert_close(grad, jnp.sum(2 * X * X * 3))

    def test_leaves_that_are_no_arrays_have_no_gradient(self):
        loss = lambda model, x: jnp.sum(model["act"](tap(model["w"] * x, "h")))
        model = {"w": X, "act": jnp.sin, "name": "model"}
        _, grads, cotangents = gk.collect_cotangents(loss, model, 2.0)
        assert grads["act"] is grads["name"] is None
        assert_close(grads["w"], 2 * cotangents["h"])

    def test_integers_as_in_value_and_grad(self):
        loss = lambda n: tap(n * 2.0, "h")
        with pytest.raises(TypeError, match="int"):
            gk.collect_cotangents(loss, 3)
        _, grad, cotangents = gk.collect_cotangents(loss, 3, allow_int=True)
        assert grad.dtype == jax.dtypes.float0
        assert cotangents["h"] == 1.0

    def test_holomorphic_as_in_value_and_grad(self):
        _, grad, cotangents = gk.collect_cotangents(
            lambda z: tap(z * z, "h") ** 2, 1 + 2j, holomorphic=True
        )
        np.testing.assert_allclose(grad, 4 * (1 + 2j) ** 3, rtol=1e-6)
        np.testing.assert_allclose(cotangents["h"], 2 * (1 + 2j) ** 2, rtol=1e-6)

    def test_no_taps_no_cotangents(self):
        assert gk.collect_cotangents(jnp.sum, X)[2] == {}

    def test_a_value_that_is_no_scalar_is_refused(self):
        with pytest.raises(TypeError, match="scalar"):
            gk.collect_cotangents(lambda x: tap(x, "h"), X)


MESH = {"shape": (2, 2), "axes": ("i", "j")}


def mesh(axis_type=AxisType.Auto):
    return jax.make_mesh(MESH["shape"], MESH["axes"], axis_types=(axis_type,) * 2)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
class TestShardMap:
    def run(self, local, axis_type, check_vma, xs, spec):
        with jax.set_mesh(mesh(axis_type)):
            xs = jax.device_put(xs, jax.sharding.NamedSharding(mesh(axis_type), spec))
            run = jax.shard_map(
                local, in_specs=spec, out_specs=PartitionSpec(), check_vma=check_vma
            )
            return jax.jit(lambda xs: gk.collect_cotangents(run, xs))(xs)

    def test_one_slice_per_device_that_differs(self, axis_type, check_vma):
        def local(x):
            return lax.psum(jnp.sum(jnp.sin(tap(x * x, "h"))), ("i", "j"))

        xs = jnp.arange(8.0).reshape(4, 2)
        spec = PartitionSpec("i", "j")
        value, grads, cotangents = self.run(local, axis_type, check_vma, xs, spec)
        loss = lambda xs, z=0: jnp.sum(jnp.sin(xs * xs + z))
        assert_close(value, loss(xs))
        assert_close(np.asarray(grads), np.asarray(jax.grad(loss)(xs)))
        bar = np.cos(np.asarray(xs) ** 2)
        blocks = [bar[2 * i : 2 * i + 2, j : j + 1] for i in range(2) for j in range(2)]
        assert_close(np.asarray(cotangents["h"]), np.stack(blocks))

    def test_steps_inside_devices(self, axis_type, check_vma):
        def local(x):
            step = lambda c, _: (jnp.sin(tap(c * x, "h")), None)
            return lax.psum(jnp.sum(lax.scan(step, x, length=3)[0]), ("i", "j"))

        xs = jnp.arange(4.0).reshape(2, 2)
        spec = PartitionSpec("i", "j")
        _, _, cotangents = self.run(local, axis_type, check_vma, xs, spec)

        def one(x, z):
            c = x
            for k in range(3):
                c = jnp.sin(c * x + z[k])
            return c

        want = [jax.grad(one, argnums=1)(x, jnp.zeros(3)) for x in xs.ravel()]
        assert cotangents["h"].shape == (4, 3, 1, 1)
        assert_close(np.asarray(cotangents["h"]).reshape(4, 3), np.stack(want))


def test_replicated_value_in_shard_map_has_one_cotangent():
    def local(w, x):
        return lax.psum(jnp.sum(tap(w, "w") * x), ("i", "j"))

    specs = PartitionSpec(), PartitionSpec("i", "j")
    run = jax.shard_map(local, mesh=mesh(), in_specs=specs, out_specs=specs[0])
    x = jnp.arange(8.0).reshape(4, 2)
    _, grads, cotangents = gk.collect_cotangents(run, jnp.float32(2.0), x)
    assert_close(jnp.sum(cotangents["w"]), jnp.sum(x))
    assert_close(grads, jnp.sum(x))


def test_types_that_are_divided_over_devices():
    with jax.set_mesh(mesh(AxisType.Explicit)):
        sharding = jax.sharding.NamedSharding(mesh(AxisType.Explicit), PartitionSpec("i", "j"))
        xs = jax.device_put(jnp.arange(8.0).reshape(4, 2), sharding)
        step = lambda c, _: (jnp.sin(tap(c * c, "h")), None)
        loss = lambda xs: jnp.sum(lax.scan(step, tap(xs * xs, "first"), length=2)[0])
        _, grads, cotangents = jax.jit(lambda xs: gk.collect_cotangents(loss, xs))(xs)
        assert grads.sharding.spec == cotangents["first"].sharding.spec == sharding.spec
        assert cotangents["h"].sharding.spec == PartitionSpec(None, "i", "j")
        last = np.asarray(jnp.cos(jnp.sin(xs**4) ** 2))
    assert_close(np.asarray(cotangents["h"][1]), last)


class TestNames:
    def test_a_name_used_twice_names_both_lines(self):
        def loss(x):
            x = tap(2 * x, "h")
            x = x * x
            return jnp.sum(tap(x, "h"))

        line = loss.__code__.co_firstlineno
        with pytest.raises(gk.HookError) as error:
            gk.collect_cotangents(loss, X)
        text = str(error.value)
        assert "two taps have the name 'h'" in text
        assert f"first at {__file__}:{line + 1}" in text
        assert f"then at {__file__}:{line + 3}" in text
        assert "scoped=True" in text
        assert isinstance(error.value, ValueError)

    def test_a_jitted_function_called_twice_uses_its_name_twice(self):
        layer = jax.jit(lambda x: tap(2 * x, "h"))
        with pytest.raises(gk.HookError, match="two taps have the name 'h'"):
            gk.collect_cotangents(lambda x: jnp.sum(layer(layer(x))), X)

    def test_named_scopes_tell_uses_apart_when_asked_to(self):
        layer = jax.jit(lambda x: tap(2 * x, "h", scoped=True))

        def loss(x):
            for i in range(2):
                with jax.named_scope(f"layer{i}"):
                    x = layer(x)
            return jnp.sum(x)

        _, _, cotangents = gk.collect_cotangents(loss, X)
        assert list(cotangents) == ["layer0/h", "layer1/h"]
        assert_close(cotangents["layer0/h"], 2 * jnp.ones(3))
        assert_close(cotangents["layer1/h"], jnp.ones(3))

    @pytest.mark.parametrize("name", [None, "", 3])
    def test_a_name_is_a_text(self, name):
        with pytest.raises(gk.RuleError, match="a tap has a name"):
            tap(X, name)


def plain(x):
    return jnp.sin(tap(x, "h"))


with_jvp = jax.custom_jvp(plain)
with_jvp.defjvp(lambda primals, tangents: (plain(*primals), tangents[0]))
with_vjp = jax.custom_vjp(plain)
with_vjp.defvjp(lambda x: (plain(x), None), lambda residuals, y_bar: (y_bar,))
with_gradient = gk.custom_gradient(lambda x: (plain(x), lambda y_bar: y_bar))


class TestOutOfReach:
    @pytest.mark.parametrize("fn", [with_jvp, with_vjp, with_gradient])
    def test_inside_a_function_with_a_rule_of_its_own(self, fn):
        with pytest.raises(gk.HookError) as error:
            gk.collect_cotangents(lambda x: jnp.sum(jax.jit(fn)(x)), X)
        text = str(error.value)
        assert "the tap 'h' stands inside" in text
        assert "derivative rule of its own" in text
        assert f"test_collect.py:{plain.__code__.co_firstlineno + 1}" in text
        assert "tap what goes into the function, or what comes out" in text

    def test_inside_a_while_loop(self):
        def loss(x):
            body = lambda c: tap(c * 2, "h")
            return jnp.sum(lax.stop_gradient(lax.while_loop(lambda c: c[0] < 9, body, x)))

        with pytest.raises(gk.HookError, match="while_loop, which has no reverse mode") as error:
            gk.collect_cotangents(loss, X)
        assert "jax.lax.scan" in str(error.value)


def test_norm_is_collected_in_the_place_of_the_array(capsys):
    def loss(x):
        step = lambda c, i: (jnp.sin(cotangent_norm({"c": c * x, "d": c[0]}, "n")["c"]), None)
        return jnp.sum(lax.scan(step, x, jnp.arange(4))[0])

    _, _, cotangents = jax.jit(lambda x: gk.collect_cotangents(loss, x))(X)
    jax.effects_barrier()
    bars = expected("fori", X)[1][1]
    assert_close(cotangents["n"], jnp.sqrt(jnp.sum(bars**2, axis=1)))
    assert capsys.readouterr().out == ""


def test_norm_inside_vmap_is_one_per_example():
    loss = lambda xs: jnp.sum(jax.vmap(lambda x: jnp.sum(cotangent_norm(x, "n") ** 2))(xs))
    xs = jnp.stack([X, 2 * X])
    assert_close(gk.collect_cotangents(loss, xs)[2]["n"], 2 * jnp.linalg.norm(xs, axis=1))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_norm_does_not_overflow(dtype):
    big = jnp.finfo(dtype).max
    x = jnp.array([0.5, 0.25], dtype)
    loss = lambda x: jnp.sum(cotangent_norm(x, "n") * jnp.array([big / 4, big / 4], dtype))
    _, _, cotangents = gk.collect_cotangents(loss, x)
    np.testing.assert_allclose(float(cotangents["n"]), float(big) / 4 * np.sqrt(2), rtol=1e-2)
    assert cotangents["n"].dtype == jnp.float32


def test_sharding_constraints_of_jitted_functions_are_kept():
    sharding = jax.sharding.NamedSharding(mesh(), PartitionSpec("i"))
    inner = jax.jit(lambda x: tap(x * x, "h"), in_shardings=sharding, out_shardings=sharding)
    loss = lambda x: jnp.sum(inner(x))
    x = jnp.arange(4.0)
    jaxpr = jax.make_jaxpr(lambda x: gk.collect_cotangents(loss, x))(x)
    assert "'i'" in str(jaxpr)
    assert_close(gk.collect_cotangents(loss, x)[2]["h"], jnp.ones(4))


def test_nothing_is_left_behind():
    import gc
    import weakref

    seen = []

    def run():
        def loss(x):
            return jnp.sum(tap(x * x, "h"))

        seen.append(weakref.ref(loss))
        gk.collect_cotangents(loss, X)

    run()
    gc.collect()
    assert seen[0]() is None
