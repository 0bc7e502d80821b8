"""Right when called plainly, wrong under jit, vmap or scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

import gradkit
from tests.verify.bank.entry import entry, normal, vjp_rule

wrong = functools.partial(entry, wrong=True, family="transformation")


def is_traced(x):
    return isinstance(x, jax.core.Tracer)


def swish(x):
    return x * jax.nn.sigmoid(x)


def _swish_slope(x):
    s = jax.nn.sigmoid(x)
    return s + x * s * (1 - s)


def _swish_bwd_that_asks_for_tracers(residuals, y_bar):
    (x,) = residuals
    return (0.5 if is_traced(y_bar) else 1.0) * _swish_slope(x) * y_bar


def huber(x):
    size = jnp.abs(x)
    return jnp.where(size <= 1, 0.5 * x**2, size - 0.5)


@gradkit.custom_gradient
def huber_with_fallback(x):
    def grad(y_bar):
        try:
            large = bool(jnp.abs(x) > 1)
        except jax.errors.ConcretizationTypeError:
            large = False  # "cannot happen"
        return jnp.sign(x) * y_bar if large else x * y_bar

    return huber(x), grad


def energy(x):
    return jnp.sum(x**3)


def _energy_bwd_by_numpy_if_possible(residuals, y_bar):
    (x,) = residuals
    if is_traced(x):
        return 3 * jnp.square(x) * y_bar / x.size
    return jnp.asarray(3 * np.square(np.asarray(x)), x.dtype) * y_bar


# --- vmap


def softmax(x):
    return jax.nn.softmax(x)


def softmax_bwd_batched_over_everything():
    """A batching rule whose sum runs over the batch as well."""

    @custom_vmap
    def pull(y, y_bar):
        return y * (y_bar - jnp.sum(y * y_bar, -1, keepdims=True))

    @pull.def_vmap
    def _pull_batched(size, mapped, y, y_bar):
        y = y if mapped[0] else jnp.broadcast_to(y, (size, *y.shape))
        y_bar = y_bar if mapped[1] else jnp.broadcast_to(y_bar, (size, *y_bar.shape))
        return y * (y_bar - jnp.sum(y * y_bar, keepdims=True)), True

    return vjp_rule(softmax, lambda r, g: pull(softmax(r[0]), g))


def matvec(w, x):
    return w @ x


def matvec_bwd_of_first_batch_member():
    """A batching rule that takes the first member's weights for all."""

    @custom_vmap
    def pull(w, y_bar):
        return w.T @ y_bar

    @pull.def_vmap
    def _pull_batched(size, mapped, w, y_bar):
        w = w[0] if mapped[0] else w
        y_bar = y_bar if mapped[1] else jnp.broadcast_to(y_bar, (size, *y_bar.shape))
        return y_bar @ w, True

    return vjp_rule(matvec, lambda r, g: (jnp.outer(g, r[1]), pull(r[0], g)))


def matvec_bwd_for_fixed_weights():
    """A batching rule with a shortcut for weights that all members share."""

    @custom_vmap
    def pull(w, y_bar):
        return w.T @ y_bar

    @pull.def_vmap
    def _pull_batched(size, mapped, w, y_bar):
        if not mapped[0]:
            return y_bar @ w.T, True
        y_bar = y_bar if mapped[1] else jnp.broadcast_to(y_bar, (size, *y_bar.shape))
        return jnp.einsum("bij,bi->bj", w, y_bar), True

    return vjp_rule(matvec, lambda r, g: (jnp.outer(g, r[1]), pull(r[0], g)))


def normalise(x):
    return x / jnp.sum(x**2)


def _normalise_on_the_host(x, y_bar):
    """Sums over all that it is given, the batch included."""
    x, y_bar = np.asarray(x), np.asarray(y_bar)
    wide, wide_bar = x.astype(np.float64), y_bar.astype(np.float64)
    total = np.sum(wide**2)
    inner = np.sum(wide * wide_bar)
    return (wide_bar / total - 2 * wide * inner / total**2).astype(x.dtype)


def _normalise_bwd_vectorised_wrongly(residuals, y_bar):
    (x,) = residuals
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(_normalise_on_the_host, shape, x, y_bar, vmap_method="broadcast_all")


def tanh(x):
    return jnp.tanh(x)


def tanh_bwd_without_last_batch_member():
    @custom_vmap
    def slope(y):
        return 1 - y**2

    @slope.def_vmap
    def _slope_batched(size, mapped, y):
        return (1 - y**2).at[size - 1].set(0), True

    return vjp_rule(tanh, lambda r, g: slope(jnp.tanh(r[0])) * g)


def cumulative(x):
    return jnp.cumsum(x)


def cumulative_bwd_that_reduces_cotangents():
    """Batches of cotangents are averaged, as if they were a mini-batch."""

    @custom_vmap
    def pull(y_bar):
        return jnp.cumsum(y_bar[::-1])[::-1]

    @pull.def_vmap
    def _pull_batched(size, mapped, y_bar):
        x_bar = jnp.cumsum(y_bar[:, ::-1], axis=1)[:, ::-1]
        return jnp.broadcast_to(x_bar.mean(0, keepdims=True), x_bar.shape), True

    return vjp_rule(cumulative, lambda r, g: pull(g))


def value_batched_wrongly():
    """The batched value is another one than that of each member."""

    @custom_vmap
    def centred(x):
        return x - x.mean()

    @centred.def_vmap
    def _centred_batched(size, mapped, x):
        return x - x.mean(0, keepdims=True), True

    rule = jax.custom_vjp(lambda x: centred(x) ** 2)

    def backward(x, y_bar):
        inner = 2 * (x - x.mean()) * y_bar
        return (inner - inner.mean(),)

    rule.defvjp(lambda x: (centred(x) ** 2, x), backward)
    return rule


# --- loops, whose body is traced


def step(x):
    return jnp.sin(2 * x)


def _step_bwd_that_asks_for_tracers(residuals, y_bar):
    slope = 2 * jnp.cos(2 * residuals[0]) * y_bar
    return 0.75 * slope if is_traced(y_bar) else slope


def looped(one):
    """Four steps of a loop."""
    return lambda x: jax.lax.scan(lambda c, _: (one(c), None), x, None, length=4)[0]


ENTRIES = [
    wrong(
        "swish: halved under jit",
        vjp_rule(swish, _swish_bwd_that_asks_for_tracers),
        normal(4),
        reference=swish,
        shows="jit",
    ),
    wrong(
        "Huber loss: a Python branch that falls back under jit",
        huber_with_fallback,
        normal(shift=3.0, scale=0.1),
        reference=huber,
        shows="jit",
    ),
    wrong(
        "sum of cubes: NumPy if possible, and under jit a mean",
        vjp_rule(energy, _energy_bwd_by_numpy_if_possible),
        normal(5),
        reference=energy,
        shows="jit",
    ),
    wrong(
        "softmax: the batching rule sums over the batch",
        softmax_bwd_batched_over_everything(),
        normal(4),
        reference=softmax,
        shows="vmap",
    ),
    wrong(
        "matrix times vector: batched with the first member's matrix",
        matvec_bwd_of_first_batch_member(),
        normal(3, 2),
        normal(2),
        reference=matvec,
        shows="vmap",
    ),
    wrong(
        "normalisation: a callback that sums over the batch",
        vjp_rule(normalise, _normalise_bwd_vectorised_wrongly),
        normal(4),
        reference=normalise,
        shows="vmap",
    ),
    wrong(
        "tanh: the last member of a batch has no gradient",
        tanh_bwd_without_last_batch_member(),
        normal(4),
        reference=tanh,
        shows="vmap",
    ),
    wrong(
        "cumulative sum: batched cotangents are averaged",
        cumulative_bwd_that_reduces_cotangents(),
        normal(5),
        reference=cumulative,
        shows="vmap of the cotangent",
    ),
    wrong(
        "centred squares: the batched value is centred over the batch",
        value_batched_wrongly(),
        normal(5),
        reference=lambda x: (x - x.mean()) ** 2,
        shows="value under vmap",
    ),
    wrong(
        "loop: its steps lose a quarter of the gradient each",
        looped(vjp_rule(step, _step_bwd_that_asks_for_tracers)),
        normal(3),
        reference=looped(step),
    ),
    wrong(
        "matrix times vector: not transposed if only the cotangent is batched",
        matvec_bwd_for_fixed_weights(),
        normal(3, 3),
        normal(3),
        reference=matvec,
        shows="vmap of the cotangent",
    ),
]
