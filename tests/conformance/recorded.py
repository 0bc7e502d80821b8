"""What TensorFlow answered: inputs and results of its runs, decoded, and how to compare with them.

`tensorflow_results.json` holds programs around `tf.custom_gradient`, `tf.RegisterGradient` and
`Graph.gradient_override_map`, run under TensorFlow 2.21.0 and Keras 3.15.1 on a CPU. Nothing in
it was computed with JAX.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

_PATH = Path(__file__).with_name("tensorflow_results.json")

# By dtype only. float32 also needs an absolute part: the two libraries' tanh and sin differ.
TOLERANCES = {
    "float16": {"rtol": 1e-3},
    "float32": {"rtol": 1e-5, "atol": 1e-6},
    "float64": {"rtol": 1e-9},
}


@dataclass(frozen=True)
class Raised:
    """An exception that TensorFlow raised: evidence, not a target."""

    type: str
    message: str


@dataclass(frozen=True)
class Case:
    """One recorded program.

    Attributes:
        name: Its name.
        mode: `eager`, `function` (inside `tf.function`) or `graph` (a version 1 graph).
        doc: What it shows.
        note: What its numbers depend on.
        inputs: Arrays by name.
        outputs: What it returned: arrays, None for "no gradient", `Raised`, nested containers.
    """

    name: str
    mode: str
    doc: str
    note: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, Any]

    def __getitem__(self, output: str) -> Any:
        return self.outputs[output]


@functools.cache
def _file() -> Mapping[str, Any]:
    return json.loads(_PATH.read_text(encoding="utf-8"))


def names() -> frozenset[str]:
    """The names of all recorded cases."""
    return frozenset(_file()["cases"])


def load(name: str) -> Case:
    """One recorded case, decoded afresh."""
    fields = _file()["cases"][name]
    return Case(name, **{key: _decoded(value) for key, value in fields.items()})


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value == {"none": True}:
        return None
    if {"dtype", "shape", "data"} <= value.keys():
        # "nan" and "inf" are strings, which NumPy reads as numbers.
        return np.array(value["data"], value["dtype"]).reshape(value["shape"])
    if "error" in value:
        return Raised(value["error"], value["message"])
    return {key: _decoded(item) for key, item in value.items()}


def assert_matches(got: Any, want: Any, *, rtol: float | None = None) -> None:
    """Compare gradkit's results with recorded ones: structure, shapes, dtypes and numbers.

    Args:
        got: Arrays in tuples, lists or dicts.
        want: The same from TensorFlow; None, its word for "no gradient", asks for zeros.
        rtol: A relative tolerance in place of the dtype's own.
    """
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for key in want:
            assert_matches(got[key], want[key], rtol=rtol)
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_matches(one, other, rtol=rtol)
    elif want is None:
        assert np.issubdtype(got.dtype, np.floating)
        np.testing.assert_array_equal(np.asarray(got), 0)
    elif isinstance(want, np.ndarray):
        assert isinstance(got, (jax.Array, np.ndarray))
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        tolerance = TOLERANCES.get(want.dtype.name, {"rtol": 0})
        if rtol is not None:
            tolerance = {**tolerance, "rtol": rtol}
        np.testing.assert_allclose(np.asarray(got), want, **tolerance)
    else:
        assert got == want
