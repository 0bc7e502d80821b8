"""Layer-wise relevance propagation, on the program of an unmodified model.

Override rules alone cannot say it: a rule `(op, *y_bars)` does not see which operand of a product
is a parameter, nor the bias that is added to its output later, which the denominators contain. So
the model is traced and its program walked backwards (`_walk`, `_relevance`); the model itself stays
as it is, and the keys of a composite are those of an override map.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax

from gradkit._errors import UnusedOverrideWarning
from gradkit.attribution._composite import Composite, Rule
from gradkit.attribution._layers import find_layers
from gradkit.attribution._lrp_rules import Message
from gradkit.attribution._model import Model, hold_fixed, seed
from gradkit.attribution._reading import read
from gradkit.attribution._relevance import WEIGHTS, Relevance


def lrp(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    rules: Rule | Mapping[Any, Rule] | None = None,
) -> Any:
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

    Through `scan`, `cond`, `checkpoint`, `shard_map` and calls of functions relevance goes as
    through the operations inside: step by step (whose values are computed a second time, so that
    only carries are kept), by the branch that is taken, device by device.

    So without biases the relevances of an example sum to its output, up to what the rules'
    stabilisers `eps` take. With biases, what is theirs stays with them.

    Args:
        model: From `x` to logits `[N, K]` or one scalar per example `[N]`. Parameters are closed
            over: `functools.partial(module.apply, params)`, `jax.vmap(equinox_model)`. The logits,
            not probabilities: a softmax at the end has weights, and no relevance of its own.
        x: Real floating-point array `[N, ...]`, or a pytree with such arrays.
        target: The class, an integer or one per example `[N]`; a function from the output to one
            scalar per example; None for the largest logit.
        rules: One rule, or a composite: a mapping from layers to rules, in which the first key that
            matches counts. A key is the layer's place among all layers (`0`, `-1`), a type
            (`"Conv2D"`, `"MatMul"`), a pattern of named scopes before a colon
            (`"Conv_0:*"`, `"encoder/*:MatMul"`) or `"*"`. A layer that no key matches has the rule
            `epsilon()`, which is also the default. A layer in a `scan` counts once.

            A rule of your own is a function. Of a layer, `(layer, relevance)`: from a `Layer` and
            the relevance of its output to that of its input. Under any other key of an override
            map (`"Relu"`, `jax.nn.softmax`, `"block/*:Tanh"`), `(op, *relevances)`: from an
            `Op` and one relevance per output to one per input, None for zero, a bare value when
            there is one input. Such an operation is handled by its rule alone.

    Returns:
        Relevance, with `x`'s structure, shapes and dtypes; None for leaves of integers.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, the target does not fit, or
            relevance would have to go through a `while_loop`.
        OverrideKeyError: If nothing could match a key.
        OverrideValueError: If a rule is not a function.
        RuleError: If a rule of your own returns something else than relevance.

    Warns:
        UnusedOverrideWarning: If a key matches nothing in this model.

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
    model, x = hold_fixed(model, x)
    composite = Composite.of(rules)
    steps = read(model, x, opaque=WEIGHTS, claim=composite.claim)
    layers = find_layers(steps)
    chosen = composite.choose(layers)
    for key in composite.unused():
        warnings.warn(
            f"the key {key} of the composite matches no operation of the model",
            UnusedOverrideWarning,
            stacklevel=2,
        )
    leaves, structure = jax.tree.flatten(x)
    values = steps.evaluate(leaves)
    of_layers = {f.steps[-1]: (f, rule) for f, rule in zip(layers, chosen, strict=True)}
    walk = Relevance(steps, [values], of_layers)
    (out,) = steps.outputs
    walk.receive(out, Message(seed(values[out], target)))
    walk.run()
    return structure.unflatten([walk.relevance(number) for number in steps.inputs])
