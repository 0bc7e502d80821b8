"""Stacks of reversible blocks, whose gradient needs the stack's output only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradkit._custom import custom_gradient
from gradkit._errors import RuleError, describe
from gradkit._trees import describe_type, leaves_with_names

Tree = Any
Block = Callable[..., Tree]


def reversible(f: Block, g: Block, params: tuple[Tree, Tree], x: tuple[Tree, Tree], *args: Any):
    r"""A stack of residual blocks that keeps its output, instead of activations of every layer.

    $$ y_1 = x_1 + f(p, x_2), \quad y_2 = x_2 + g(q, y_1) \qquad\Longleftrightarrow\qquad
       x_2 = y_2 - g(q, y_1), \quad x_1 = y_1 - f(p, x_2) $$

    The backward pass computes each layer's input again from its output, so memory does not grow
    with the number of layers, for one more evaluation of `f` and `g`: the price of
    `jax.checkpoint`, which keeps every layer's input.

    The inputs come back to rounding, not exactly: each layer adds the rounding of one sum. It
    stays harmless while the residual branches do not amplify (docs/operations/reversible.md has
    figures); in bfloat16 hold `x` in float32 and compute in bfloat16 inside `f` and `g`.

    Args:
        f: `(p, x2, *args) -> ` what is added to `x1`, of its types.
        g: `(q, y1, *args) -> ` what is added to `x2`, of its types.
        params: `(p, q)`, pytrees of arrays with the layers along axis 0. Either may be empty.
        x: `(x1, x2)`, pytrees of floating-point arrays.
        *args: Pytrees that all layers share; they get gradients. What `f` and `g` close over may
            not be differentiated.

    Returns:
        `(y1, y2)`, after the last layer.

    Raises:
        RuleError: If the parameters have no common axis of layers, or a block returns other types
            than it is added to.
        ClosureGradientError: If a value that `f` or `g` closes over is differentiated.

    Keeps:
        `y1`, `y2`, and the arguments. Second derivatives differentiate the backward pass, which
        then keeps every layer, as forward mode does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def block(w, x):
        ...     return jnp.tanh(x @ w)
        >>> w = 0.1 * jnp.ones((16, 4, 4))  # 16 layers
        >>> def loss(w):
        ...     y1, y2 = reversible(block, block, (w, w), (jnp.ones(4), jnp.ones(4)))
        ...     return jnp.sum(y1 * y2)
        >>> print(jax.grad(loss)(w).shape)
        (16, 4, 4)

    Source:
        Gomez, Ren, Urtasun & Grosse, *The reversible residual network* (2017), arXiv:1707.04585.
    """
    x = jax.tree.map(jnp.asarray, x)
    _check_layers(params)
    _check_blocks(f, g, params, x, args)

    # gk's own custom_gradient: it has a forward mode, and names values that are closed over.
    @custom_gradient
    def stack(params, x, args):
        def forward(carry, layer):
            (x1, x2), (p, q) = carry, layer
            y1 = _add(x1, f(p, x2, *args))
            return (y1, _add(x2, g(q, y1, *args))), None

        y, _ = lax.scan(forward, x, params)

        def grad(y1_bar, y2_bar):
            return _backward(f, g, params, args, y, (y1_bar, y2_bar))

        return y, grad

    return stack(params, x, args)


def _backward(f: Block, g: Block, params: Tree, args: Any, y: Tree, y_bar: Tree) -> tuple:
    """The cotangents of the parameters, the input and the shared arguments, last layer first."""
    real, rest = _split(args)

    def call(block):
        return lambda p, x, real: block(p, x, *_join(real, rest))

    def backward(carry, layer):
        ((y1, y2), (y1_bar, y2_bar), args_bar), (p, q) = carry, layer
        p_real, p_rest = _split(p)
        q_real, q_rest = _split(q)
        run_g = lambda q, y1, real: call(g)(_join(q, q_rest), y1, real)  # noqa: E731
        run_f = lambda p, x2, real: call(f)(_join(p, p_rest), x2, real)  # noqa: E731
        change, pull = jax.vjp(run_g, q_real, y1, real)
        x2 = jax.tree.map(jnp.subtract, y2, change)
        q_bar, through, g_args_bar = pull(y2_bar)
        x1_bar = _add(y1_bar, through)
        change, pull = jax.vjp(run_f, p_real, x2, real)
        x1 = jax.tree.map(jnp.subtract, y1, change)
        p_bar, through, f_args_bar = pull(x1_bar)
        args_bar = _add(args_bar, _add(f_args_bar, g_args_bar))
        return ((x1, x2), (x1_bar, _add(y2_bar, through)), args_bar), (p_bar, q_bar)

    start = (y, y_bar, jax.tree.map(jnp.zeros_like, real))
    (_, x_bar, args_bar), (p_bar, q_bar) = lax.scan(backward, start, params, reverse=True)
    p, q = params
    return (_owed(p, p_bar), _owed(q, q_bar)), x_bar, _owed(args, args_bar)


def _split(tree: Tree) -> tuple[list[Any], Any]:
    """The floating-point leaves of a pytree, and what it takes to put them back."""
    leaves, structure = jax.tree.flatten(tree)
    is_real = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    real = [jnp.asarray(leaf) for leaf, real in zip(leaves, is_real, strict=True) if real]
    rest = [None if real else leaf for leaf, real in zip(leaves, is_real, strict=True)]
    return real, (structure, rest, is_real)


def _join(real: list[Any], rest: Any) -> Tree:
    structure, others, is_real = rest
    left = iter(real)
    leaves = [next(left) if r else other for r, other in zip(is_real, others, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def _owed(tree: Tree, bars: list[Any]) -> Tree:
    """Cotangents in the structure of their primals; None where there is none."""
    structure, rest, is_real = _split(tree)[1]
    return _join(bars, (structure, [None] * len(rest), is_real))


def _add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


def _check_layers(params: Any) -> None:
    if not isinstance(params, tuple) or len(params) != 2:
        raise RuleError(
            describe(
                "the parameters of gk.ops.reversible are no pair.",
                expected="(parameters of f, parameters of g)",
                got=describe_type(params),
            )
        )
    found = leaves_with_names(params)
    lengths = {jnp.shape(leaf)[:1] for _, leaf in found}
    if len(lengths) != 1 or () in lengths:
        raise RuleError(
            describe(
                "the parameters of gk.ops.reversible have no common axis of layers.",
                expected="arrays of one length along axis 0",
                got=", ".join(f"{describe_type(leaf)} at {path}" for path, leaf in found)
                or "no array",
                fix="stack the layers: jax.tree.map(lambda *layers: jnp.stack(layers), *params)",
            )
        )


def _check_blocks(f: Block, g: Block, params: Any, x: Any, args: Any) -> None:
    if not isinstance(x, tuple) or len(x) != 2:
        raise RuleError(
            describe(
                "the input of gk.ops.reversible is no pair.",
                expected="(x1, x2)",
                got=describe_type(x),
                fix="cut the features in two: x = tuple(jnp.split(x, 2, axis=-1))",
            )
        )
    first = jax.tree.map(lambda leaf: jax.eval_shape(lambda a: a[0], leaf), params)
    for block, p, taken, added, name in ((f, first[0], 1, 0, "f"), (g, first[1], 0, 1, "g")):
        found = jax.eval_shape(block, p, x[taken], *args)
        want = jax.eval_shape(lambda tree: tree, x[added])
        same = jax.tree.structure(found) == jax.tree.structure(want) and all(
            (a.shape, a.dtype) == (b.shape, b.dtype)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True)
        )
        if not same:
            raise RuleError(
                describe(
                    f"{name} of gk.ops.reversible returns something else than it is added to.",
                    expected=f"{_types(want)}, as x{added + 1}",
                    got=_types(found),
                )
            )


def _types(tree: Any) -> str:
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype.name}{list(leaf.shape)}", tree)).replace(
        "'", ""
    )
