r"""How relevance goes through the operations of a program.

The formulation is that of the modified gradient: what flows back is the ratio $c = R / z$ of
relevance to value, and the attribution is $x c$ at the end. In it everything that is linear without
a bias has its ordinary derivative: residual additions, products with constants, concatenation,
reshapes, means, average and maximum pooling, batch norm at inference. What is left to say is said
here: of layers (by their rule), activations, and products and quotients of two activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradkit.attribution._layers import Found
from gradkit.attribution._lrp_rules import Message, stabilize
from gradkit.attribution._messages import add
from gradkit.attribution._own_rules import apply_layer_rule, apply_own_rule
from gradkit.attribution._steps import ELEMENTWISE, Step, Steps
from gradkit.attribution._walk import Walk, transposed

# Element by element, and without a relevance rule: the ordinary derivative is right for them.
_LINEAR = frozenset(
    """add add_any sub neg mul div copy copy_p convert_element_type stop_gradient
    reduce_precision broadcast_in_dim select_n real""".split()
)
# By these, relevance is not divided.
_FACTORS = frozenset("mul div neg copy convert_element_type reduce_precision".split())
# Functions whose value is a weight rather than an activation: they count as constant.
WEIGHTS = frozenset("exp exp2 rsqrt sqrt square integer_pow pow reduce_and argmax argmin".split())
_MOVES = frozenset(
    """reshape squeeze expand_dims transpose rev slice concatenate pad gather
    dynamic_slice copy convert_element_type""".split()
)

Layers = Mapping[Step, tuple[Found, Callable[..., Any]]]
"""The layers of a model and their rules, by the last operation of each."""


class Relevance(Walk):
    """One backward pass of relevance."""

    nothing: ClassVar[Message] = Message()

    def __init__(self, steps: Steps, runs: Sequence[dict[int, Any]], layers: Layers):
        super().__init__(steps, runs)
        (self._values,) = runs
        self._layers = layers
        self._inside = {s for found, _ in layers.values() for s in found.steps[:-1]}
        self._made_by = {out: s for s in steps.steps for out in s.outputs}

    def inside(self, steps: Steps, runs: Sequence[dict[int, Any]]) -> Relevance:
        """A walk through a program inside."""
        return Relevance(steps, runs, self._layers)

    def relevance(self, number: int) -> Any:
        """All the relevance that a value has received."""
        z, message = self._values[number], self.received(number)
        extra = jnp.zeros_like(z) if message.extra is None else message.extra
        return extra if message.ratio is None else z * message.ratio + extra

    def step(self, step: Step) -> None:
        """Hand on what an operation has received."""
        if step in self._inside:
            return
        if step in self._layers:
            found, rule = self._layers[step]
            relevance = self.relevance(step.outputs[0])
            self.receive(found.x, apply_layer_rule(rule, found.at(self._values), relevance))
        elif step.rule is not None:
            relevances = [self.relevance(out) for out in step.outputs]
            inputs, outputs = (
                [self._values[i] for i in numbers] for numbers in (step.inputs, step.outputs)
            )
            for p, r in enumerate(apply_own_rule(step, inputs, outputs, relevances)):
                self.receive(step.inputs[p], Message(extra=r))
        else:
            self._operation(step)

    def _operation(self, step: Step) -> None:
        flows = self.steps.flows(step)
        if not flows:
            return
        if len(flows) == 1 and self._passes(step):
            # What an activation or a factor receives, it hands on as it is.
            (at,) = flows
            number = step.inputs[at]
            x, y = self._values[number], self._values[step.outputs[0]]
            message = self.received(step.outputs[0])
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
        (at,) = self.steps.flows(step)
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
                message = self.received(out)
                if message.extra is not None:
                    ratio = message.extra / stabilize(self._values[out], 1e-12)
                    self._messages[out] = Message(add(message.ratio, ratio), None)
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
            parents = {step.inputs[p] for p in self.steps.flows(step)}
            rest = parents - {root}
            if len(rest) > 1 and not all(self._comes_from(n, root) for n in rest):
                return False
            if len(rest) != 1:
                return True
            (number,) = rest
        return True

    def _pull(self, step: Step, flows: list[int], part: int) -> list[Any] | None:
        """Transpose the derivative of a step, with respect to operands, of one part of messages."""
        parts = [self.received(out)[part] for out in step.outputs]
        return transposed(step, flows, parts, [self._values[i] for i in step.inputs])

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
