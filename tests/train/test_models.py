"""Every kind of model: what is trained in it, and what stays as it is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from gradkit.train import fit
from tests.train.problems import arrays, assert_same_bits

OPTIONS = {"optimizer": optax.adam(1e-2), "epochs": 40, "progress": False}


def loss_of(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def learned(result):
    losses = result.history["loss"]
    return losses[-4:].mean() < 0.5 * losses[:4].mean()


def test_flax_linen_variables():
    model = linen.Sequential([linen.Dense(16), linen.tanh, linen.Dense(3)])
    x, y = arrays()
    variables = model.init(jax.random.key(0), x[:1])
    result = fit(lambda v, b: loss_of(model.apply(v, b[0]), b[1]), variables, (x, y), **OPTIONS)
    assert learned(result)
    assert jax.tree.structure(result.params) == jax.tree.structure(variables)


def test_batch_statistics_are_a_state():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Dense(16)(x)
            x = linen.BatchNorm(use_running_average=False, momentum=0.5)(x)
            return linen.Dense(3)(linen.relu(x))

    x, y = arrays()
    variables = Net().init(jax.random.key(0), x)
    params, stats = variables["params"], variables["batch_stats"]

    def loss_fn(params, stats, batch):
        logits, new = Net().apply(
            {"params": params, "batch_stats": stats}, batch[0] + 5.0, mutable=["batch_stats"]
        )
        return loss_of(logits, batch[1]), new["batch_stats"]

    result = fit(loss_fn, (params, stats), (x, y), has_state=True, **OPTIONS)
    assert learned(result)
    before, after = (jax.tree.leaves(s)[0] for s in (stats, result.model_state))
    assert np.abs(np.asarray(after)).max() > np.abs(np.asarray(before)).max()


def test_nnx_modules_with_batch_norm_and_dropout():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(8, 16, rngs=rngs)
            self.norm = nnx.BatchNorm(16, momentum=0.5, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.last = nnx.Linear(16, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))

    net = Net(nnx.Rngs(0))
    kernel = np.asarray(net.first.kernel[...])
    result = fit(lambda net, b: loss_of(net(b[0] + 5), b[1]), net, arrays(), **OPTIONS)
    assert learned(result)
    assert isinstance(result.params, Net)
    assert np.abs(np.asarray(result.params.norm.mean[...])).max() > 0.1, "statistics moved"
    assert_same_bits(net.first.kernel[...], kernel)
    assert result.params(jnp.ones((2, 8))).shape == (2, 3)


def test_equinox_modules_keep_their_static_leaves():
    net = eqx.nn.MLP(8, 3, 16, 1, activation=jax.nn.tanh, key=jax.random.key(0))
    result = fit(lambda net, b: loss_of(jax.vmap(net)(b[0]), b[1]), net, arrays(), **OPTIONS)
    assert learned(result)
    assert result.params.activation is not None
    assert jax.vmap(result.params)(jnp.ones((2, 8))).shape == (2, 3)


def test_integers_and_functions_in_params_stay_as_they_are():
    params = {"w": np.ones(3, np.float32), "table": np.arange(3), "fn": jnp.tanh, "none": None}
    loss_fn = lambda p, b: jnp.sum(p["fn"](p["w"][p["table"]]) * b.mean())
    result = fit(loss_fn, params, np.ones(4, np.float32), steps=2, progress=False)
    assert result.params["fn"] is jnp.tanh
    assert_same_bits(result.params["table"], np.arange(3))
    assert (np.asarray(result.params["w"]) < 1).all()


def test_nothing_to_train_is_an_error():
    with pytest.raises(TypeError, match="nothing to train(.|\n)*got: +int"):
        fit(lambda p, b: 0.0, {"n": 3}, np.ones(4), progress=False)
