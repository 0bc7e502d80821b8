"""The network of relevance.npz in JAX; record_relevance.py has it in torch."""

from pathlib import Path

import jax
import numpy as np
from jax import lax

DATA = np.load(Path(__file__).with_name("relevance.npz"))
NAMES = ("0", "3", "6", "8")


def _conv(x, weight, padding):
    return lax.conv_general_dilated(
        x, weight, (1, 1), padding, dimension_numbers=("NCHW", "OIHW", "NCHW")
    )


def _pool(x, kind):
    window = ((1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    if kind == "max":
        return lax.reduce_window(x, -np.inf, lax.max, *window)
    return lax.reduce_window(x, 0.0, lax.add, *window) / 4


def network(activation=jax.nn.relu, pool="max", dtype=np.float64):
    """The network with the recorded weights, from NCHW images."""
    w = [DATA[f"weights/{n}.weight"].astype(dtype) for n in NAMES]
    b = [DATA[f"weights/{n}.bias"].astype(dtype) for n in NAMES]

    def model(x):
        x = activation(_conv(x, w[0], "SAME") + b[0][None, :, None, None])
        x = _pool(x, pool)
        x = activation(_conv(x, w[1], "VALID") + b[1][None, :, None, None])
        x = activation(x.reshape(x.shape[0], -1) @ w[2].T + b[2][None])
        return x @ w[3].T + b[3][None]

    return model
