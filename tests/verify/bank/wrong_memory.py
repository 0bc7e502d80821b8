"""Rules whose answer depends on more than their arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.bank.entry import FINE, Anew, entry, normal, values, vjp_rule

wrong = functools.partial(entry, wrong=True, family="memory or noise")


def _cubed(x):
    return x**3


def _slope(x):
    return 3 * x**2


def make_noisy():
    """Noise from NumPy, drawn where the rule is traced."""
    rng = np.random.default_rng(0)
    return vjp_rule(
        jnp.tanh,
        lambda r, g: (1 - jnp.tanh(r[0]) ** 2) * g * (1 + 1e-2 * float(rng.standard_normal())),
    )


def make_noisy_on_the_host():
    """Noise that a callback draws each time it runs, under jit as well."""
    rng = np.random.default_rng(1)

    def disturb(x_bar):
        noise = rng.standard_normal(x_bar.shape).astype(x_bar.dtype)
        return (x_bar * (1 + np.asarray(0.01, x_bar.dtype) * noise)).astype(x_bar.dtype)

    def backward(residuals, y_bar):
        (x,) = residuals
        x_bar = _slope(x) * y_bar
        shape = jax.ShapeDtypeStruct(x_bar.shape, x_bar.dtype)
        return jax.pure_callback(disturb, shape, x_bar, vmap_method="sequential")

    return vjp_rule(_cubed, backward)


def make_right_once():
    """A warm-up counter: from the second backward pass on, half the gradient."""
    passes = []

    def backward(residuals, y_bar):
        passes.append(None)
        return _slope(residuals[0]) * y_bar * (1.0 if len(passes) == 1 else 0.5)

    return vjp_rule(_cubed, backward)


def _is_concrete(x):
    return not isinstance(x, jax.core.Tracer)


def _on_the_host(numpy_function, x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(numpy_function, shape, x, vmap_method="sequential")


def make_stale():
    """Slopes cached by shape, so that the first point's are used for ever."""
    kept = {}

    def slope_of(x):
        return kept.setdefault(x.shape, 3 * np.asarray(x, np.float64) ** 2).astype(x.dtype)

    return vjp_rule(_cubed, lambda r, g: _on_the_host(slope_of, r[0]) * g)


def make_coarse_cache():
    """A host cache keyed by the rounded sum of the input: near points share a gradient."""
    kept = {}

    def slope_of(x):
        key = round(float(np.sum(np.asarray(x, np.float64))))
        return kept.setdefault(key, np.asarray(3 * np.asarray(x, np.float64) ** 2)).astype(x.dtype)

    return vjp_rule(_cubed, lambda r, g: _on_the_host(slope_of, r[0]) * g)


def make_one_behind():
    """The host hands back the slope of the call before."""
    last = []

    def slope_of(x):
        slope = np.asarray(3 * np.asarray(x, np.float64) ** 2)
        last.append(slope)
        return last[-2 if len(last) > 1 else -1].astype(x.dtype)

    return vjp_rule(_cubed, lambda r, g: _on_the_host(slope_of, r[0]) * g)


def make_momentum():
    """A running mean of cotangents, started at the first."""
    mean = []

    def smooth(x_bar):
        wide = np.asarray(x_bar, np.float64)
        mean[:] = [wide if not mean else 0.5 * mean[0] + 0.5 * wide]
        return mean[0].astype(x_bar.dtype)

    return vjp_rule(_cubed, lambda r, g: _on_the_host(smooth, _slope(r[0]) * g))


def make_accumulating():
    """Gradients add up, as in a framework whose buffers nobody has zeroed."""
    total = [0.0]

    def add(x_bar):
        total[0] = total[0] + np.asarray(x_bar, np.float64)
        return np.asarray(total[0]).astype(x_bar.dtype)

    return vjp_rule(_cubed, lambda r, g: _on_the_host(add, _slope(r[0]) * g))


def make_alternating():
    """Fresh coordinates are dropped at each backward pass, in turn."""
    passes = []

    def backward(residuals, y_bar):
        passes.append(None)
        keep = jnp.arange(y_bar.size) % 2 == len(passes) % 2
        return jnp.where(keep, _slope(residuals[0]) * y_bar, 0)

    return vjp_rule(_cubed, backward)


def _mask(key, shape):
    """The same in float32 and in float64, unlike for a probability of no fixed dtype."""
    return jax.random.bernoulli(key, jnp.float32(0.5), shape)


def _dropout(x, key):
    return jnp.where(_mask(key, x.shape), 2 * x, 0)


def _dropout_bwd_of_another_mask(residuals, y_bar):
    x, key = residuals
    another = jax.random.fold_in(key, 1)
    return jnp.where(_mask(another, x.shape), 2 * y_bar, 0), None


def _dropout_gradient_of_key_zero(residuals, y_bar):
    x, _ = residuals
    return _dropout(y_bar, jax.random.key(0)).astype(x.dtype), None


def make_last_forward():
    """The forward pass leaves its input in a variable; a second forward pass overwrites it."""
    box = []

    def forward(x):
        box[:] = [x]
        return _cubed(x), x

    def backward(x, y_bar):
        kept = box[0] if _is_concrete(box[0]) and box[0].shape == x.shape else x
        return _slope(kept.astype(x.dtype)) * y_bar

    return lambda x: _compose(vjp_rule(_cubed, backward, forward), x)


def _compose(cubed, x):
    return cubed(x) + cubed(2 * x)


ENTRIES = [
    wrong(
        "tanh: fresh NumPy noise at each call of the rule",
        Anew(make_noisy),
        normal(4),
        reference=jnp.tanh,
        shows="repeat",
        dtypes=FINE,
    ),
    wrong(
        "cube: noise from a host callback",
        Anew(make_noisy_on_the_host),
        normal(4),
        reference=_cubed,
        shows="repeat",
        dtypes=FINE,
    ),
    wrong(
        "cube: right at the first backward pass only",
        Anew(make_right_once),
        normal(3),
        reference=_cubed,
        shows="history",
    ),
    wrong(
        "cube: the slopes of the first point are used for ever",
        Anew(make_stale),
        normal(3),
        reference=_cubed,
        where=(normal(3, shift=1.0),),
        shows="history",
    ),
    wrong(
        "cube: points with the same rounded sum share a cached gradient",
        Anew(make_coarse_cache),
        values([0.5, -1.0, 2.0]),
        reference=_cubed,
        where=(values([2.0, 0.5, -1.0]),),
        shows="history",
    ),
    wrong(
        "cube: the gradient of the call before",
        Anew(make_one_behind),
        normal(3),
        reference=_cubed,
        where=(normal(3, shift=1.0),),
        shows="history",
    ),
    wrong(
        "cube: a running mean of gradients",
        Anew(make_momentum),
        normal(3),
        reference=_cubed,
        where=(normal(3, shift=1.0),),
        shows="history",
    ),
    wrong(
        "cube: gradients add up from call to call",
        Anew(make_accumulating),
        normal(3),
        reference=_cubed,
        shows="repeat",
    ),
    wrong(
        "cube: even and odd coordinates in turn",
        Anew(make_alternating),
        normal(5),
        reference=_cubed,
        shows="repeat",
    ),
    wrong(
        "cube: a second forward pass overwrites what the first has kept",
        Anew(make_last_forward),
        normal(3),
        reference=functools.partial(_compose, _cubed),
    ),
    wrong(
        "dropout: another mask in the backward pass",
        vjp_rule(_dropout, _dropout_bwd_of_another_mask),
        normal(16),
        jax.random.key(5),
        reference=_dropout,
    ),
    wrong(
        "dropout: the mask of key 0 whatever the key",
        vjp_rule(_dropout, _dropout_gradient_of_key_zero),
        normal(16),
        jax.random.key(0),
        reference=_dropout,
        where=(normal(16), jax.random.key(1)),
    ),
]
