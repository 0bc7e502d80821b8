"""A run compiles its program once: a large model takes minutes to compile."""

import jax
import optax
import pytest

import gradkit as gk

from .problems import arrays, cross_entropy, network

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **what: COMPILED.append((event.rpartition("/")[2], str(what)))
)


def train(params, epochs=2, **options):
    """How many programs of many steps were compiled, and the result."""
    COMPILED.clear()
    given = {"optimizer": optax.adam(1e-2), "batch_size": 20, "progress": False}
    result = gk.fit(cross_entropy, params, arrays(), epochs=epochs, **given | options)
    return sum(e == "backend_compile_duration" and "many" in w for e, w in COMPILED), result


@pytest.mark.parametrize("steps_per_call", [1, 3, None])
def test_compiled_once_however_many_steps_a_call_takes(steps_per_call):
    count, result = train(network(), steps_per_call=steps_per_call)
    assert count == result.compilations == 1
    assert result.step == 10


def test_compiled_once_where_some_parameters_are_committed_to_the_device():
    params = network()
    params["hidden"] = jax.device_put(params["hidden"], jax.devices()[0])
    assert train(params)[0] == 1


def test_compiled_once_on_two_devices_and_once_after_a_restart(tmp_path):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    assert train(network(), mesh=mesh)[0] == 1
    options = {"checkpoint_dir": tmp_path, "resume": True}
    assert train(network(), **options)[0] == 1
    count, result = train(network(), epochs=4, **options)
    assert count == 1
    assert result.step == 20
