"""Arguments and parameters that lie on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from tests.verify.entries import with_rule

KINDS = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}


@pytest.fixture(params=KINDS)
def sharded(request):
    """Puts an array on four devices, its first axis divided among them."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(KINDS[request.param],))
    sharding = NamedSharding(mesh, PartitionSpec("d"))
    with jax.set_mesh(mesh):
        yield lambda x: jax.device_put(x, sharding)


def _numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _cube(factor):
    return with_rule(lambda x: x**3, lambda xs, y_bar: (factor * 3 * xs[0] ** 2 * y_bar,))


def test_a_right_rule_of_a_sharded_argument_is_right(sharded):
    report = gk.check(_cube(1.0), sharded(_numbers(8, 2)), points=["signs flipped"])
    assert report.ok, str(report)
    assert report.points == ("given", "signs flipped")


def test_a_wrong_rule_of_a_sharded_argument_is_found(sharded):
    report = gk.check(_cube(2.0), sharded(_numbers(8, 2)))
    assert report.findings[0].cause == "too large by a factor of 2"


def test_parameters_may_be_sharded(sharded):
    w = sharded(_numbers(8, 2))
    square = _cube(1.0)
    report = gk.check(lambda x: square(w * x), jnp.float32(0.5), points=0)
    assert report.ok, str(report)


def test_plain_code_on_sharded_arguments_is_right_to_second_order(sharded):
    report = gk.check(lambda x: jnp.sin(x) * x, sharded(_numbers(8, 2)), order=2)
    assert report.ok, str(report)


def test_a_cotangent_that_loses_its_sharding_is_found():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))

    @gk.custom_gradient
    def double(x):
        return 2 * x, lambda y_bar: jax.sharding.reshard(2 * y_bar, PartitionSpec(None))

    with jax.set_mesh(mesh):
        x = jax.device_put(_numbers(8), NamedSharding(mesh, PartitionSpec("d")))
        report = gk.check(double, x)
    (finding,) = {f.message for f in report.findings}
    assert "float32[8@d]" in finding or "float64[8@d]" in finding
