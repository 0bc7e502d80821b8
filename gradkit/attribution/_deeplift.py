"""DeepLIFT with the rescale rule: differences to a baseline, instead of derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradkit.attribution._model import Model, hold_fixed, like, seed
from gradkit.attribution._reading import read
from gradkit.attribution._steps import ELEMENTWISE, Step, Steps
from gradkit.attribution._walk import Walk, transposed

_LINEAR = frozenset(
    """add add_any sub neg mul copy copy_p convert_element_type stop_gradient reduce_precision
    broadcast_in_dim select_n real imag and or not""".split()
)
_POOLS = ("reduce_window_max", "reduce_window_min", "reduce_max", "reduce_min", "cummax", "cummin")


def deeplift(model: Model, x: Any, target: Any = None, *, baseline: Any = 0.0) -> Any:
    r"""DeepLIFT attributions by the rescale rule.

    With $\Delta z = z(x) - z(x_0)$, multipliers $m$ go back through the model by the chain rule:

    - an element by element function $y = g(z)$: $m_z = m_y\, \Delta y / \Delta z$, or
      $m_y\, g'(z)$ where $\Delta z$ is too small to divide by;
    - what is linear or bilinear (attention, gates): the derivative halfway between $z$ and $z_0$;
    - a quotient: $\Delta (a/b) = \overline{(1/b)}\,\Delta a - \bar a\,\Delta b / (b b_0)$, with
      means over both runs;
    - a maximum over a window: what it gained goes to the winner at $x$, what it lost to the winner
      at $x_0$;
    - everything else, by its derivative at $x$.

    The attribution is $m_x \Delta x$. For models made of all but the last kind it is complete: the
    attributions of an example sum to $f(x) - f(x_0)$.

    Args:
        model: From `x` to logits `[N, K]` or one scalar per example `[N]`, as for `lrp`.
        x: Real floating-point array `[N, ...]`, or a pytree with such arrays.
        target: The class, an integer or one per example `[N]`; a function from the output to one
            scalar per example, linear in it for completeness; None for the largest logit at `x`.
        baseline: What `x` is compared with; one for all of `x`, or a pytree of its structure. Any
            shape that broadcasts.

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes; None for leaves of integers.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, the target or the baseline
            does not fit, or the input flows through a `while_loop`.

    At the kink:
        Where $|\Delta z|$ is below $\sqrt{\mathrm{eps}}\,\max(1, |z|, |z_0|) / 100$ the
        derivative takes over: the quotient would be rounding error.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def model(x):
        ...     return jax.nn.relu(1 - jax.nn.relu(1 - x.sum(axis=1)))
        >>> x = jnp.array([[1.0, 1.0]])  # the gradient is zero here
        >>> print(model(x), deeplift(model, x))
        [1.] [[0.5 0.5]]

    Source:
        Shrikumar et al., *Learning important features through propagating activation differences*
        (2017), section 3.5.1; the example is theirs (figure 1).
    """
    model, x = hold_fixed(model, x)
    steps = read(model, x)
    leaves, structure = jax.tree.flatten(x)
    baselines = jax.tree.leaves(like(x, baseline, "baseline"))
    here, there = steps.evaluate(leaves), steps.evaluate(baselines)
    walk = _Multipliers(steps, [here, there])
    (out,) = steps.outputs
    walk.receive(out, seed(here[out], target))
    walk.run()
    return structure.unflatten(
        [
            jnp.zeros_like(a) if (m := walk.received(number)) is None else m * (a - b)
            for number, a, b in zip(steps.inputs, leaves, baselines, strict=True)
        ]
    )


class _Multipliers(Walk):
    """One backward pass; a message is what a difference of a value is multiplied with."""

    nothing: ClassVar[None] = None

    def inside(self, steps: Steps, runs: Sequence[dict[int, Any]]) -> _Multipliers:
        return _Multipliers(steps, runs)

    def step(self, step: Step) -> None:
        flows = self.steps.flows(step)
        if not flows:
            return
        received = [self.received(out) for out in step.outputs]
        here, there = ([values[i] for i in step.inputs] for values in self.runs)
        for p, m in zip(flows, _send(step, flows, received, here, there), strict=True):
            self.receive(step.inputs[p], m)


def _send(
    step: Step, flows: list[int], received: Sequence[Any], here: list[Any], there: list[Any]
) -> list[Any]:
    """The multipliers of the operands at `flows`."""
    if step.name == "stop_gradient":  # a difference is no derivative: softmax's shift has one too
        return [received[0]]
    if step.name == "div" and flows != [0]:
        return _quotient(flows, received[0], here, there)
    nonlinear = step.name == "activation" or step.name in ELEMENTWISE - _LINEAR - {"div"}
    if nonlinear and len(flows) == 1:
        return [_rescale(step, flows[0], received[0], here, there)]
    if step.name in _POOLS:
        return [_maximum(step, received[0], here[0], there[0])]
    if nonlinear:
        return transposed(step, flows, received, here)
    # A transposed linear or bilinear operation, at the middle, is exact for differences.
    middle = [
        0.5 * (a + b) if p in flows else a for p, (a, b) in enumerate(zip(here, there, strict=True))
    ]
    exact = step.name in _LINEAR or step.name in ("dot_general", "conv_general_dilated", "div")
    return transposed(step, flows, received, middle if exact else here)


def _rescale(step: Step, at: int, m: Any, here: list[Any], there: list[Any]) -> Any:
    x, x_0 = here[at], there[at]

    def g(x: Any) -> Any:
        return step.run(*here[:at], x, *here[at + 1 :])[0]

    slope = jax.jvp(g, (x,), (jnp.ones_like(x),))[1]
    change = g(x) - g(x_0)
    return _unbroadcast(m * _ratio(change, x, x_0, slope), x)


def _ratio(change: Any, x: Any, x_0: Any, otherwise: Any) -> Any:
    scale = jnp.maximum(1, jnp.maximum(jnp.abs(x), jnp.abs(x_0)))
    small = jnp.abs(x - x_0) <= 0.01 * jnp.sqrt(jnp.finfo(x.dtype).eps) * scale
    return jnp.where(small, otherwise, change / jnp.where(small, 1, x - x_0))


def _maximum(step: Step, m: Any, x: Any, x_0: Any) -> Any:
    y, pull = jax.vjp(lambda x: step.run(x)[0], x)
    y_0, pull_0 = jax.vjp(lambda x: step.run(x)[0], x_0)
    top = jnp.maximum(y, y_0) if "max" in step.name else jnp.minimum(y, y_0)
    (gained,), (lost,) = pull(m * (top - y_0)), pull_0(m * (y - top))
    return _ratio(gained + lost, x, x_0, pull(m)[0])


def _quotient(flows: list[int], m: Any, here: list[Any], there: list[Any]) -> list[Any]:
    (a, b), (a_0, b_0) = here, there
    sent = [0.5 * m * (1 / b + 1 / b_0), -0.5 * m * (a + a_0) / (b * b_0)]
    return [_unbroadcast(sent[p], here[p]) for p in flows]


def _unbroadcast(m: Any, x: Any) -> Any:
    """Sum over the axes along which an operation has broadcast `x`."""
    _, pull = jax.vjp(lambda x: jnp.broadcast_to(x, m.shape), x)
    return pull(m)[0]
