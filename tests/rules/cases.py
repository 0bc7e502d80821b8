"""What each rule is meant to be, written down without the catalogue's code.

For a spike, a function whose derivative is the surrogate; for a straight-through function, its
surrogate; for a rule on the backward pass, what it does to a cotangent, by optax where that has it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import erf, erfc

from gradkit import rules

V = np.array([-1.7, -0.61, -0.08, 0.03, 0.42, 1.3], np.float32)
"""Membrane potentials, off the kinks of every surrogate."""


def outside(size, inner, outer):
    """An odd function from its values for positive arguments."""

    def odd(v):
        r = jnp.abs(v)
        return jnp.sign(v) * jnp.where(r < size, inner(r), outer(r))

    return odd


def normal_cdf(v, mean, sigma):
    return erfc((mean - v) / (sigma * 2**0.5)) / 2  # precise far below, where erf is -1


ANTIDERIVATIVES = {
    "superspike": lambda v: v / (1 + 100 * jnp.abs(v)),
    "fast_sigmoid": lambda v: v / (1 + 25 * jnp.abs(v)),
    "sparse_fast_sigmoid": outside(1, lambda r: r / (1 + 25 * r), lambda r: 1 / 26 + 0 * r),
    "softsign": lambda v: 2 * v / (2 * (1 + 2 * jnp.abs(v))),
    "q_pseudo_spike": outside(jnp.inf, lambda r: (1 - 1 / (1 + 2 * r)) / 2, lambda r: r),
    "log_abs": outside(jnp.inf, lambda r: jnp.log(1 + r), lambda r: r),
    "clipped_inverse": outside(10 / 3, lambda r: 0.3 * r, lambda r: 1 + jnp.log(0.3 * r)),
    "s2nn": lambda v: jnp.where(v < 0, jax.nn.sigmoid(4 * v), 0.5 + jnp.log(1 + jnp.maximum(v, 0))),
    "sigmoid": lambda v: 1 / (1 + jnp.exp(-4 * v)),
    "tanh": jnp.tanh,
    "arctan": lambda v: jnp.arctan(jnp.pi * v) / jnp.pi,
    "erf": lambda v: erf(2 * v) / 2,
    "gaussian": lambda v: normal_cdf(v, 0, 0.5),
    "multi_gaussian": lambda v: (
        1.15 * normal_cdf(v, 0, 0.5) - 0.15 * (normal_cdf(v, 0.5, 3) + normal_cdf(v, -0.5, 3))
    ),
    "exponential": outside(jnp.inf, lambda r: (1 - jnp.exp(-r)) / 2, lambda r: r),
    "square_wave_fourier": lambda v: (
        2 / jnp.pi * (jnp.sin(jnp.pi * v / 4) + jnp.sin(3 * jnp.pi * v / 4) / 3)
    ),
    "straight_through": lambda v: v,
    "hard_tanh": lambda v: jnp.clip(v, -1, 1),
    "rectangle": lambda v: jnp.clip(v, -0.5, 0.5),
    "triangle": outside(1, lambda r: 0.3 * (r - r**2 / 2), lambda r: 0.15 + 0 * r),
    "piecewise_linear": outside(0.1, lambda r: r - 5 * r**2, lambda r: 0.05 + 0 * r),
    "piecewise_quadratic": outside(1, lambda r: r - r**2 / 2, lambda r: 0.5 + 0 * r),
    "piecewise_leaky_relu": outside(1, lambda r: r / 2, lambda r: 0.5 + 0.01 * (r - 1)),
    "leaky_relu": lambda v: jnp.where(v >= 0, v, 0.1 * v),
    "log_tailed_relu": lambda v: jnp.where(
        v > 1, 1 + jnp.log(jnp.maximum(v, 1)), jnp.maximum(v, 0)
    ),
}


AREAS = {
    "superspike": 2 / 100,
    "fast_sigmoid": 2 / 25,
    "softsign": 1,
    "q_pseudo_spike": 1,
    "sigmoid": 1,
    "tanh": 2,
    "arctan": 1,
    "erf": 1,
    "gaussian": 1,
    "multi_gaussian": 1 - 0.15,
    "exponential": 1,
    "rectangle": 1,
    "hard_tanh": 2,
    "triangle": 0.3,
    "piecewise_linear": 0.1,
    "piecewise_quadratic": 1,
}
"""The integral over the line, where there is one."""

X = np.array([[0.6875, -1.59375, 0.1875], [2.40625, -0.3125, 0.90625]], np.float32)
"""Numbers of bfloat16 too, off the kinks of every rule."""

KEY = jax.random.key(3)


def softmax_of(temperature):
    return lambda x: jax.nn.softmax(x / temperature)


def held_scale(x):
    """`mean|w| * sign(w)` as a function that has the derivative of `binarize`."""
    held = jax.lax.stop_gradient
    sign = jnp.where(x >= 0, 1.0, -1.0).astype(x.dtype)
    size = jnp.mean(jnp.abs(x))
    return size * held(sign) + held(size) * jnp.clip(x, -1, 1)


def gumbel(x):
    noise = jax.random.gumbel(KEY, x.shape, x.dtype)
    return jax.nn.softmax((x + noise) / 0.5)


SURROGATES = {
    "straight_through": (rules.straight_through(jnp.sign, jnp.tanh), jnp.tanh),
    "round": (rules.round, lambda x: x),
    "floor": (rules.floor, lambda x: x),
    "ceil": (rules.ceil, lambda x: x),
    "sign": (rules.sign, lambda x: jnp.clip(x, -1, 1)),
    "step": (rules.step, lambda x: x),
    "clip": (lambda x: rules.clip(x, -1, 1), lambda x: x),
    "threshold": (lambda x: rules.threshold(x, 0.5), lambda x: x),
    "argmax_one_hot": (lambda x: rules.argmax_one_hot(x, temperature=0.5), softmax_of(0.5)),
    "top_k_mask": (lambda x: rules.top_k_mask(x, 2), lambda x: x),
    "gumbel_softmax": (lambda x: rules.gumbel_softmax(KEY, x, 0.5, hard=True), gumbel),
    "categorical": (lambda x: rules.categorical(KEY, x), softmax_of(1)),
    "bernoulli": (lambda x: rules.bernoulli(KEY, x), lambda x: x),
    "vector_quantize": (
        lambda x: rules.vector_quantize(x, jnp.eye(3, dtype=x.dtype)).values, lambda x: x,
    ),
    "fake_quantize": (
        lambda x: rules.fake_quantize(x, 0.25, bits=3), lambda x: jnp.clip(x, -1.125, 0.875),
    ),
    "fake_quantize_symmetric": (rules.fake_quantize_symmetric, lambda x: x),
    "fake_quantize_affine": (rules.fake_quantize_affine, lambda x: x),
    "lsq": (lambda x: rules.lsq(x, 0.5, bits=3), lambda x: jnp.clip(x, -2, 1.5)),
    "pact": (lambda x: rules.pact(x, 1.0, bits=4), lambda x: jnp.clip(x, 0, 1)),
    "dorefa_weights": (
        lambda w: rules.dorefa_weights(w, bits=2),
        lambda w: 2 * (jnp.tanh(w) / (2 * jnp.max(jnp.abs(jnp.tanh(w)))) + 0.5) - 1,
    ),
    "dorefa_activations": (
        lambda x: rules.dorefa_activations(x, bits=2), lambda x: jnp.clip(x, 0, 1),
    ),
    "binarize": (rules.binarize, held_scale),
}  # fmt: skip


def leafwise(transform):
    """What an optax transformation does to a gradient."""
    return lambda y_bar, x=None: transform.update(y_bar, transform.init(y_bar), x)[0]


MASK = np.array([[True, False, True], [False, True, True]])


def one_norm(limit):
    return leafwise(optax.clip_by_global_norm(limit))


def per_example(y_bar):
    sizes = np.sqrt((np.asarray(y_bar, np.float64) ** 2).sum(1, keepdims=True))
    return y_bar / np.maximum(1, sizes / 0.8)


def noisy(y_bar):
    return y_bar + 0.1 * jax.random.normal(jax.random.split(KEY, 1)[0], y_bar.shape, y_bar.dtype)


def with_z_loss(y_bar):
    # d/dx mean(log Z ** 2) = 2 log Z softmax / n, by hand
    x = np.asarray(X, np.float64)
    z = np.exp(x).sum(1, keepdims=True)
    return y_bar + 0.3 * 2 * np.log(z) * (np.exp(x) / z) / len(x)


def doubled_bits(y_bar):
    """Two bits hold -m, -m/3, m/3 and m."""
    size = np.abs(y_bar).max(1, keepdims=True)
    noise = jax.random.uniform(jax.random.split(KEY, 1)[0], y_bar.shape, y_bar.dtype, -0.5, 0.5)
    steps = np.clip(np.round(3 * (y_bar / (2 * size) + 0.5) + noise), 0, 3)
    return size * (2 * steps / 3 - 1)


COTANGENTS = {
    "scale": (lambda x: rules.scale(x, 0.3), lambda y_bar: 0.3 * y_bar),
    "reverse": (lambda x: rules.reverse(x, 2.0), lambda y_bar: -2 * y_bar),
    "stop": (rules.stop, lambda y_bar: 0 * y_bar),
    "mask": (lambda x: rules.mask(x, MASK), lambda y_bar: y_bar * MASK),
    "normalize": (rules.normalize, lambda y_bar: y_bar / jnp.sqrt(jnp.sum(y_bar**2))),
    "replace": (lambda x: rules.replace(x, jnp.tanh), jnp.tanh),
    "zero_nonfinite": (rules.zero_nonfinite, lambda y_bar: y_bar),
    "add_noise": (lambda x: rules.add_noise(x, KEY, 0.1), noisy),
    "penalize": (
        lambda x: rules.penalize(x, lambda x: jnp.sum(x**3), 0.5),
        lambda y_bar: y_bar + 1.5 * X.astype(float) ** 2,
    ),
    "z_loss": (lambda x: rules.z_loss(x, 0.3), with_z_loss),
    "clip_by_value": (
        lambda x: rules.clip_by_value(x, -0.5, 0.8), lambda y_bar: jnp.clip(y_bar, -0.5, 0.8),
    ),
    "clip_by_norm": (lambda x: rules.clip_by_norm(x, 1.5), one_norm(1.5)),
    "clip_by_global_norm": (lambda x: rules.clip_by_global_norm(x, 1.5), one_norm(1.5)),
    "clip_adaptive": (
        lambda x: rules.clip_adaptive(x, 0.1),
        lambda y_bar: leafwise(optax.adaptive_grad_clip(0.1))(y_bar, X),
    ),
    "clip_per_example": (lambda x: rules.clip_per_example(x, 0.8), per_example),
    "dorefa_gradients": (lambda x: rules.dorefa_gradients(x, KEY, bits=2), doubled_bits),
}  # fmt: skip

HOOKS = {"tap", "on_cotangent", "print_cotangent", "cotangent_norm"}
"""Tested in test_hooks.py."""
