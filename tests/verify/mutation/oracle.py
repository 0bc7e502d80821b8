"""Does a mutant change the gradient? Decided by JAX's own derivative of the bare function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.verify.mutation.rule import Rule

EQUIVALENT, DIFFERENT, BROKEN = "equivalent", "different", "broken"

_SCALES = (0.1, 0.5, 1.0, 3.0, 10.0)
_POINTS = 16  # at each scale, each under two cotangents
_RELATIVE = 1e-6
_FLOOR = 1e-10  # relative to the largest number of the gradient, or of its cotangent

# The programs run once: what they cost is their compilation.
_HASTY = {"xla_backend_optimization_level": 0}


class Verdict(NamedTuple):
    """What the oracle says of a mutant.

    Attributes:
        status: `EQUIVALENT`, `DIFFERENT`, or `BROKEN` where it raises.
        at_point: The largest relative error at the point of the check.
        elsewhere: The largest relative error at the other points of the domain.
    """

    status: str
    at_point: float
    elsewhere: float


class Places(NamedTuple):
    """Points and cotangents, one pair a row; the first two rows are the check's point."""

    points: list[np.ndarray]
    cotangents: Any


@functools.cache
def places_of(rule: Rule) -> Places:
    """Points of the rule's domain, at all scales and of all signs, in float64."""
    rng = np.random.default_rng(1)
    draws = [rule.draw(rng, scale) for scale in _SCALES for _ in range(_POINTS)]
    rows = [point for point in (rule.args, *draws) for _ in range(2)]
    points = [
        np.stack(column).astype("float64" if column[0].dtype.kind == "f" else "int32")
        for column in zip(*rows, strict=True)
    ]
    with jax.enable_x64(True):
        outputs = jax.eval_shape(jax.vmap(rule.primal), *points)
    return Places(points, jax.tree.map(lambda y: rng.standard_normal(y.shape), outputs))


def pull_back(f: Callable[..., Any], places: Places) -> tuple[list[Any], list[Any]]:
    """Values and gradients, row by row; integers have no gradient."""

    def row(y_bar, *xs):
        y, vjp = jax.vjp(f, *xs)
        gradients = [g for g in vjp(y_bar) if g.dtype != jax.dtypes.float0]
        return jax.tree.leaves(y), gradients

    return jax.vmap(row)(places.cotangents, *places.points)


@functools.cache
def reference_of(rule: Rule) -> tuple[list[Any], list[Any]]:
    """The values and gradients of the bare function."""
    program = jax.jit(functools.partial(pull_back, rule.primal), compiler_options=_HASTY)
    with jax.enable_x64(True):
        return jax.device_get(program(places_of(rule)))


def judge(rule: Rule, f: Callable[..., Any]) -> Verdict:
    """Compare the gradient of `f`, a mutant of `rule`, with the right one."""
    with jax.enable_x64(True):
        try:
            results = pull_back(f, places_of(rule))  # operation by operation: nothing to compile
        except Exception:  # shapes or types do not fit
            return Verdict(BROKEN, np.inf, np.inf)
    return _compare(rule, results, reference_of(rule))


def judge_all(functions: Mapping[Rule, Callable[..., Any]]) -> dict[Rule, Verdict]:
    """The same for functions of many rules, none of them broken, in one program."""

    def everything(places):
        return {
            rule.name: (pull_back(f, places[rule.name]), pull_back(rule.primal, places[rule.name]))
            for rule, f in functions.items()
        }

    program = jax.jit(everything, compiler_options=_HASTY)
    with jax.enable_x64(True):
        results = program({rule.name: places_of(rule) for rule in functions})
    return {rule: _compare(rule, *results[rule.name]) for rule in functions}


def _compare(rule: Rule, results: tuple[list, list], reference: tuple[list, list]) -> Verdict:
    sizes = np.max([_row_max(u) for u in jax.tree.leaves(places_of(rule).cotangents)], axis=0)
    pairs = [pair for both in zip(results, reference, strict=True) for pair in zip(*both)]
    errors = np.max([_errors(np.asarray(a), np.asarray(b), sizes) for a, b in pairs], axis=0)
    at_point, elsewhere = float(errors[:2].max()), float(errors[2:].max())
    counted = elsewhere if rule.kinked else max(at_point, elsewhere)
    return Verdict(DIFFERENT if counted > _RELATIVE else EQUIVALENT, at_point, elsewhere)


def _row_max(x: np.ndarray) -> np.ndarray:
    return np.abs(x).reshape(len(x), -1).max(axis=1)


def _errors(got: np.ndarray, right: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The largest relative error of each row; where the right number is not finite, none."""
    known = np.isfinite(right)
    right = np.where(known, right, 0.0)
    with np.errstate(all="ignore"):
        off = np.where(known, np.abs(got - right), 0.0)
    off = np.where(np.isnan(off), np.inf, off)
    floor = _FLOOR / _RELATIVE * np.maximum(_row_max(right), sizes)
    return _row_max(off / (np.abs(right) + floor.reshape(-1, *[1] * (right.ndim - 1))))
