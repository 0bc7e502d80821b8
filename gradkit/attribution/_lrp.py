r"""Layer-wise relevance propagation.

The formulation is that of the modified gradient: what flows back is the ratio $c = R / z$ of
relevance to value, and the attribution is $x c$ at the end. In it everything that is linear without
a bias has its ordinary derivative: residual additions, products with constants, concatenation,
reshapes, means, average and maximum pooling, batch norm at inference. What is left to say is said
here: of layers (by their rule), activations, and products and quotients of two activations.

Override rules alone cannot say it: a rule `(op, *y_bars)` does not see which operand of a product
is a parameter, nor the bias that is added to its output later, which the denominators contain. So
the model is traced and its program walked backwards (`_steps`); the model itself stays as it is,
and the keys of a composite are written as those of an override map.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import UnusedOverrideWarning
from gradkit.attribution._composite import Composite
from gradkit.attribution._layers import Found, find_layers
from gradkit.attribution._lrp_rules import LayerRule, Message, stabilize
from gradkit.attribution._steps import ELEMENTWISE, Step, Steps
from gradkit.attribution._target import check_input, select

# Element by element, and without a relevance rule: the ordinary derivative is right for them.
_LINEAR = frozenset(
    """add add_any sub neg mul div copy copy_p convert_element_type stop_gradient
    reduce_precision broadcast_in_dim select_n real""".split()
)
# By these, relevance is not divided.
_FACTORS = frozenset("mul div neg copy convert_element_type reduce_precision".split())
# Functions whose value is a weight rather than an activation: they count as constant.
_WEIGHTS = frozenset("exp exp2 rsqrt sqrt square integer_pow pow reduce_and argmax argmin".split())
_MOVES = frozenset(
    """reshape squeeze expand_dims transpose rev slice concatenate pad gather
    dynamic_slice copy convert_element_type""".split()
)


def lrp(
    model: Callable[[Any], Any],
    x: Any,
    target: Any = None,
    *,
    rules: LayerRule | Mapping[Any, LayerRule] | None = None,
) -> jax.Array:
    r"""Relevance of every input for an output, by layer-wise relevance propagation.

    The output's relevance is its value. Every operation hands on what it receives:

    - a linear layer (a matrix product or convolution with a parameter, and the bias behind it) by
      its rule;
    - an activation $y = g(x)$ as it is: $c_x = c_y\, y / x$;
    - a product of two activations half to each factor, unless one factor is computed from the
      other element by element (a gate, as in `silu` and `gelu`) and counts as constant;
    - exponentials, squares and roots count as constant, and denominators too: attention weights
      and the deviations of layer and batch norm (Ali et al. 2022);
    - everything else by its derivative: residual sums by contribution, maxima to the winner.

    So without biases the relevances of an example sum to its output, up to what the rules'
    stabilisers `eps` take. With biases, what is theirs stays with them.

    Args:
        model: From `x` to logits `[N, K]` or one scalar per example `[N]`. Parameters are closed
            over: `functools.partial(module.apply, params)`, `jax.vmap(equinox_model)`. The logits,
            not probabilities: a softmax at the end has weights, and no relevance of its own.
        x: Real floating-point array `[N, ...]`.
        target: The class, an integer or one per example `[N]`; a function from the output to one
            scalar per example; None for the largest logit.
        rules: One rule, or a composite: a mapping from layers to rules, in which the first key that
            matches counts. A key is the layer's place among all layers (`0`, `-1`), a type
            (`"Conv2D"`, `"MatMul"`), a pattern of named scopes before a colon
            (`"Conv_0:*"`, `"encoder/*:MatMul"`) or `"*"`. A layer that no key matches has the rule
            `epsilon()`, which is also the default.

    Returns:
        Relevance, with `x`'s shape and dtype.

    Raises:
        AttributionInputError: If `x` is not a floating-point array, or the target does not fit.
        OverrideKeyError: If no layer could match a key.

    Warns:
        UnusedOverrideWarning: If a key matches no layer of this model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gradkit.attribution import epsilon
        >>> w, v = jnp.array([[1.0, -1.0], [2.0, 1.0]]), jnp.array([[1.0], [3.0]])
        >>> def model(x):
        ...     return jax.nn.relu(x @ w) @ v
        >>> x = jnp.array([[1.0, 3.0]])
        >>> print(model(x), lrp(model, x, rules=epsilon(0.0)))
        [[13.]] [[-2. 15.]]

    Source:
        Bach et al. (2015); Montavon et al. (2019); for attention and layer norm, Ali et al., *XAI
        for transformers: better explanations through conservative propagation* (2022).
    """
    x = check_input(x)
    steps = Steps.trace(model, x, opaque=_WEIGHTS)
    composite = Composite.of(rules)
    layers = find_layers(steps)
    chosen, unused = composite.choose(layers)
    for key in unused:
        warnings.warn(
            f"the key {key!r} of the composite matches no layer of the model",
            UnusedOverrideWarning,
            stacklevel=2,
        )
    values = steps.evaluate(x)
    walk = _Backward(steps, values, layers, chosen)
    (out,) = steps.outputs
    walk.receive(out, Message(select(values[out], target)))
    walk.run()
    return walk.relevance(steps.inputs[0])


class _Backward:
    """One backward pass."""

    def __init__(
        self, steps: Steps, values: dict[int, Any], layers: list[Found], rules: list[LayerRule]
    ):
        self._steps, self._values = steps, values
        self._layers = {f.steps[-1]: (f, r) for f, r in zip(layers, rules, strict=True)}
        self._inside = {s for f in layers for s in f.steps[:-1]}
        self._messages: dict[int, Message] = {}
        self._made_by = {out: s for s in steps.steps for out in s.outputs}

    def receive(self, number: int, message: Message) -> None:
        """Add a message to what a value has received."""
        before = self._messages.get(number, Message())
        self._messages[number] = Message(*map(_sum, before, message))

    def relevance(self, number: int) -> Any:
        """All the relevance that a value has received."""
        z, message = self._values[number], self._messages.get(number, Message())
        extra = jnp.zeros_like(z) if message.extra is None else message.extra
        return extra if message.ratio is None else z * message.ratio + extra

    def run(self) -> None:
        """Hand all relevance on to the input."""
        for step in reversed(self._steps.steps):
            if step in self._inside or not any(o in self._messages for o in step.outputs):
                continue
            if step in self._layers:
                found, rule = self._layers[step]
                relevance = self.relevance(step.outputs[0])
                self.receive(found.x, rule(found.at(self._values), relevance))
            else:
                self._step(step)

    def _step(self, step: Step) -> None:
        flows = self._steps.flows(step)
        if not flows:
            return
        if len(flows) == 1 and self._passes(step):
            # What an activation or a factor receives, it hands on as it is.
            (at,) = flows
            number = step.inputs[at]
            x, y = self._values[number], self._values[step.outputs[0]]
            message = self._messages[step.outputs[0]]
            if step.name in _LINEAR:
                ratio = self._pull(step, flows, 0)
                ratio = None if ratio is None else ratio[0]
            elif message.ratio is None:
                ratio = None
            else:
                ratio = message.ratio * _quotient(y, x, self._pull_ones(step, at))
            self.receive(number, Message(ratio, message.extra))
            return
        self._natural(step, flows)

    def _passes(self, step: Step) -> bool:
        """Does relevance pass through a step of one varying operand unchanged?"""
        (at,) = self._steps.flows(step)
        if self._values[step.inputs[at]].shape != self._values[step.outputs[0]].shape:
            return False
        nonlinear = step.name == "activation" or step.name in ELEMENTWISE - _LINEAR
        return nonlinear or step.name in _FACTORS

    def _natural(self, step: Step, flows: list[int]) -> None:
        flows, share = self._factors(step, flows)
        if step.name in _MOVES:
            extras = self._pull(step, flows, 1)
        else:
            extras = None
            for out in step.outputs:
                message = self._messages.get(out, Message())
                if message.extra is not None:
                    ratio = message.extra / stabilize(self._values[out], 1e-12)
                    self._messages[out] = Message(_sum(message.ratio, ratio), None)
        ratios = self._pull(step, flows, 0)
        for k, p in enumerate(flows):
            ratio = None if ratios is None else share * ratios[k]
            self.receive(step.inputs[p], Message(ratio, None if extras is None else extras[k]))

    def _factors(self, step: Step, flows: list[int]) -> tuple[list[int], float]:
        """Which operands receive relevance, and the share of each."""
        if len(flows) < 2:
            return flows, 1.0
        if step.name == "div":
            return [0], 1.0
        if step.name in ("mul", "dot_general", "conv_general_dilated"):
            a, b = step.inputs
            if step.name == "mul" and a != b:
                if self._comes_from(b, a):
                    return [0], 1.0
                if self._comes_from(a, b):
                    return [1], 1.0
            return flows, 0.5
        return flows, 1.0

    def _comes_from(self, number: int, root: int) -> bool:
        """Is a value computed from `root` alone, element by element?"""
        while number != root:
            step = self._made_by.get(number)
            if step is None or step.name not in ELEMENTWISE | {"activation"}:
                return False
            parents = {step.inputs[p] for p in self._steps.flows(step)}
            rest = parents - {root}
            if len(rest) > 1 and not all(self._comes_from(n, root) for n in rest):
                return False
            if len(rest) != 1:
                return True
            (number,) = rest
        return True

    def _pull(self, step: Step, flows: list[int], part: int) -> list[Any] | None:
        """Transpose the derivative of a step, with respect to operands, of one part of messages."""
        messages = [self._messages.get(out, Message())[part] for out in step.outputs]
        if all(m is None for m in messages):
            return None
        operands = [self._values[i] for i in step.inputs]

        def function(*xs: Any) -> list[Any]:
            full = list(operands)
            for p, value in zip(flows, xs, strict=True):
                full[p] = value
            ys = step.run(*full)
            return [y for y, m in zip(ys, messages, strict=True) if m is not None]

        xs = [operands[p] for p in flows]
        _, pull = jax.vjp(function, *xs)
        return list(pull([m for m in messages if m is not None]))

    def _pull_ones(self, step: Step, at: int) -> Any:
        operands = [self._values[i] for i in step.inputs]
        x = operands[at]
        _, slope = jax.jvp(
            lambda v: step.run(*operands[:at], v, *operands[at + 1 :])[0],
            (x,),
            (jnp.ones_like(x),),
        )
        return slope


def _quotient(y: Any, x: Any, slope: Any) -> Any:
    """`y / x`; where `x` is zero, its limit if `y` is zero too, and else nothing."""
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, jnp.where(y == 0, slope, 0), y / safe)


def _sum(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a + b
