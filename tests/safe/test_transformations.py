"""The functions hold wherever JAX's own do, and have the derivatives of those."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import safe
from tests.kit.battery import PROGRAMS


def ours(x):
    bounded = safe.arctan2(x, 2 + x * x)
    size = safe.divide(safe.sqrt(1 + safe.power(x, 2.0)), 3 + x * x)
    return safe.logaddexp(bounded, size) + safe.xlogy(x, safe.acosh(size + 2)) * safe.arcsin(
        bounded
    )


def theirs(x):
    bounded = jnp.arctan2(x, 2 + x * x)
    size = jnp.sqrt(1 + x**2) / (3 + x * x)
    return jnp.logaddexp(bounded, size) + x * jnp.log(jnp.arccosh(size + 2)) * jnp.arcsin(bounded)


# One program of each kind; the others nest the same things in more ways.
QUICK = [
    "jit_of_hessian", "vmap_of_grad_of_scan", "jit_of_jvp_of_while_loop",
    "vmap_of_grad_of_cond", "reverse_over_reverse_of_remat", "export",
    "shard_map_explicit_checked", "hessian_of_shard_map",
]  # fmt: skip


def assert_agree(name):
    jax.tree.map(
        lambda got, expected: np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5),
        PROGRAMS[name](ours),
        PROGRAMS[name](theirs),
    )


@pytest.mark.parametrize("name", QUICK)
def test_program_has_the_derivatives_of_plain_jax(name):
    assert_agree(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - set(QUICK)))
def test_other_program_has_the_derivatives_of_plain_jax(name):
    assert_agree(name)


A = np.array([[4.0, 1, 0.5], [1, 3, 0.25], [0.5, 0.25, 2]], np.float32)


def matrices(a):
    """Something of every factorisation that does not depend on signs."""
    w, v = safe.eigh(a)
    u, s, vh = safe.svd(a + jnp.eye(3))
    q, r = safe.qr(a)
    parts = [v[:, :1] @ v[:, :1].T, u[:, :1] @ vh[:1], q @ r, r.T @ r, safe.cholesky(a)]
    return sum(parts, safe.sqrtm(a)) + w[None] * s[None] + safe.norm(safe.normalize(a))


@pytest.fixture(scope="module")
def expected():
    return jax.jit(jax.jacrev(matrices))(A)


def in_scan(a):
    return jax.lax.scan(lambda a, _: (a, matrices(a)), a, None, length=2)[1][1]


def in_cond(a):
    return jax.lax.cond(a[0, 0] > 0, matrices, jnp.sin, a)


FORMS = {"remat": jax.checkpoint(matrices), "scan": in_scan, "cond": in_cond}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_matrix_functions_in_control_flow(form, expected):
    np.testing.assert_allclose(jax.jit(jax.jacrev(form))(A), expected, rtol=1e-4, atol=1e-4)


def test_matrix_functions_batched_forwards(expected):
    batched = jax.jit(jax.vmap(jax.jacfwd(matrices)))(jnp.stack([A, A]))
    np.testing.assert_allclose(batched[1], expected, rtol=1e-4, atol=1e-4)


def test_matrix_functions_on_several_devices(expected):
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    sharded = jax.shard_map(jax.vmap(matrices), mesh=mesh, in_specs=spec, out_specs=spec)
    cotangent = jnp.ones((4, 3, 3))
    grads = jax.jit(lambda a: jax.vjp(sharded, a)[1](cotangent)[0])(jnp.stack([A] * 4))
    np.testing.assert_allclose(grads[3], expected.sum((0, 1)), rtol=1e-4, atol=1e-4)
