"""Losses for few positives: focal, Tversky, and Lovász's extension of the Jaccard index."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.losses._order import places, put_back
from gradkit.losses._reals import as_reals, check_fits, check_integers
from gradkit.safe import divide, power

Axis = int | Sequence[int] | None


def softmax_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    weights: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy that fades where the class is already likely, over any number of classes.

    $$ L = -w_t (1 - p_t)^\gamma \log p_t = w_t\,\sigma(-s)^\gamma \log(1 + e^{-s}), \qquad
       s = z_t - \log \textstyle\sum_{k \ne t} e^{z_k} $$

    Computed from the margin `s`: `1 - p` neither rounds to 0 nor has a singular power, for any
    `gamma` from 0 and logits of any size. (`optax.losses.sigmoid_focal_loss` is the binary one.)

    Args:
        logits: `z`, real `[..., k]`, k at least 2.
        labels: `t`, integers `[...]`.
        gamma: Not negative; 0 gives cross-entropy. It may be traced.
        weights: `w`, one for each class, `[k]`. Default: ones.

    Returns:
        `L`, `[...]`, not reduced. Half precision is computed in float32.

    Raises:
        TypeError: If `logits` are complex, or `labels` no integers.
        ValueError: If shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(f"{softmax_focal_loss(jnp.array([0.0, 0.0]), 0):.4f}")
        0.1733
        >>> print(jax.grad(softmax_focal_loss)(jnp.array([200.0, 0.0]), 0))
        [0. 0.]

    Source:
        Lin et al., *Focal Loss for Dense Object Detection* (2017), arXiv:1708.02002, equation 4.
    """
    name = "losses.softmax_focal_loss"
    (z,), dtype = as_reals(name, logits)
    labels = check_integers(name, "labels", labels)
    if z.ndim == 0 or z.shape[-1] < 2:
        check_fits(name, "logits", z.shape, ("...", "k"), "k at least 2")
    check_fits(name, "labels", labels.shape, z.shape[:-1], "a class for each row of logits")
    chosen = labels[..., None] == lax.broadcasted_iota(int, z.shape, z.ndim - 1)
    target = jnp.sum(jnp.where(chosen, z, 0), -1)
    s = target - jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, z), -1)
    loss = jnp.exp(-jnp.asarray(gamma, z.dtype) * jax.nn.softplus(s)) * jax.nn.softplus(-s)
    if weights is not None:
        (w,), _ = as_reals(name, weights)
        check_fits(name, "weights", w.shape, z.shape[-1:], "one for each class")
        loss = loss * w.astype(z.dtype)[labels]
    return loss.astype(dtype)


def tversky_loss(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.3,
    beta: ArrayLike = 0.7,
    focus: float = 1.0,
    smooth: ArrayLike = 0.0,
    axis: Axis = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""One minus the overlap with a mask, with prices for false positives and false negatives.

    $$ L = (1 - T)^\varphi, \qquad T = \frac{\mathrm{TP} + \epsilon}{\mathrm{TP} + \alpha
       \mathrm{FP} + \beta \mathrm{FN} + \epsilon}, \qquad \mathrm{TP} = \sum p y,\;
       \mathrm{FP} = \sum p (1 - y),\; \mathrm{FN} = \sum (1 - p) y $$

    `alpha = beta = 1/2` gives the Dice loss (as `optax.losses.dice_loss`), and 1 the Jaccard loss.
    `focus = 3/4` gives the focal Tversky loss, `gamma = 4/3` in its paper.

    Args:
        probabilities: `p`, real, from 0 to 1.
        labels: `y`, from 0 to 1, of the same shape; one-hot for several classes.
        alpha: Price of a false positive.
        beta: Price of a false negative.
        focus: The power, a number above 0.
        smooth: The constant `epsilon`.
        axis: The axes summed over: those of the pixels. Default: all.
        where: Boolean mask; elements where it is false do not count.

    Returns:
        `L`, without those axes. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    At the kink:
        Nothing there and nothing found is a perfect score: `L` and its derivatives are 0. At
        `L = 0` with a focus below 1 slopes are infinite; the derivative is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{tversky_loss(jnp.array([1.0, 1.0, 0.0]), jnp.array([1, 0, 0])):.4f}")
        0.2308

    Source:
        Salehi, Erdogmus & Gholipour, *Tversky Loss Function for Image Segmentation* (2017),
        arXiv:1706.05721; the power: Abraham & Khan (2018), arXiv:1810.07842, equation 4.
    """
    name = "losses.tversky_loss"
    (p, y), dtype = as_reals(name, probabilities, labels)
    check_fits(name, "labels", y.shape, p.shape, "as the probabilities")
    if where is not None:
        where = jnp.broadcast_to(where, p.shape)
        p, y = jnp.where(where, p, 0), jnp.where(where, y, 0)
    hit = jnp.sum(p * y, axis)
    off = alpha * jnp.sum(p * (1 - y), axis) + beta * jnp.sum((1 - p) * y, axis)
    share = divide(off, hit + off + smooth)
    return (share if focus == 1 else power(share, focus)).astype(dtype)


def lovasz_hinge(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""Convex surrogate of the Jaccard loss of one class: the Lovász extension over hinge errors.

    $$ L = \sum_i [m_{\pi_i}]_+ (J_i - J_{i-1}), \qquad m = 1 - (2 y - 1) z, \qquad
       J_i = 1 - \frac{P - P_i}{P + i - P_i} $$

    `pi` sorts `m` downwards, `P` counts the positives, and `P_i` those among the first `i`. The
    gradient needs the differences of `J` at their pixels alone: no sort is differentiated.

    Args:
        logits: `z`, real `[..., n]`, one row an image.
        labels: `y`, 0 or 1, `[..., n]`.
        where: Boolean mask `[..., n]`; pixels where it is false do not count.

    Returns:
        `L`, `[...]`, one for each image. Half precision is computed in float32.

    Raises:
        TypeError: If `logits` are complex.
        ValueError: If shapes do not fit.

    At the kink:
        At a margin of exactly 1 the derivative is 0. Among equal errors the order is that of the
        pixels. Second derivatives are 0.

    Keeps:
        The gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> print(lovasz_hinge(jnp.array([2.0, -2.0, 1.0]), jnp.array([1, 0, 0])))
        1.0

    Source:
        Berman, Triki & Blaschko, *The Lovász-Softmax Loss* (2018), arXiv:1705.08790, equation 13.
    """
    name = "losses.lovasz_hinge"
    (z,), dtype = as_reals(name, logits)
    y = jnp.asarray(labels) != 0
    check_fits(name, "labels", y.shape, z.shape, "as the logits")
    if z.ndim == 0:
        check_fits(name, "logits", z.shape, ("...", "n"), "a row an image")
    error = jax.nn.relu(1 - jnp.where(y, z, -z))
    if where is not None:
        where = jnp.broadcast_to(where, z.shape)
        error, y = jnp.where(where, error, 0), y & where
    return _lovasz(error, y).astype(dtype)


def lovasz_softmax(
    probabilities: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""Surrogate of the mean Jaccard loss over the classes that are there.

    $$ L = \frac{1}{|C|} \sum_{c \in C} \sum_i m_{c, \pi_i} (J_{c,i} - J_{c,i-1}), \qquad
       m_{c} = |[y = c] - p_c| $$

    Args:
        probabilities: `p`, real `[..., n, k]`, a row of softmax a pixel.
        labels: `y`, integers `[..., n]`.
        where: Boolean mask `[..., n]`.

    Returns:
        `L`, `[...]`, one for each image, with `C` its own classes; 0 for an image without pixels.
        Half precision is computed in float32.

    Raises:
        TypeError: If the probabilities are complex, or `labels` no integers.
        ValueError: If shapes do not fit.

    At the kink:
        As for `lovasz_hinge`.

    Keeps:
        The gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> p = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> print(lovasz_softmax(p, jnp.array([0, 1])))
        0.4375

    Source:
        Berman, Triki & Blaschko (2018), arXiv:1705.08790, equation 12.
    """
    name = "losses.lovasz_softmax"
    (p,), dtype = as_reals(name, probabilities)
    labels = check_integers(name, "labels", labels)
    if p.ndim < 2:
        check_fits(name, "probabilities", p.shape, ("...", "n", "k"), "a row a pixel")
    check_fits(name, "labels", labels.shape, p.shape[:-1], "a class for each pixel")
    p = jnp.moveaxis(p, -1, -2)
    y = labels[..., None, :] == lax.broadcasted_iota(int, p.shape, p.ndim - 2)
    error = jnp.where(y, 1 - p, p)
    if where is not None:
        here = jnp.broadcast_to(where, labels.shape)[..., None, :]
        error, y = jnp.where(here, error, 0), y & here
    there = jnp.any(y, -1)
    loss = jnp.sum(jnp.where(there, _lovasz(error, y), 0), -1)
    return (loss / jnp.maximum(jnp.sum(there, -1), 1)).astype(dtype)


@jax.custom_jvp
def _lovasz(error, y):
    """The Lovász extension of the Jaccard loss at `error[..., n]`, none negative."""
    ordered, y, _ = _sorted(error, y)
    return jnp.sum(ordered * _steps(y, error.dtype), -1)


@_lovasz.defjvp
def _lovasz_jvp(primals, tangents):
    ordered, y, place = _sorted(*primals)
    steps = _steps(y, ordered.dtype)
    gradient = lax.stop_gradient(put_back(steps, place))
    return jnp.sum(ordered * steps, -1), jnp.sum(gradient * tangents[0], -1)


def _sorted(error, y):
    # The labels travel as the lowest bit of the places: a sort of three arrays takes longer.
    tags = 2 * places(error) + y
    minus, tags = lax.sort((-error, tags), num_keys=1, is_stable=True)
    return -minus, tags & 1, tags >> 1


def _steps(y: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`J_i - J_(i - 1)`, from integer counts."""
    found = jnp.cumsum(y, -1)
    every = found[..., -1:]
    rank = 1 + places(y)
    union = (every + rank - found).astype(dtype)
    jaccard = 1 - (every - found).astype(dtype) / union
    return jnp.diff(jaccard, axis=-1, prepend=0)
