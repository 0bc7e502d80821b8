"""Operations on arrays hold under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import losses, ops
from tests.losses.test_losses_everywhere import check_every_transformation

A = np.array([0.5, -0.5, 2.0, 1.0], np.float32)[:, None]

# Functions of x[4, 2].
CASES = {
    "entmax": lambda x: jnp.sum(ops.entmax(x, 1.5, axis=0) ** 2),
    "entmax of alpha": lambda x: jnp.sum(ops.entmax(x[:3], 1.5 + 0.3 * jnp.tanh(x[3]), 0) ** 2),
    "entmax_loss": lambda x: jnp.sum(losses.entmax_loss(x.T, np.array([0, 2])) ** 2),
    "quantile": lambda x: jnp.sum(ops.quantile(x, jax.nn.sigmoid(x[0, 0]), 0) ** 2),
    "max_pool": lambda x: jnp.sum(ops.max_pool(x, 2, 1) ** 3),
    "linear_recurrence": lambda x: jnp.sum(ops.linear_recurrence(x * A, x, x[0]) ** 2),
    "cumlogsumexp": lambda x: jnp.sum(ops.cumlogsumexp(x, 0, reverse=True) ** 2),
}
QUICK = ["entmax", "max_pool"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_every_transformation_gives_the_same_derivatives(name):
    check_every_transformation(CASES[name], 1e-3, second=(2e-2, 2e-2), rest=(2e-4, 2e-5))
