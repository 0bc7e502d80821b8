"""What an entry of the bank is, and the words that the tables are written in."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradkit

FLOAT64, FLOAT32, BFLOAT16 = np.dtype(np.float64), np.dtype(np.float32), np.dtype(jnp.bfloat16)
ALL = (FLOAT64, FLOAT32, BFLOAT16)
FINE = (FLOAT64, FLOAT32)
"""For what bfloat16 has too few digits, or no implementation, to show."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A gradient to try a checker on.

    Args:
        name: Says what is wrong, or what is hard.
        make: From a floating dtype to a function and its arguments, which have that dtype. Call it
            once for each use: some functions remember what they have been called with.
        wrong: Whether the gradient is wrong.
        family: The kind of mistake, or of difficulty.
        reference: From a dtype to the same function without its rule, where there is one.
        options: Keywords for the check.
        dtypes: The dtypes in which the entry makes sense.
        needs_reference: Whether nothing but the reference tells that the gradient is wrong.
        where: From a dtype to arguments at which it is wrong, if it is right at those of `make`.
        shows: In what the wrong gradient differs: `tests.verify.bank.truth` has the list.
        kink: Whether the arguments are at a kink or jump, where the rule need not be the limit
            that autodiff of the reference takes.
        accuracy: Of a right gradient, where its own arithmetic is coarser than its dtype.
    """

    name: str
    make: Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]
    wrong: bool
    family: str
    reference: Callable[[Any], Callable[..., Any]] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtypes: tuple[np.dtype, ...] = ALL
    needs_reference: bool = False
    where: Callable[[Any], tuple[Any, ...]] | None = None
    shows: str = "reverse"
    kink: bool = False
    accuracy: float = 0.0


def scope(dtype):
    """JAX as a user of that dtype runs it."""
    return jax.enable_x64(True) if dtype == FLOAT64 else contextlib.nullcontext()


def options(entry, dtype, with_reference=True):
    """The keywords of the check for an entry in a dtype."""
    known = {"reference": entry.reference(dtype)} if with_reference and entry.reference else {}
    return {**entry.options, **known}


def half(entry):
    """Which half of the bank an entry is in: one to develop with, one to measure with."""
    digest = hashlib.sha256(f"{SALT}{entry.name}".encode()).digest()
    return "develop" if digest[0] % 2 else "measure"


SALT = "0:"
"""Another one would move entries that have been looked at into the half that has not."""


def entry(name, function, *arguments, reference=None, where=None, seed=0, **fields):
    """An entry for a function and `Draw`s of its arguments."""

    def make(dtype):
        made = function.factory() if isinstance(function, Anew) else function
        return made, draw_all(arguments, dtype, seed)

    return Entry(
        name,
        make,
        reference=None if reference is None else lambda dtype: reference,
        where=None if where is None else lambda dtype: draw_all(where, dtype, seed + 1),
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class Anew:
    """A function with a memory, to be made anew for each use."""

    factory: Callable[[], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Draw:
    """Numbers of a dtype that is not known yet."""

    numbers: Callable[[np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Made:
    """An argument that a library makes for a dtype: a module, parameters, a number."""

    factory: Callable[[Any], Any]


def draw_all(arguments, dtype, seed):
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if isinstance(leaf, Made):
            return leaf.factory(dtype)
        if not isinstance(leaf, Draw):
            return leaf
        numbers = leaf.numbers(rng)
        if np.iscomplexobj(numbers):
            return jnp.asarray(numbers, np.result_type(dtype, np.complex64))
        return jnp.asarray(numbers, dtype)

    return jax.tree.map(draw, tuple(arguments))


def normal(*shape, scale=1.0, shift=0.0):
    return Draw(lambda rng: shift + scale * rng.standard_normal(shape))


def uniform(*shape, low=0.0, high=1.0):
    return Draw(lambda rng: rng.uniform(low, high, shape))


def values(numbers):
    """These numbers, or what a function of no arguments returns."""
    return Draw(lambda rng: np.array(numbers, np.result_type(np.float64, np.asarray(numbers))))


def complex_normal(*shape, scale=1.0):
    return Draw(lambda rng: scale * (rng.standard_normal((*shape, 2)) @ np.array([1, 1j])))


def positive_definite(n):
    def numbers(rng):
        a = rng.standard_normal((n, n))
        return a @ a.T / n + np.eye(n)

    return Draw(numbers)


def well_conditioned(n):
    return Draw(lambda rng: rng.standard_normal((n, n)) / n + 2 * np.eye(n))


def vjp_rule(function, backward, forward=None, **options):
    """`jax.custom_vjp` by `backward(residuals, y_bar)`; the residuals are the arguments."""

    def rule(residuals, y_bar):
        cotangents = backward(residuals, y_bar)
        return cotangents if isinstance(cotangents, tuple) else (cotangents,)

    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(forward or (lambda *primals: (function(*primals), primals)), rule, **options)
    return wrapped


def jvp_rule(function, tangent):
    """`jax.custom_jvp` by `tangent(primals, tangents)`."""
    wrapped = jax.custom_jvp(function)
    wrapped.defjvp(lambda primals, tangents: (function(*primals), tangent(primals, tangents)))
    return wrapped


def registered(op_type, function, gradient):
    """A `gradkit.op` whose gradient is registered while it is called."""
    operation = gradkit.op(op_type)(function)

    def call(*primals):
        with gradkit.registry_scope():
            gradkit.RegisterGradient(op_type)(gradient)
            return operation(*primals)

    return call
