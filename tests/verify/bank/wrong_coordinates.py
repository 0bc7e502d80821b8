"""One wrong number among many right ones: a coordinate, a leaf, an output."""

import functools

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import FINE, entry, normal, registered, uniform, values, vjp_rule

coordinate = functools.partial(entry, wrong=True, family="one coordinate")
leaf = functools.partial(entry, wrong=True, family="small leaf or output")


def exact_sine(x, y_bar):
    return jnp.cos(x) * y_bar


def _sum_of_cubes_bwd_with_neighbours_exchanged(residuals, y_bar):
    x_bar = 3 * residuals[0] ** 2 * y_bar
    return x_bar.at[1200].set(x_bar[1201]).at[1201].set(x_bar[1200])


def gram(x):
    return x @ x.T


def _gram_bwd_counting_the_diagonal_once(residuals, y_bar):
    (x,) = residuals
    symmetric = y_bar + y_bar.T
    return (symmetric - jnp.diag(jnp.diag(y_bar))) @ x


def total_variation(x):
    return jnp.sum(jnp.sqrt((x[1:] - x[:-1]) ** 2 + 0.01))


def _total_variation_bwd_without_last(residuals, y_bar):
    (x,) = residuals
    d = x[1:] - x[:-1]
    slope = d / jnp.sqrt(d**2 + 0.01) * y_bar
    x_bar = jnp.zeros_like(x).at[1:].add(slope).at[:-1].add(-slope)
    return x_bar.at[-1].set(0)


def trapezoid(y):
    return jnp.sum(y) - 0.5 * (y[0] + y[-1])


def smooth(x):
    """Three-point mean; beyond the ends there is nothing."""
    padded = jnp.pad(x, 1)
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _smooth_bwd_of_periodic(residuals, y_bar):
    return (jnp.roll(y_bar, 1) + y_bar + jnp.roll(y_bar, -1)) / 3


def embed(table, ids):
    return table[ids]


@gradkit.custom_gradient
def embed_overwriting_repeats(table, ids):
    def grad(y_bar):
        return jnp.zeros_like(table).at[ids].set(y_bar), None

    return table[ids], grad


@gradkit.custom_gradient
def embed_with_padding_row(table, ids):
    """Row 0 counts as padding, whatever the ids say."""

    def grad(y_bar):
        return jnp.zeros_like(table).at[ids].add(y_bar).at[0].set(0), None

    return table[ids], grad


def cholesky(a):
    return jnp.linalg.cholesky(0.5 * (a + a.T))


def _cholesky_bwd_of_full_diagonal(residuals, y_bar):
    (a,) = residuals
    root = cholesky(a)
    inner = jnp.tril(root.T @ y_bar)  # its diagonal should be halved
    inverse = jnp.linalg.inv(root)
    a_bar = inverse.T @ inner @ inverse
    return 0.5 * (a_bar + a_bar.T)


def matvec(w, x):
    return jnp.tanh(w @ x)


def _matvec_bwd_of_wrong_row(residuals, y_bar):
    w, x = residuals
    inner = (1 - matvec(w, x) ** 2) * y_bar
    return jnp.outer(inner, x).at[17].multiply(-1), w.T @ inner


def cross_entropy(logits, label):
    return -jax.nn.log_softmax(logits)[label]


def _cross_entropy_bwd_skipping_class_zero(residuals, y_bar):
    logits, label = residuals
    probabilities = jax.nn.softmax(logits).at[label].add(-1)
    return (probabilities * y_bar).at[0].set(0), None


def prefix_sums(x):
    return jnp.cumsum(x)


def scatter(x, base):
    """Adds x to the even places of a longer vector."""
    return base.at[: 2 * x.size : 2].add(x)


# --- small leaves and small outputs


def affine(params, x):
    return params["large"] * x + params["small"] * jnp.sin(x)


def _affine_bwd_with_small_leaf_halved(residuals, y_bar):
    params, x = residuals
    large, small = params["large"], params["small"]
    x_bar = (large + small * jnp.cos(x)) * y_bar
    return {"large": jnp.sum(x * y_bar), "small": 0.5 * jnp.sum(jnp.sin(x) * y_bar)}, x_bar


def big_and_tiny(x, tiny):
    return jnp.sum(1e4 * x**2) + 1e-3 * jnp.sum(jnp.sin(tiny))


def _big_and_tiny_gradient(op, y_bar):
    x, tiny = op.inputs
    return 2e4 * x * y_bar, -1e-3 * jnp.cos(tiny) * y_bar


def loss_and_auxiliary(logits):
    """The loss, and a tiny penalty beside it."""
    return {"loss": 1e3 * jnp.sum(logits**2), "penalty": 1e-4 * jax.nn.logsumexp(logits) ** 2}


def _loss_bwd_with_linear_penalty(residuals, y_bar):
    (logits,) = residuals
    penalty = 1e-4 * jax.nn.logsumexp(logits) * jax.nn.softmax(logits)
    return 2e3 * logits * y_bar["loss"] + penalty * y_bar["penalty"]


def statistics(x):
    return jnp.mean(x), jnp.var(x), jnp.max(x)


def _statistics_bwd_with_minimum(residuals, y_bar):
    (x,) = residuals
    mean_bar, var_bar, max_bar = y_bar
    at = (jnp.arange(x.size) == jnp.argmin(x)).astype(x.dtype)
    return mean_bar / x.size + 2 * (x - x.mean()) / x.size * var_bar + at * max_bar


def network(params, x):
    hidden = jnp.tanh(x @ params["w"] + params["b"][None, :])
    return jnp.sum(hidden @ params["out"], axis=0)


def _network_bwd_with_bias_of_one_example(residuals, y_bar):
    params, x = residuals
    _, pull = jax.vjp(network, params, x)
    params_bar, x_bar = pull(y_bar)
    hidden = jnp.tanh(x[:1] @ params["w"] + params["b"][None, :])
    bias_bar = ((1 - hidden**2) * (params["out"] @ y_bar)[None, :]).sum(0)
    return {**params_bar, "b": bias_bar}, x_bar


def solve_and_residual(d, b):
    x = b / d
    return x, 1e-5 * jnp.sum((d * x - 2 * b) ** 2)


def _solve_and_residual_bwd(residuals, y_bar):
    d, b = residuals
    x_bar, rest_bar = y_bar
    inner = x_bar / d
    # The small output is |b|^2 / 1e5; its share of the cotangent is lost.
    return -inner * b / d, inner + 0 * rest_bar


ENTRIES = [
    coordinate(
        "sine of 10,000 inputs: the last has no gradient",
        vjp_rule(jnp.sin, lambda r, g: exact_sine(r[0], g).at[-1].set(0)),
        normal(10_000),
        reference=jnp.sin,
    ),
    coordinate(
        "sine of 10,000 inputs: number 6,173 counts twice",
        vjp_rule(jnp.sin, lambda r, g: exact_sine(r[0], g).at[6173].multiply(2)),
        normal(10_000),
        reference=jnp.sin,
    ),
    coordinate(
        "sum of cubes of 4,000 inputs: two neighbours are exchanged",
        vjp_rule(
            lambda x: jnp.sum(x**3),
            _sum_of_cubes_bwd_with_neighbours_exchanged,
        ),
        normal(4_000),
        reference=lambda x: jnp.sum(x**3),
        dtypes=FINE,
    ),
    coordinate(
        "Gram matrix: its diagonal is counted once",
        vjp_rule(gram, _gram_bwd_counting_the_diagonal_once),
        normal(12, 3),
        reference=gram,
    ),
    coordinate(
        "total variation: the last point has no gradient",
        vjp_rule(total_variation, _total_variation_bwd_without_last),
        normal(512),
        reference=total_variation,
    ),
    coordinate(
        "trapezoid rule: its ends are weighted in full",
        vjp_rule(trapezoid, lambda r, g: jnp.full_like(r[0], 1) * g),
        normal(300),
        reference=trapezoid,
    ),
    coordinate(
        "smoothing: periodic at the ends in the backward pass",
        vjp_rule(smooth, _smooth_bwd_of_periodic),
        normal(200),
        reference=smooth,
    ),
    coordinate(
        "embedding: repeated ids overwrite each other",
        embed_overwriting_repeats,
        normal(50, 4),
        jnp.array([3, 17, 3, 49, 20]),
        reference=embed,
    ),
    coordinate(
        "embedding: row 0 is padding by mistake",
        embed_with_padding_row,
        normal(300, 4),
        jnp.array([5, 0, 299, 17, 17, 60]),
        reference=embed,
    ),
    coordinate(
        "Cholesky: the diagonal is not halved",
        vjp_rule(cholesky, _cholesky_bwd_of_full_diagonal),
        values([[2.0, 0.3, 0.1], [0.3, 1.5, -0.4], [0.1, -0.4, 1.0]]),
        reference=cholesky,
        dtypes=FINE,
    ),
    coordinate(
        "dense layer of 64 x 32: row 17 has the wrong sign",
        vjp_rule(matvec, _matvec_bwd_of_wrong_row),
        normal(64, 32, scale=0.2),
        normal(32),
        reference=matvec,
    ),
    coordinate(
        "cross entropy of 1,000 classes: class 0 has no gradient",
        vjp_rule(cross_entropy, _cross_entropy_bwd_skipping_class_zero),
        normal(1_000),
        7,
        reference=cross_entropy,
        dtypes=FINE,
    ),
    coordinate(
        "cumulative sum: off by one at the end",
        vjp_rule(prefix_sums, lambda r, g: jnp.cumsum(g[::-1])[::-1].at[-1].set(0)),
        normal(100),
        reference=prefix_sums,
    ),
    coordinate(
        "scatter: the cotangent of the base is cleared at one place",
        vjp_rule(scatter, lambda r, g: (g[: 2 * r[0].size : 2], g.at[2 * r[0].size - 1].set(0))),
        normal(40),
        normal(90),
        reference=scatter,
    ),
    leaf(
        "two parameters: the one of a thousandth is halved",
        vjp_rule(affine, _affine_bwd_with_small_leaf_halved),
        {"large": values(1000.0), "small": values(1e-3)},
        normal(5),
        reference=affine,
    ),
    leaf(
        "two arguments: the gradient of the one that hardly matters has the wrong sign",
        registered("BankBigAndTiny", big_and_tiny, _big_and_tiny_gradient),
        normal(50),
        normal(2),
        reference=big_and_tiny,
    ),
    leaf(
        "loss and tiny penalty: the penalty's 2 is missing",
        vjp_rule(loss_and_auxiliary, _loss_bwd_with_linear_penalty),
        normal(5),
        reference=loss_and_auxiliary,
    ),
    leaf(
        "mean, variance, maximum: the maximum's gradient goes to the minimum",
        vjp_rule(statistics, _statistics_bwd_with_minimum),
        normal(7),
        reference=statistics,
    ),
    leaf(
        "network: the bias gets the gradient of the first example only",
        vjp_rule(network, _network_bwd_with_bias_of_one_example),
        {"w": normal(6, 5), "b": normal(5), "out": normal(5, 2, scale=10.0)},
        normal(8, 6, scale=10.0),
        reference=network,
        dtypes=FINE,
    ),
    leaf(
        "solution and small residual: the residual's share is lost",
        vjp_rule(solve_and_residual, _solve_and_residual_bwd),
        uniform(4, low=1.0, high=2.0),
        normal(4),
        reference=solve_and_residual,
    ),
]
