"""The linear layers of a program: a product with a parameter, and the bias added to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from gradkit.attribution._lrp_rules import Layer
from gradkit.attribution._steps import Step, Steps

PRODUCTS = ("dot_general", "conv_general_dilated")
_BETWEEN = ("reshape", "transpose", "squeeze", "convert_element_type")


@dataclass(frozen=True)
class Found:
    """A linear layer of a program.

    Attributes:
        steps: Its operations, in order: the product, what only moves its output, the bias.
        x: The number of the input.
        w: The number of the weight.
        b: The number of the bias, or None.
    """

    steps: tuple[Step, ...]
    x: int
    w: int
    b: int | None

    @property
    def scope(self) -> str:
        """The named scopes around the product."""
        return self.steps[0].scope

    @property
    def primitive(self) -> str:
        """The name of the product."""
        return self.steps[0].name

    def at(self, values: dict[int, Any]) -> Layer:
        """The layer with its values."""
        dtype = values[self.steps[-1].outputs[0]].dtype
        b = jnp.zeros((), dtype) if self.b is None else values[self.b]

        def apply(x: Any, w: Any, b: Any) -> Any:
            known = values | {self.x: x, self.w: w}
            if self.b is not None:
                known[self.b] = b
            for step in self.steps:
                outs = step.run(*[known[i] for i in step.inputs])
                known |= dict(zip(step.outputs, outs, strict=True))
            return known[self.steps[-1].outputs[0]]

        return Layer(apply, values[self.x], values[self.w], b)


def find_layers(steps: Steps) -> list[Found]:
    """The linear layers, in the order in which the program computes them."""
    readers = steps.consumers()
    found = []
    for step in steps.steps:
        for body in step.bodies:  # a layer in a loop is one layer
            found.extend(find_layers(body))
        if step.rule is None and step.name in PRODUCTS and len(steps.flows(step)) == 1:
            found.append(_layer(steps, step, readers))
    return found


def _layer(steps: Steps, product: Step, readers: dict[int, list[Step]]) -> Found:
    (at,) = steps.flows(product)
    x, w = product.inputs[at], product.inputs[1 - at]
    chain: list[Step] = [product]
    while (reader := _only_reader(steps, chain[-1], readers)) is not None and not reader.rule:
        others = [i for i in reader.inputs if i not in chain[-1].outputs]
        if reader.name == "add" and len(others) == 1 and others[0] not in steps.dependent:
            return Found((*chain, reader), x, w, others[0])
        if reader.name not in _BETWEEN:
            break
        chain.append(reader)
    return Found((product,), x, w, None)


def _only_reader(steps: Steps, step: Step, readers: dict[int, list[Step]]) -> Step | None:
    (out,) = step.outputs
    found: Sequence[Step] = readers.get(out, ())
    return found[0] if len(found) == 1 and out not in steps.outputs else None
