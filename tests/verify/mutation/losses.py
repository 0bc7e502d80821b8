"""Right gradients of losses."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.mutation.rule import Rule, integers, nonzero, normal, positive, row


def huber(prediction, target):
    size = jnp.abs(prediction - target)
    return jnp.sum(jnp.where(size <= 1.5, 0.5 * size**2, 1.5 * (size - 0.75)))


def huber_fwd(prediction, target):
    return huber(prediction, target), (prediction - target,)


def huber_bwd(residuals, y_bar):
    (r,) = residuals
    r_bar = jnp.clip(r, -1.5, 1.5) * y_bar
    return r_bar, -r_bar


def smooth_l1(prediction, target):
    r = prediction - target
    return jnp.mean(jnp.where(jnp.abs(r) < 0.5, r * r, jnp.abs(r) - 0.25))


def smooth_l1_fwd(prediction, target):
    return smooth_l1(prediction, target), (prediction, target)


def smooth_l1_bwd(residuals, y_bar):
    prediction, target = residuals
    r = prediction - target
    slope = jnp.where(jnp.abs(r) < 0.5, 2 * r, jnp.sign(r))
    r_bar = slope * y_bar / r.size
    return r_bar, -r_bar


def absolute_error(prediction, target):
    return jnp.mean(jnp.abs(prediction - target))


def absolute_error_fwd(prediction, target):
    return absolute_error(prediction, target), (prediction, target)


def absolute_error_bwd(residuals, y_bar):
    prediction, target = residuals
    r_bar = jnp.sign(prediction - target) * y_bar / prediction.size
    return r_bar, -r_bar


def focal(logits, targets):
    z = jnp.where(targets == 1, logits, -logits)
    return -((1 - jax.nn.sigmoid(z)) ** 2) * jax.nn.log_sigmoid(z)


def focal_fwd(logits, targets):
    return focal(logits, targets), (logits, targets)


def focal_bwd(residuals, y_bar):
    logits, targets = residuals
    sign = jnp.where(targets == 1, 1.0, -1.0)
    z = sign * logits
    p, q = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    z_bar = (2 * p * q**2 * jax.nn.log_sigmoid(z) - q**3) * y_bar
    return sign * z_bar, None


def weighted_mse(prediction, target, weights):
    return jnp.sum(weights * (prediction - target) ** 2) / jnp.sum(weights)


def weighted_mse_fwd(prediction, target, weights):
    y = weighted_mse(prediction, target, weights)
    return y, (prediction - target, weights, y)


def weighted_mse_bwd(residuals, y_bar):
    r, weights, y = residuals
    total = jnp.sum(weights)
    r_bar = 2 * weights * r / total * y_bar
    return r_bar, -r_bar, (r**2 - y) / total * y_bar


def kl_divergence(p, q):
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)) - p + q, axis=-1)


def kl_divergence_fwd(p, q):
    return kl_divergence(p, q), (p, q)


def kl_divergence_bwd(residuals, y_bar):
    p, q = residuals
    y_bar = y_bar[:, None]
    return jnp.log(p / q) * y_bar, (1 - p / q) * y_bar


def cross_entropy(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), labels[:, None], axis=-1)
    return -jnp.mean(picked)


def cross_entropy_fwd(logits, labels):
    return cross_entropy(logits, labels), (jax.nn.softmax(logits, axis=-1), labels)


def cross_entropy_bwd(residuals, y_bar):
    p, labels = residuals
    n, classes = p.shape
    one_hot = (labels[:, None] == jnp.arange(classes)[None, :]).astype(p.dtype)
    return (p - one_hot) * y_bar / n, None


def binary_cross_entropy(logits, targets):
    return jnp.mean(jnp.logaddexp(logits, 0.0) - targets * logits, axis=0)


def binary_cross_entropy_fwd(logits, targets):
    return binary_cross_entropy(logits, targets), (logits, targets)


def binary_cross_entropy_bwd(residuals, y_bar):
    logits, targets = residuals
    share = jnp.broadcast_to(y_bar / logits.shape[0], logits.shape)
    return (jax.nn.sigmoid(logits) - targets) * share, -logits * share


def cosine_similarity(a, b):
    return jnp.vdot(a, b) / jnp.sqrt(jnp.vdot(a, a) * jnp.vdot(b, b))


def cosine_similarity_fwd(a, b):
    y = cosine_similarity(a, b)
    return y, (a, b, y)


def cosine_similarity_bwd(residuals, y_bar):
    a, b, y = residuals
    a2, b2 = jnp.sum(a**2), jnp.sum(b**2)
    scale = 1 / jnp.sqrt(a2 * b2)
    a_bar = y_bar * (b * scale - y * a / a2)
    b_bar = y_bar * (a * scale - y * b / b2)
    return a_bar, b_bar


def gaussian_nll(mean, log_var, target):
    return 0.5 * jnp.sum(log_var + (target - mean) ** 2 * jnp.exp(-log_var))


def gaussian_nll_fwd(mean, log_var, target):
    return gaussian_nll(mean, log_var, target), (target - mean, jnp.exp(-log_var))


def gaussian_nll_bwd(residuals, y_bar):
    r, precision = residuals
    r_bar = r * precision * y_bar
    return -r_bar, 0.5 * (1 - r**2 * precision) * y_bar, r_bar


def squared_hinge(scores, signs):
    return jnp.mean(jnp.maximum(1 - signs * scores, 0) ** 2)


def squared_hinge_fwd(scores, signs):
    return squared_hinge(scores, signs), (scores, signs)


def squared_hinge_bwd(residuals, y_bar):
    scores, signs = residuals
    margin = 1 - signs * scores
    slope = jnp.where(margin > 0, 2 * margin, 0.0) * y_bar / margin.size
    return -signs * slope, -scores * slope


def contrastive(a, b, same):
    d = jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))
    return jnp.where(same == 1, d**2, jnp.maximum(1 - d, 0) ** 2)


def contrastive_fwd(a, b, same):
    d = jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))
    return contrastive(a, b, same), (a - b, d, same)


def contrastive_bwd(residuals, y_bar):
    r, d, same = residuals
    pull = 2 * r
    push = jnp.where(d < 1, -2 * (1 - d) / d, 0.0)[:, None] * r
    r_bar = jnp.where(same[:, None] == 1, pull, push) * y_bar[:, None]
    return r_bar, -r_bar, None


_PAIRS = (
    np.array([[0.1, 0.5], [1.0, 2.0], [-1.0, 0.3], [0.2, 0.4]], np.float32),
    np.array([[0.5, 0.2], [0.0, 1.0], [1.0, 2.0], [0.3, -0.2]], np.float32),
    np.array([0, 0, 1, 1], np.int32),
)

RULES = (
    Rule(
        huber,
        huber_fwd,
        huber_bwd,
        (normal(4), normal(4)),
        at=(row(-4, -0.5, 0.25, 3), row(0.5, 0.5, -1, -1)),
    ),
    Rule(
        smooth_l1,
        smooth_l1_fwd,
        smooth_l1_bwd,
        (normal(4), normal(4)),
        at=(row(-0.1, 0.25, 0.4, 3), row(0.5, 0.5, 0.1, -1)),
    ),
    Rule(
        absolute_error,
        absolute_error_fwd,
        absolute_error_bwd,
        (normal(3), normal(3)),
        at=(row(1.5, -0.5, 2), row(0.25, -0.5, 4)),
        kinked=True,
    ),
    Rule(focal, focal_fwd, focal_bwd, (normal(4), integers(4, below=2))),
    Rule(
        weighted_mse,
        weighted_mse_fwd,
        weighted_mse_bwd,
        (normal(2, 3), normal(2, 3), positive(2, 3)),
    ),
    Rule(kl_divergence, kl_divergence_fwd, kl_divergence_bwd, (positive(2, 3), positive(2, 3))),
    Rule(cross_entropy, cross_entropy_fwd, cross_entropy_bwd, (normal(3, 5), integers(3, below=5))),
    Rule(
        binary_cross_entropy,
        binary_cross_entropy_fwd,
        binary_cross_entropy_bwd,
        (normal(3, 2), positive(3, 2)),
    ),
    Rule(cosine_similarity, cosine_similarity_fwd, cosine_similarity_bwd, (normal(4), normal(4))),
    Rule(gaussian_nll, gaussian_nll_fwd, gaussian_nll_bwd, (normal(4), normal(4), normal(4))),
    Rule(
        squared_hinge,
        squared_hinge_fwd,
        squared_hinge_bwd,
        (normal(4), nonzero(4)),
        at=(row(-1, 0.5, 1.5, 0.75), row(1, 1, 1, -1)),
    ),
    Rule(
        contrastive,
        contrastive_fwd,
        contrastive_bwd,
        (normal(4, 2), normal(4, 2), integers(4, below=2)),
        at=_PAIRS,
    ),
)
