"""Several devices: the same training as on one."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import gradkit as gk
from gradkit.train import fit
from tests.train.problems import arrays, cross_entropy, in_order, network

OPTIONS = {"optimizer": optax.adam(1e-2), "epochs": 3, "progress": False}


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()[:4]), ("data",))


def assert_close(one, other):
    np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


RULES = {
    "replicated": "replicated",
    "fsdp": "fsdp",
    "a tree": {
        "hidden": {"w": PartitionSpec(None, "data"), "b": PartitionSpec()},
        "out": {"w": PartitionSpec("data"), "b": PartitionSpec()},
    },
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_losses_are_those_of_one_device(mesh, rule):
    one = fit(cross_entropy, network(), arrays(), **OPTIONS)
    options = OPTIONS | {"mesh": mesh, "param_sharding": rule}
    many = fit(cross_entropy, network(), arrays(), eval_data=arrays(), **options)
    assert_close(one, many)
    assert many.compilations == 2
    assert len(many.params["hidden"]["w"].sharding.device_set) == 4
    is_divided = not many.params["hidden"]["w"].sharding.is_fully_replicated
    assert is_divided == (rule != "replicated")
    moments = many.opt_state[0].mu["hidden"]["w"]
    assert moments.sharding.is_fully_replicated != is_divided


def test_batches_are_divided(mesh):
    seen = []

    def loss_fn(params, batch):
        jax.debug.inspect_array_sharding(batch[0], callback=seen.append)
        return cross_entropy(params, batch)

    fit(loss_fn, network(), arrays(64), mesh=mesh, steps=1, progress=False)
    assert any(not s.is_fully_replicated for s in seen)


def test_streams_too(mesh):
    batches = list(in_order(arrays(), 32, 1))
    one = fit(cross_entropy, network(), batches, **OPTIONS)
    assert_close(one, fit(cross_entropy, network(), batches, mesh=mesh, **OPTIONS))


def test_rules_and_overrides_keep_their_meaning(mesh):
    @gk.custom_gradient
    def doubled(x):
        return 1.0 * x, lambda y_bar: 2 * y_bar

    def loss_fn(params, batch):
        x, labels = batch
        return doubled(cross_entropy(params, (jax.numpy.sign(x), labels)))

    options = OPTIONS | {"optimizer": optax.sgd(0.1), "overrides": {"Tanh": "Identity"}}
    one = fit(loss_fn, network(), arrays(), **options)
    assert_close(one, fit(loss_fn, network(), arrays(), mesh=mesh, **options))


def test_checkpoints_go_from_four_devices_to_one_and_two(mesh, tmp_path):
    whole = fit(cross_entropy, network(), arrays(), steps=12, **OPTIONS)
    options = OPTIONS | {"checkpoint_dir": tmp_path, "resume": True}
    two = Mesh(np.array(jax.devices()[:2]), ("data",))
    fit(cross_entropy, network(), arrays(), steps=4, mesh=mesh, param_sharding="fsdp", **options)
    fit(cross_entropy, network(), arrays(), steps=8, **options)
    assert_close(whole, fit(cross_entropy, network(), arrays(), steps=12, mesh=two, **options))


@pytest.mark.parametrize(
    ("rule", "match"),
    [("fdsp", "did you mean 'fsdp'"), ({"w": PartitionSpec()}, "4 PartitionSpecs(.|\n)*1 leaves")],
    ids=["name", "tree"],
)
def test_rules_that_cannot_be_are_named(mesh, rule, match):
    with pytest.raises(ValueError, match=match):
        fit(cross_entropy, network(), arrays(), mesh=mesh, param_sharding=rule, progress=False)
