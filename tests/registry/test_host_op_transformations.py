"""A function outside JAX under every transformation: the battery."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradkit as gk
from tests.kit.battery import PROGRAMS, V, X

# JAX cannot serialise a program that calls back.
_SERIALISES_A_VALUE = {"export_with_derivative"}
_SERIALISES_A_GRADIENT = {"export", "export_with_derivative"}

# Programs that differentiate a gradient, backwards, and those that run anything forwards.
BACKWARDS_TWICE = {
    "reverse_over_reverse",
    "grad_of_grad_scalar",
    "grad_of_jit_of_grad",
    "derivative_of_the_returned_value",
    "value_and_grad_differentiated_together",
    "third_order_reverse",
    "grad_of_grad_of_scan",
    "grad_of_grad_inside_scan",
    "grad_of_grad_of_cond",
    "reverse_over_reverse_of_remat",
    "jit_of_hessian",
    "hessian_of_shard_map",
}
FORWARDS = {
    *(n for n in PROGRAMS if n.startswith(("jvp", "jacfwd", "forward", "linearize", "jit_of_jvp"))),
    "vmap_of_jvp", "vmap_of_linearized", "transpose_of_linearized", "transpose_of_jvp",
    "reverse_over_forward", "hessian", "hessian_vector_product", "grad_of_directional_derivative",
    "third_order_forward", "third_order_mixed", "vmap_of_hessian", "hessian_of_vmap",
    "derivative_of_the_returned_value_of_linearize",
}  # fmt: skip
BACKWARDS_ONCE = [
    n for n in PROGRAMS if n not in BACKWARDS_TWICE | FORWARDS | _SERIALISES_A_GRADIENT
]

_QUICK = {
    "evaluate", "jit", "vjp", "jvp", "jit_of_grad", "grad_of_jit", "vmap_of_grad", "grad_of_vmap",
    "jacrev_of_vmap", "hessian", "jit_of_hessian", "grad_of_grad_scalar", "grad_of_scan",
    "jvp_of_while_loop", "grad_of_cond", "vmap_of_grad_of_cond", "grad_of_remat",
    "grad_of_remat_with_policy", "grad_of_grad_inside_scan", "third_order_reverse",
    "shard_map_auto_checked", "shard_map_explicit_checked", "hessian_of_shard_map",
    "shard_map_replicated_weight_auto_checked", "shard_map_replicated_weight_auto_unchecked",
}  # fmt: skip


def programs(names):
    return [pytest.param(n, marks=() if n in _QUICK else pytest.mark.slow) for n in names]


@pytest.fixture(autouse=True)
def scope():
    with gk.registry_scope():
        yield


def rule(op, y_bar):
    """A gradient of x^3 that is not its derivative, so that it shows; for JAX and NumPy."""
    return 5 * op.inputs[0] ** 2 * y_bar


def oracle_of_cube(x):
    return lax.stop_gradient(x**3 - 5 / 3 * x**3) + 5 / 3 * x**3


def cube(vjp=None):
    return gk.host_op("TestHostCube", lambda x: x**3, result=lambda x: x, vjp=vjp)


def assert_same(got, want):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(g), np.asarray(w), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", programs(n for n in PROGRAMS if n not in _SERIALISES_A_VALUE))
def test_with_a_gradient_in_jax(name):
    gk.RegisterGradient("TestHostCube")(rule)
    assert_same(PROGRAMS[name](cube()), PROGRAMS[name](oracle_of_cube))


def test_these_lists_name_programs_of_the_battery():
    assert set(PROGRAMS) >= BACKWARDS_TWICE | FORWARDS | _QUICK | _SERIALISES_A_GRADIENT
    assert len(BACKWARDS_ONCE) >= 40


@pytest.mark.parametrize("name", programs(BACKWARDS_ONCE))
def test_with_a_gradient_on_the_host(name):
    assert_same(PROGRAMS[name](cube(vjp=rule)), PROGRAMS[name](oracle_of_cube))


@pytest.mark.parametrize("name", programs(sorted(BACKWARDS_TWICE)))
def test_a_second_derivative_of_a_gradient_on_the_host_says_what_to_do(name):
    with pytest.raises(gk.UnknownGradientError) as error:
        PROGRAMS[name](cube(vjp=rule))
    text = str(error.value)
    assert "the gradient of 'TestHostCube' runs on the host (vjp=)" in text
    assert "which a second derivative needs" in text
    assert '@gradkit.RegisterGradient("TestHostCube")' in text
    assert "may call another host_op" in text


@pytest.mark.parametrize(
    "run",
    [
        lambda f: jax.jvp(f, (X,), (V,)),
        lambda f: jax.jit(jax.jacfwd(f))(X),
        lambda f: jax.vmap(jax.hessian(f))(X),
    ],
    ids=["jvp", "jacfwd", "hessian"],
)
def test_forward_mode_of_a_gradient_on_the_host_is_an_error_that_says_so(run):
    with pytest.raises(gk.ForwardModeError) as error:
        run(cube(vjp=rule))
    text = str(error.value)
    assert "the gradient of 'TestHostCube' cannot be run in forward mode" in text
    assert "vjp of 'TestHostCube' runs outside JAX, which cannot transpose it" in text
    assert "use reverse mode" in text


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_weight_that_all_devices_share_gets_the_sum_of_their_gradients(check_vma):
    def product_vjp(op, y_bar):
        w, x = op.inputs
        return (x * y_bar).sum(), w * y_bar

    product = gk.host_op("TestShared", lambda w, x: w * x, result=lambda w, x: x, vjp=product_vjp)
    mesh = jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    loss = jax.shard_map(
        lambda w, x: lax.psum(product(w, x).sum(), "i"),
        mesh=mesh,
        in_specs=(P(), P("i")),
        out_specs=P(),
        check_vma=check_vma,
    )
    w_bar, x_bar = jax.jit(jax.grad(loss, (0, 1)))(3.0, jnp.asarray(X))
    np.testing.assert_allclose(w_bar, X.sum(), rtol=1e-6)
    np.testing.assert_allclose(x_bar, np.full(4, 3.0))
