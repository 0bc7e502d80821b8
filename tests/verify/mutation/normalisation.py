"""Right gradients of norms, moments and normalisations."""

import jax.numpy as jnp
import numpy as np

from tests.verify.mutation.rule import Rule, normal, positive


def softmax(x):
    e = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
    return e / jnp.sum(e, axis=-1, keepdims=True)


def softmax_fwd(x):
    y = softmax(x)
    return y, (y,)


def softmax_bwd(residuals, y_bar):
    (y,) = residuals
    return (y * (y_bar - jnp.sum(y * y_bar, axis=-1, keepdims=True)),)


def log_softmax(x):
    return x - logsumexp(x)[:, None]


def log_softmax_fwd(x):
    y = log_softmax(x)
    return y, (y,)


def log_softmax_bwd(residuals, y_bar):
    (y,) = residuals
    return (y_bar - jnp.exp(y) * y_bar.sum(axis=-1, keepdims=True),)


def logsumexp(x):
    m = jnp.max(x, axis=-1, keepdims=True)
    return jnp.log(jnp.sum(jnp.exp(x - m), axis=-1)) + m[:, 0]


def logsumexp_fwd(x):
    y = logsumexp(x)
    return y, (x, y)


def logsumexp_bwd(residuals, y_bar):
    x, y = residuals
    return (jnp.exp(x - y[:, None]) * y_bar[:, None],)


def layer_norm(x, scale, shift):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + 1e-3) * scale[None, :] + shift[None, :]


def layer_norm_fwd(x, scale, shift):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse = 1 / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-3)
    return layer_norm(x, scale, shift), (centred * inverse, inverse, scale)


def layer_norm_bwd(residuals, y_bar):
    z, inverse, scale = residuals
    z_bar = y_bar * scale[None, :]
    mean = jnp.mean(z_bar, axis=-1, keepdims=True)
    along = z * jnp.mean(z_bar * z, axis=-1, keepdims=True)
    x_bar = inverse * (z_bar - mean - along)
    return x_bar, jnp.sum(y_bar * z, axis=0), jnp.sum(y_bar, axis=0)


def rms_norm(x, scale):
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-3) * scale[None, :]


def rms_norm_fwd(x, scale):
    inverse = 1 / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-3)
    return rms_norm(x, scale), (x, inverse, scale)


def rms_norm_bwd(residuals, y_bar):
    x, inverse, scale = residuals
    z_bar = y_bar * scale[None, :]
    shared = inverse**3 * jnp.mean(z_bar * x, axis=-1, keepdims=True)
    return z_bar * inverse - x * shared, jnp.sum(y_bar * x * inverse, axis=0)


def batch_moments(x):
    return jnp.mean(x, axis=0), jnp.var(x, axis=0)


def batch_moments_fwd(x):
    mean, variance = batch_moments(x)
    return (mean, variance), (x, mean)


def batch_moments_bwd(residuals, y_bar):
    x, mean = residuals
    mean_bar, variance_bar = y_bar
    n = x.shape[0]
    spread = 2 * (x - mean[None, :]) * variance_bar[None, :]
    return ((mean_bar[None, :] + spread) / n,)


def standardise(x):
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    return centred / jnp.std(centred, axis=0, keepdims=True)


def standardise_fwd(x):
    y = standardise(x)
    return y, (y, jnp.std(x, axis=0, keepdims=True))


def standardise_bwd(residuals, y_bar):
    y, deviation = residuals
    mean = y_bar.mean(axis=0, keepdims=True)
    along = y * (y * y_bar).mean(axis=0, keepdims=True)
    return ((y_bar - mean - along) / deviation,)


def l2_norm(x):
    square = jnp.sum(x * x, axis=-1)
    return jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))


def l2_norm_fwd(x):
    y = l2_norm(x)
    return y, (x, y)


def l2_norm_bwd(residuals, y_bar):
    x, y = residuals
    safe = jnp.where(y == 0, 1.0, y)
    return (x * (y_bar / safe)[:, None],)


def unit_vector(x):
    return x / jnp.sqrt(jnp.sum(x * x))


def unit_vector_fwd(x):
    y = unit_vector(x)
    return y, (y, jnp.sqrt(jnp.sum(x * x)))


def unit_vector_bwd(residuals, y_bar):
    y, norm = residuals
    return ((y_bar - y * jnp.vdot(y, y_bar)) / norm,)


def weight_norm(v, gain):
    return gain[:, None] * v / jnp.sqrt(jnp.sum(v * v, axis=1, keepdims=True))


def weight_norm_fwd(v, gain):
    norm = jnp.sqrt(jnp.sum(v * v, axis=1, keepdims=True))
    return weight_norm(v, gain), (v / norm, norm, gain)


def weight_norm_bwd(residuals, y_bar):
    unit, norm, gain = residuals
    gain_bar = jnp.sum(y_bar * unit, axis=1)
    v_bar = gain[:, None] / norm * (y_bar - unit * gain_bar[:, None])
    return v_bar, gain_bar


def clip_by_norm(x, radius):
    norm = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return jnp.where(norm > radius, x * radius / norm, x)


def clip_by_norm_fwd(x, radius):
    return clip_by_norm(x, radius), (x, radius)


def clip_by_norm_bwd(residuals, y_bar):
    x, radius = residuals
    norm = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    unit = x / norm
    along = jnp.sum(unit * y_bar, axis=1, keepdims=True)
    outside = radius / norm * (y_bar - unit * along)
    is_outside = norm > radius
    x_bar = jnp.where(is_outside, outside, y_bar)
    return x_bar, jnp.sum(jnp.where(is_outside, along, 0.0))


_ZERO_ROW = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], np.float32)
_LONG_AND_SHORT = np.array([[1.0, -2.0, 0.5], [0.4, 0.3, -0.6]], np.float32)

RULES = (
    Rule(softmax, softmax_fwd, softmax_bwd, (normal(2, 4),)),
    Rule(log_softmax, log_softmax_fwd, log_softmax_bwd, (normal(3, 4),)),
    Rule(logsumexp, logsumexp_fwd, logsumexp_bwd, (normal(3, 4),)),
    Rule(layer_norm, layer_norm_fwd, layer_norm_bwd, (normal(3, 4), normal(4), normal(4))),
    Rule(rms_norm, rms_norm_fwd, rms_norm_bwd, (normal(3, 4), normal(4))),
    Rule(batch_moments, batch_moments_fwd, batch_moments_bwd, (normal(5, 3),)),
    Rule(standardise, standardise_fwd, standardise_bwd, (normal(5, 2),)),
    Rule(l2_norm, l2_norm_fwd, l2_norm_bwd, (normal(2, 3),), at=(_ZERO_ROW,)),
    Rule(unit_vector, unit_vector_fwd, unit_vector_bwd, (normal(4),)),
    Rule(weight_norm, weight_norm_fwd, weight_norm_bwd, (normal(2, 3), normal(2))),
    Rule(
        clip_by_norm,
        clip_by_norm_fwd,
        clip_by_norm_bwd,
        (normal(2, 3), positive()),
        at=(_LONG_AND_SHORT, np.float32(1.25)),
    ),
)
