"""Spikes with surrogate derivatives: functions of the membrane potential above threshold.

All are the unit step, 1 where `v >= 0`, and differ in their derivative alone.
"""

from gradkit.rules.surrogate._pieces import (
    hard_tanh,
    leaky_relu,
    log_tailed_relu,
    piecewise_leaky_relu,
    piecewise_linear,
    piecewise_quadratic,
    rectangle,
    straight_through,
    triangle,
)
from gradkit.rules.surrogate._rational import (
    clipped_inverse,
    fast_sigmoid,
    log_abs,
    q_pseudo_spike,
    s2nn,
    softsign,
    sparse_fast_sigmoid,
    superspike,
)
from gradkit.rules.surrogate._smooth import (
    arctan,
    erf,
    exponential,
    gaussian,
    multi_gaussian,
    sigmoid,
    square_wave_fourier,
    tanh,
)
from gradkit.rules.surrogate._spike import spike

__all__ = [
    "arctan",
    "clipped_inverse",
    "erf",
    "exponential",
    "fast_sigmoid",
    "gaussian",
    "hard_tanh",
    "leaky_relu",
    "log_abs",
    "log_tailed_relu",
    "multi_gaussian",
    "piecewise_leaky_relu",
    "piecewise_linear",
    "piecewise_quadratic",
    "q_pseudo_spike",
    "rectangle",
    "s2nn",
    "sigmoid",
    "softsign",
    "sparse_fast_sigmoid",
    "spike",
    "square_wave_fourier",
    "straight_through",
    "superspike",
    "tanh",
    "triangle",
]
