"""Losses, normalisations, attention and activations as people use them."""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

import gradkit
from tests.verify.bank.entry import FINE, entry, normal, registered, uniform, values, vjp_rule

loss = functools.partial(entry, wrong=False, family="losses and layers")
masked = functools.partial(entry, wrong=False, family="masks and extreme logits")

MASK = jnp.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], bool)


def attention(q, k, v, mask):
    scores = q @ k.T / math.sqrt(q.shape[1])
    return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf)) @ v


@gradkit.custom_gradient
def attention_by_rule(q, k, v, mask):
    scale = 1 / math.sqrt(q.shape[1])
    weights = jax.nn.softmax(jnp.where(mask, q @ k.T * scale, -jnp.inf))

    def grad(y_bar):
        weights_bar = y_bar @ v.T
        inner = jnp.sum(weights * weights_bar, axis=1, keepdims=True)
        scores_bar = weights * (weights_bar - inner) * scale
        return scores_bar @ k, scores_bar.T @ q, weights.T @ y_bar, None

    return weights @ v, grad


def attention_with_large_negative(q, k, v, mask):
    scores = q @ k.T / math.sqrt(q.shape[1]) + jnp.where(mask, 0, -1e9).astype(q.dtype)
    return jax.nn.softmax(scores) @ v


def layer_norm(x, gain, bias):
    centred = x - x.mean(-1, keepdims=True)
    y = centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
    return y * gain[None, :] + bias[None, :]


@gradkit.custom_gradient
def layer_norm_by_rule(x, gain, bias):
    centred = x - x.mean(-1, keepdims=True)
    rstd = lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
    z = centred * rstd

    def grad(y_bar):
        z_bar = y_bar * gain[None, :]
        mean = z_bar.mean(-1, keepdims=True)
        x_bar = rstd * (z_bar - mean - z * jnp.mean(z_bar * z, -1, keepdims=True))
        return x_bar, (y_bar * z).sum(0), y_bar.sum(0)

    return z * gain[None, :] + bias[None, :], grad


def rms_norm(x):
    return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)


def batch_norm(x):
    return (x - x.mean(0, keepdims=True)) * lax.rsqrt(x.var(0, keepdims=True) + 1e-3)


def cross_entropy(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def _cross_entropy_bwd(residuals, y_bar):
    logits, labels = residuals
    one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return (jax.nn.softmax(logits) - one_hot) * y_bar / logits.shape[0], None


def focal_loss(logits, labels):
    signs = jnp.where(labels == 1, 1, -1).astype(logits.dtype)
    p = jax.nn.sigmoid(signs * logits)
    return jnp.mean(-((1 - p) ** 2) * jax.nn.log_sigmoid(signs * logits))


def info_nce(x, y):
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    y = y / jnp.linalg.norm(y, axis=1, keepdims=True)
    scores = x @ y.T / 0.5
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(scores)))


def convolution(image, kernel):
    return lax.conv_general_dilated(image, kernel, (2, 2), "SAME")


def convolution_with_dilation(signal, kernel):
    return lax.conv_general_dilated(signal, kernel, (1,), [(2, 2)], rhs_dilation=(2,))


def average_pool(x):
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def gathered_scores(x, ids):
    return jnp.zeros(5, x.dtype).at[ids].add(jnp.tanh(x))


def rotary(x):
    positions = jnp.arange(x.shape[0]).astype(x.dtype)[:, None]
    frequencies = (0.1 ** jnp.arange(x.shape[1] // 2)).astype(x.dtype)[None, :]
    angle = positions * frequencies
    a, b = x[:, ::2], x[:, 1::2]
    return jnp.concatenate(
        [a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)], axis=1
    )


def bilinear_sample(image, point):
    low = jnp.floor(lax.stop_gradient(point)).astype(int)
    (i, j), (s, t) = low, point - low
    rows = image[i] * (1 - s) + image[i + 1] * s
    return rows[j] * (1 - t) + rows[j + 1] * t


def dice_loss(p, target):
    return 1 - (2 * jnp.sum(p * target) + 1) / (jnp.sum(p) + jnp.sum(target) + 1)


ENTRIES = [
    loss("layer norm", layer_norm, normal(3, 5), normal(5), normal(5)),
    loss(
        "layer norm by a rule",
        layer_norm_by_rule,
        normal(3, 5),
        normal(5),
        normal(5),
        reference=layer_norm,
    ),
    loss(
        "layer norm of constant rows: the epsilon decides",
        layer_norm,
        values([[2.0, 2.0, 2.0]] * 2),
        normal(3),
        normal(3),
        dtypes=FINE,
    ),
    loss("RMS norm near zero", rms_norm, normal(2, 4, scale=1e-3), dtypes=FINE),
    loss("batch norm of two examples", batch_norm, normal(2, 3)),
    loss(
        "cross entropy by a rule",
        vjp_rule(cross_entropy, _cross_entropy_bwd),
        normal(4, 5),
        jnp.array([0, 4, 2, 2]),
        reference=cross_entropy,
    ),
    loss("focal loss", focal_loss, normal(6), jnp.array([1, 0, 0, 1, 1, 0])),
    loss("contrastive loss of unit vectors", info_nce, normal(4, 3), normal(4, 3)),
    loss(
        "convolution with stride and padding", convolution, normal(1, 2, 5, 5), normal(3, 2, 3, 3)
    ),
    loss(
        "dilated convolution in one dimension",
        convolution_with_dilation,
        normal(1, 2, 9),
        normal(2, 2, 3),
    ),
    loss("average pooling", average_pool, normal(1, 4, 4, 2)),
    loss("scatter with repeated ids", gathered_scores, normal(6), jnp.array([0, 2, 2, 4, 0, 2])),
    loss("rotary embedding", rotary, normal(4, 6)),
    loss(
        "bilinear sampling of an image, by its point",
        bilinear_sample,
        normal(5, 5),
        values([1.3, 2.6]),
    ),
    loss("Dice loss", dice_loss, uniform(6), jnp.array([1, 0, 1, 1, 0, 0])),
    loss(
        "optax: cross entropy with integer labels",
        lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, y),
        normal(3, 4),
        jnp.array([0, 3, 1]),
    ),
    loss(
        "optax: sigmoid cross entropy",
        lambda x, y: optax.sigmoid_binary_cross_entropy(x, y).mean(),
        normal(5),
        uniform(5),
    ),
    loss(
        "optax: Huber loss",
        lambda x, y: optax.huber_loss(x, y).sum(),
        normal(5, scale=2.0),
        normal(5),
    ),
    loss(
        "optax: cosine distance",
        lambda x, y: optax.cosine_distance(x, y, epsilon=1e-6),
        normal(2, 4),
        normal(2, 4),
    ),
    loss(
        "optax: KL divergence",
        lambda x, y: optax.kl_divergence(jax.nn.log_softmax(x), y).sum(),
        normal(4),
        uniform(4, low=0.1),
    ),
    loss("optax: log-cosh", lambda x, y: optax.log_cosh(x, y), normal(4), normal(4)),
    loss(
        "optax: CTC loss",
        lambda x: optax.ctc_loss(
            x, jnp.zeros((2, 5)), jnp.array([[1, 2], [2, 0]]), jnp.array([[0.0, 0.0], [0.0, 1.0]])
        ).mean(),
        normal(2, 5, 4),
        dtypes=FINE,
        accuracy=1e-2,
    ),
    loss(
        "gelu, exact and approximate",
        lambda x: (jax.nn.gelu(x, approximate=False), jax.nn.gelu(x)),
        normal(4),
    ),
    loss(
        "activations of jax.nn",
        lambda x: [
            f(x)
            for f in (
                jax.nn.silu,
                jax.nn.mish,
                jax.nn.selu,
                jax.nn.celu,
                jax.nn.softplus,
                jax.nn.log_sigmoid,
                jax.nn.soft_sign,
            )
        ],
        normal(4),
    ),
    loss(
        "dot_product_attention of jax.nn",
        lambda q, k, v: jax.nn.dot_product_attention(q, k, v),
        normal(1, 3, 2, 4),
        normal(1, 5, 2, 4),
        normal(1, 5, 2, 4),
        accuracy=1e-2,
    ),
    loss(
        "glu and standardize of jax.nn", lambda x: jax.nn.standardize(jax.nn.glu(x)), normal(3, 6)
    ),
    loss(
        "squared relu, registered",
        registered(
            "BankSquaredRelu",
            lambda x: jax.nn.relu(x) ** 2,
            lambda op, g: 2 * jax.nn.relu(op.inputs[0]) * g,
        ),
        normal(5),
        reference=lambda x: jax.nn.relu(x) ** 2,
    ),
    masked("attention masked by -inf", attention, normal(3, 4), normal(4, 4), normal(4, 2), MASK),
    masked(
        "attention masked by -inf, by a rule",
        attention_by_rule,
        normal(3, 4),
        normal(4, 4),
        normal(4, 2),
        MASK,
        reference=attention,
    ),
    masked(
        "attention masked by -1e9",
        attention_with_large_negative,
        normal(3, 4),
        normal(4, 4),
        normal(4, 2),
        MASK,
    ),
    masked(
        "logsumexp of huge numbers",
        lambda x: jax.nn.logsumexp(x),
        values([1e4, 9999.0, -1e4]),
        dtypes=FINE,
    ),
    masked(
        "logsumexp with entries that are masked",
        lambda x, mask: jax.nn.logsumexp(x, where=mask),
        normal(4),
        jnp.array([True, False, True, True]),
    ),
    masked(
        "logsumexp with constant -inf entries",
        lambda x: jax.nn.logsumexp(jnp.concatenate([x, jnp.full((2,), -jnp.inf, x.dtype)])),
        normal(3),
    ),
    masked(
        "softmax with -1e30 for absent classes",
        lambda x: jax.nn.softmax(jnp.where(jnp.arange(5) < 3, x, -1e30)),
        normal(5),
    ),
    masked(
        "log-softmax of logits 500 apart",
        lambda x: jax.nn.log_softmax(x),
        values([0.0, 500.0, -300.0]),
        dtypes=FINE,
    ),
    masked(
        "sigmoid cross entropy of logits of 1,000",
        lambda x: optax.sigmoid_binary_cross_entropy(x, jnp.asarray([1.0, 0.0], x.dtype)),
        values([1000.0, -1000.0]),
    ),
    masked(
        "masked mean of a ragged batch",
        lambda x, mask: jnp.sum(jnp.where(mask, x, 0)) / mask.sum(),
        normal(2, 4),
        jnp.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool),
    ),
    masked(
        "maximum over valid entries",
        lambda x, mask: jnp.max(x, where=mask, initial=-jnp.inf),
        normal(4),
        jnp.array([True, True, False, True]),
    ),
]
