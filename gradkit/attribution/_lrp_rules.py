r"""Rules of layer-wise relevance propagation for one linear layer.

A layer computes $z_k = \sum_j x_j w_{jk} + b_k$ and has received the relevance $R_k$. A rule says
which share of it goes to each input. What it sends back is the *ratio* $c_j = R_j / x_j$ where it
can, which needs no division by activations (see `gradkit.attribution.lrp`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Message(NamedTuple):
    """The relevance `value * ratio + extra` of a value; None is zero."""

    ratio: Any = None
    extra: Any = None


@dataclass(frozen=True)
class Layer:
    """A linear layer at one point: what a rule of one's own is told.

    Attributes:
        apply: `apply(x, w, b)`, linear in `x` and `w`, affine in `b`.
        x: Its input.
        w: Its weight.
        b: Its bias, or zero.
    """

    apply: Callable[[Any, Any, Any], Any]
    x: Any
    w: Any
    b: Any

    def pull(self, w: Any, y_bar: Any) -> Any:
        """The layer transposed: from the output's space to the input's."""
        _, pull = jax.vjp(lambda x: self.apply(x, w, jnp.zeros_like(self.b)), self.x)
        return pull(y_bar)[0]


class LayerRule(ABC):
    """A rule of linear layers."""

    @abstractmethod
    def __call__(self, layer: Layer, relevance: Any) -> Message:
        """What a layer sends to its input, of the relevance that it has received."""


def stabilize(z: Any, eps: float) -> Any:
    """`z` moved away from zero by `eps`."""
    return z + jnp.where(z >= 0, 1, -1).astype(z.dtype) * jnp.asarray(eps, z.dtype)


def _parts(a: Any) -> tuple[Any, Any]:
    return jnp.maximum(a, 0), jnp.minimum(a, 0)


@dataclass(frozen=True)
class epsilon(LayerRule):  # noqa: N801 - used as a function
    r"""The epsilon rule: relevance by contribution, with a denominator kept away from zero.

    $$ R_j = \sum_k \frac{x_j w_{jk}}{z_k + \epsilon\,\mathrm{sign}(z_k)} R_k $$

    With `eps = 0` (the z rule, LRP-0) only biases keep relevance.

    Source:
        Bach et al., *On pixel-wise explanations for non-linear classifier decisions by layer-wise
        relevance propagation* (2015), equation 58.
    """

    eps: float = 1e-6

    def __call__(self, layer: Layer, relevance: Any) -> Message:
        z = layer.apply(layer.x, layer.w, layer.b)
        eps = max(self.eps, float(jnp.finfo(z.dtype).tiny))
        return Message(layer.pull(layer.w, relevance / stabilize(z, eps)))


@dataclass(frozen=True)
class gamma(LayerRule):  # noqa: N801 - used as a function
    r"""The gamma rule: contributions of the sign of the output count $1 + \gamma$ times.

    With $a_{jk} = x_j w_{jk}$, and for $z_k > 0$ (for $z_k < 0$ with negative parts),

    $$ R_j = \sum_k \frac{a_{jk} + \gamma a_{jk}^+}{\sum_i (a_{ik} + \gamma a_{ik}^+) + b_k + \gamma
    b_k^+} R_k $$

    Source:
        Montavon et al., *Layer-wise relevance propagation: an overview* (2019), section 10.2.3; for
        inputs and outputs of both signs: Andéol et al., *Learning domain invariant representations
        by joint Wasserstein distance minimization* (2021), appendix.
    """

    gamma: float = 0.25
    eps: float = 1e-6

    def __call__(self, layer: Layer, relevance: Any) -> Message:
        x_up, x_down = _parts(layer.x)
        w_up, w_down = (layer.w + self.gamma * part for part in _parts(layer.w))
        b_up, b_down = (layer.b + self.gamma * part for part in _parts(layer.b))
        none = jnp.zeros_like(layer.b)
        z = layer.apply(layer.x, layer.w, layer.b)
        up = layer.apply(x_up, w_up, b_up) + layer.apply(x_down, w_down, none)
        down = layer.apply(x_up, w_down, b_down) + layer.apply(x_down, w_up, none)
        s_up = jnp.where(z > 0, relevance / stabilize(up, self.eps), 0)
        s_down = jnp.where(z < 0, relevance / stabilize(down, self.eps), 0)
        return Message(
            jnp.where(
                layer.x >= 0,
                layer.pull(w_up, s_up) + layer.pull(w_down, s_down),
                layer.pull(w_down, s_up) + layer.pull(w_up, s_down),
            )
        )


@dataclass(frozen=True)
class alpha_beta(LayerRule):  # noqa: N801 - used as a function
    r"""The alpha-beta rule: supporting and opposing contributions apart.

    $$ R_j = \sum_k \Big(\alpha \frac{a_{jk}^+}{\sum_i a_{ik}^+ + b_k^+} - \beta
    \frac{a_{jk}^-}{\sum_i a_{ik}^- + b_k^-}\Big) R_k, \qquad a_{jk} = x_j w_{jk} $$

    Relevance is conserved for $\alpha - \beta = 1$, which is not enforced.

    Source:
        Bach et al. (2015), equation 60.
    """

    alpha: float = 2.0
    beta: float = 1.0
    eps: float = 1e-6

    def __call__(self, layer: Layer, relevance: Any) -> Message:
        x_up, x_down = _parts(layer.x)
        w_up, w_down = _parts(layer.w)
        b_up, b_down = _parts(layer.b)
        none = jnp.zeros_like(layer.b)
        up = layer.apply(x_up, w_up, b_up) + layer.apply(x_down, w_down, none)
        down = layer.apply(x_up, w_down, b_down) + layer.apply(x_down, w_up, none)
        s_up = self.alpha * relevance / stabilize(up, self.eps)
        s_down = -self.beta * relevance / stabilize(down, self.eps)
        return Message(
            jnp.where(
                layer.x >= 0,
                layer.pull(w_up, s_up) + layer.pull(w_down, s_down),
                layer.pull(w_down, s_up) + layer.pull(w_up, s_down),
            )
        )


def z_plus(eps: float = 1e-6) -> alpha_beta:
    r"""The z-plus rule: supporting contributions only, `alpha_beta(1, 0)`.

    Source:
        Montavon et al., *Explaining nonlinear classification decisions with deep Taylor
        decomposition* (2017), section 4.
    """
    return alpha_beta(1.0, 0.0, eps)


@dataclass(frozen=True)
class z_box(LayerRule):  # noqa: N801 - used as a function
    r"""The z-box rule for a first layer whose inputs lie between `low` and `high`.

    $$ R_j = \sum_k \frac{x_j w_{jk} - l_j w_{jk}^+ - h_j w_{jk}^-}{\sum_i x_i w_{ik} - l_i w_{ik}^+
    - h_i w_{ik}^-} R_k $$

    Source:
        Montavon et al. (2017), section 4; the bounds are numbers.
    """

    low: float
    high: float
    eps: float = 1e-6

    def __call__(self, layer: Layer, relevance: Any) -> Message:
        w_up, w_down = _parts(layer.w)
        none = jnp.zeros_like(layer.b)
        low, high = (jnp.full_like(layer.x, bound) for bound in (self.low, self.high))
        z = layer.apply(layer.x, layer.w, none)
        z = z - layer.apply(low, w_up, none) - layer.apply(high, w_down, none)
        s = relevance / stabilize(z, self.eps)
        extra = layer.x * layer.pull(layer.w, s)
        return Message(extra=extra - low * layer.pull(w_up, s) - high * layer.pull(w_down, s))


@dataclass(frozen=True)
class flat(LayerRule):  # noqa: N801 - used as a function
    r"""The flat rule: the same share for every input that a unit sees.

    $$ R_j = \sum_k \frac{1}{\sum_i 1} R_k $$

    Source:
        Lapuschkin et al., *Unmasking Clever Hans predictors* (2019), supplementary note 1.
    """

    def __call__(self, layer: Layer, relevance: Any) -> Message:
        ones = jnp.ones_like(layer.w)
        count = layer.apply(jnp.ones_like(layer.x), ones, jnp.zeros_like(layer.b))
        return Message(extra=layer.pull(ones, relevance / stabilize(count, 1e-6)))
