"""One line of the catalogue's table, and how its figures are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]


@dataclass(frozen=True)
class Comparison:
    """An entry at one shape, beside plain autodiff and named peers.

    Attributes:
        name: The entry, as "losses.linear_cross_entropy".
        shape: The sizes and options, to be read.
        arguments: What all sides are called with; float32 unless the entry says otherwise.
        ours: The entry: arguments to anything; differentiated through the sum of its outputs'
            products with fixed random numbers.
        plain: The same in plain code, differentiated by JAX. The exact values come from it in
            float64, too, unless `exact` is there.
        peers: Other packages' functions by name, differentiated likewise.
        argnums: The differentiated arguments.
        exact: What to compute values and gradients in float64 with; `plain` if None.
        whole: Whether the functions are themselves what is timed (they compute gradients
            already), instead of value and gradient of their outputs.
        aim: What the entry promises, to be read.
        drawn: Whether the shape was drawn from the seed.
    """

    name: str
    shape: str
    arguments: tuple[Any, ...]
    ours: Function
    plain: Function
    peers: dict[str, Function] = field(default_factory=dict)
    argnums: tuple[int, ...] = (0,)
    exact: Function | None = None
    whole: bool = False
    aim: str = ""
    drawn: bool = False


@dataclass
class Figures:
    """What was measured for one side.

    Attributes:
        seconds: Median time of a call.
        memory: Bytes of temporaries of the compiled program.
        value_error: Largest error of the value, in units of the largest exact value.
        gradient_error: The same of the gradients, leaf by leaf; the largest.
        failure: Why there are none: the error's text.
    """

    seconds: float = float("nan")
    memory: int = 0
    value_error: float = float("nan")
    gradient_error: float = float("nan")
    failure: str = ""


def measure(comparison: Comparison, rounds: int, seconds: float) -> dict[str, Figures]:
    """Figures of all sides, who take turns; "ours", "plain", and the peers by name.

    Args:
        comparison: What to compare.
        rounds: Turns of each side at most.
        seconds: When to stop taking turns, after three.
    """
    sides = {"ours": comparison.ours, "plain": comparison.plain, **comparison.peers}
    found = {name: Figures() for name in sides}
    exact = _exact(comparison)
    compiled = {}
    for name, side in sides.items():
        try:
            program = jax.jit(_differentiated(side, comparison)).lower(*comparison.arguments)
            compiled[name] = program.compile()
            memory = compiled[name].memory_analysis()
            found[name].memory = memory.temp_size_in_bytes
            result = jax.block_until_ready(compiled[name](*comparison.arguments))
        except Exception as error:
            compiled.pop(name, None)
            found[name].failure = f"{type(error).__name__}: {error}".split("\n", 1)[0][:200]
        else:
            found[name].value_error, found[name].gradient_error = _errors(result, exact)
    times: dict[str, list[float]] = {name: [] for name in compiled}
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - start > seconds:
            break
        for name, program in compiled.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(*comparison.arguments))
            times[name].append(time.perf_counter() - begin)
    for name, taken in times.items():
        found[name].seconds = statistics.median(taken)
    return found


def _differentiated(side: Function, comparison: Comparison) -> Function:
    if comparison.whole:
        return side

    def value_and_gradients(*arguments: Any) -> tuple[Any, Any]:
        def weighed(*differentiated: Any) -> Any:
            every = list(arguments)
            for position, argument in zip(comparison.argnums, differentiated, strict=True):
                every[position] = argument
            out = side(*every)
            return sum(map(_weigh, jax.tree.leaves(out))), out

        chosen = tuple(arguments[position] for position in comparison.argnums)
        gradient = jax.grad(weighed, argnums=tuple(range(len(chosen))), has_aux=True)
        gradients, out = gradient(*chosen)
        return out, gradients

    return value_and_gradients


def _weigh(out: jax.Array) -> jax.Array:
    if out.ndim == 0:
        return out
    weights = np.random.default_rng(0).standard_normal(out.shape).astype(np.float32)
    return jnp.vdot(jnp.asarray(weights, out.dtype), out)


def _exact(comparison: Comparison) -> Any:
    with jax.enable_x64(True):
        wide = jax.tree.map(_widen, comparison.arguments)
        function = _differentiated(comparison.exact or comparison.plain, comparison)
        return jax.tree.map(np.asarray, jax.jit(function)(*wide))


def _widen(leaf: Any) -> Any:
    floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, jnp.float64) if floating else leaf


def _errors(found: Any, exact: Any) -> tuple[float, float]:
    return tuple(
        max(map(_error, jax.tree.leaves(mine), jax.tree.leaves(right)), default=0.0)
        for mine, right in zip(found, exact, strict=True)
    )


def _error(found: Any, exact: np.ndarray) -> float:
    if not np.issubdtype(exact.dtype, np.floating) or not exact.size:
        return float(not np.array_equal(found, exact))
    scale = float(np.max(np.abs(exact))) or 1.0
    return float(np.max(np.abs(np.asarray(found, np.float64) - exact))) / scale
