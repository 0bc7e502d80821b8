"""Messages that are handed back through a program, from its output to its input.

What is handed on is for the one who walks (relevance, multipliers): a *message* is a pytree of a
fixed structure, in which None stands for zero and everything else has the shape and dtype of the
value that it belongs to. Messages of one value add up. Through control flow they go as cotangents
do: a `scan` is walked in the other direction, its steps' values computed again from the carries
that they began with; of a `cond` the branch that was taken; of a `shard_map` every device its part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax

from gradkit._errors import AttributionInputError, describe
from gradkit.attribution._control import BACK
from gradkit.attribution._messages import add, is_none
from gradkit.attribution._steps import Step, Steps


class Walk(ABC):
    """One backward pass.

    Attributes:
        nothing: The message of a value that has received none.
        steps: The program.
        runs: Its values by number, at each of the points that are compared.
    """

    nothing: ClassVar[Any] = None

    def __init__(self, steps: Steps, runs: Sequence[dict[int, Any]]):
        self.steps, self.runs = steps, runs
        self._messages: dict[int, Any] = {}

    @abstractmethod
    def inside(self, steps: Steps, runs: Sequence[dict[int, Any]]) -> Self:
        """A walk through a program inside."""

    @abstractmethod
    def step(self, step: Step) -> None:
        """Hand on what the outputs of an operation have received."""

    def receive(self, number: int, message: Any) -> None:
        """Add a message to what a value has received."""
        if number in self.steps.dependent and not is_none(message):
            self._messages[number] = add(self.received(number), message)

    def received(self, number: int) -> Any:
        """What a value has received."""
        return self._messages.get(number, self.nothing)

    def run(self) -> None:
        """Hand everything on to the input."""
        for step in reversed(self.steps.steps):
            if not any(out in self._messages for out in step.outputs):
                continue
            if step.bodies:
                self._through_control_flow(step)
            elif step.name == "while" and step.rule is None:
                raise AttributionInputError(_while(step))
            else:
                self.step(step)

    def _through_control_flow(self, step: Step) -> None:
        operands = [[run[i] for i in step.inputs] for run in self.runs]
        outputs = [[run[o] for o in step.outputs] for run in self.runs]
        messages = [self.received(o) for o in step.outputs]
        sent = BACK[step.name](step, operands, outputs, messages, self._through)
        for number, message in zip(step.inputs, sent, strict=True):
            self.receive(number, message)

    def _through(
        self, body: Steps, operands: Sequence[Sequence[Any]], messages: Sequence[Any]
    ) -> list[Any]:
        """From messages at the outputs of a program inside to messages at its inputs."""
        walk = self.inside(body, [body.evaluate(xs) for xs in operands])
        for number, message in zip(body.outputs, messages, strict=True):
            walk.receive(number, message)
        walk.run()
        return [walk.received(number) for number in body.inputs]


def _while(step: Step) -> str:
    return describe(
        "the input flows through a while_loop, which nothing can be handed back through: how "
        "often it ran is not known when it is traced.",
        got=f"a while_loop in {step.scope!r}" if step.scope else "",
        fix="use jax.lax.scan, or jax.lax.fori_loop with a number of steps that is known when it "
        "is traced",
    )


def transposed(step: Step, flows: Sequence[int], y_bars: Sequence[Any], at: Sequence[Any]) -> Any:
    """The derivative of an operation, transposed.

    Args:
        step: The operation.
        flows: The positions of the operands with respect to which it is taken.
        y_bars: One cotangent per output; None is zero.
        at: The operands.

    Returns:
        One cotangent per position in `flows`, or None if there is no cotangent.
    """
    if all(y_bar is None for y_bar in y_bars):
        return None

    def function(*xs: Any) -> list[Any]:
        full = list(at)
        for p, x in zip(flows, xs, strict=True):
            full[p] = x
        return [y for y, y_bar in zip(step.run(*full), y_bars, strict=True) if y_bar is not None]

    _, pull = jax.vjp(function, *[at[p] for p in flows])
    return list(pull([y_bar for y_bar in y_bars if y_bar is not None]))
