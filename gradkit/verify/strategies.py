"""Hypothesis strategies for the points of gradient checks: shapes, numbers, arrays, trees, keys.

They draw on purpose what gradients go wrong at: zeros, ties, kinks, tiny and huge numbers, axes of
one, repeated indices. Everything shrinks towards zeros, few numbers and bare arrays. Arrays are
NumPy's, of any type that JAX has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import describe

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as st_numpy
except ModuleNotFoundError as missing:
    raise ImportError(
        describe(
            f"{__name__} needs hypothesis, which is not installed",
            fix="pip install 'gradkit[hypothesis]'",
        )
    ) from missing

__all__ = [
    "arrays",
    "broadcastable_shapes",
    "floats",
    "indices",
    "keys",
    "points",
    "pytrees",
    "shapes",
]

Shape = tuple[int, ...]
Strategy = st.SearchStrategy[Any]

_BOUND = 100.0
_ORDINARY = 8.0
_SPEC = re.compile(
    r"(?P<kind>[a-z]+)(?P<bits>\d*)\[(?P<shape>[\d,\s]*)\](?:(?P<sign>[<>])(?P<bound>[-.\de]+))?"
)
_SHORT = {"f": "float", "bf": "bfloat", "c": "complex", "i": "int", "u": "uint"}
_INTEGERS = 10  # integers are drawn below it, unless a spec says otherwise
_DRAWN = 128  # numbers of an array that are drawn one by one
_MARGIN = 1 / 16  # from a bound that is not a point of the domain itself


def shapes(
    min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[Shape]:
    """Shapes of arrays, from scalars on. `min_side=0` adds empty arrays.

    Example:
        >>> from hypothesis import find
        >>> find(shapes(), lambda shape: len(shape) == 2)
        (1, 1)
    """
    return st_numpy.array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )


def broadcastable_shapes(
    n: int, *, max_dims: int = 3, max_side: int = 4
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """`n` shapes that broadcast together, some with axes of one and some with fewer axes.

    Example:
        >>> from hypothesis import find
        >>> find(broadcastable_shapes(2), lambda pair: len(pair[0]) < len(pair[1]))
        ((), (1,))
    """
    return st_numpy.mutually_broadcastable_shapes(
        num_shapes=n, max_dims=max_dims, max_side=max_side
    ).map(lambda drawn: drawn.input_shapes)


def floats(
    dtype: Any = "float32",
    *,
    min_value: float = -_BOUND,
    max_value: float = _BOUND,
    kinks: Sequence[float] = (),
) -> Strategy:
    """Numbers at which gradients differ in kind.

    Zero, one, minus one and the kinks; what is next to a kink; whole and ordinary numbers; numbers
    as tiny as the type allows for; the largest. None is subnormal, since XLA takes those for zero.

    Args:
        dtype: A floating-point or complex type. Both parts of a complex number are drawn alike.
        min_value: The smallest number.
        max_value: The largest number.
        kinks: Where the function is not smooth, such as the ends of a clip.

    Returns:
        A strategy of NumPy scalars.

    Example:
        >>> from hypothesis import find
        >>> find(floats(), lambda number: number > 1)
        np.float32(2.0)
        >>> find(floats("float16", min_value=0.1, max_value=0.9, kinks=[0.5]), lambda kink: True)
        np.float16(0.5)
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        part = floats(jnp.finfo(dtype).dtype, min_value=min_value, max_value=max_value, kinks=kinks)
        # The imaginary part first: what is drawn first shrinks first.
        return st.builds(lambda imag, real: dtype.type(complex(real, imag)), part, part)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(describe("dtype= of floats", expected="a float type", got=dtype.name))
    low, high = _representable(dtype, min_value, max_value)
    smallest = float(jnp.finfo(dtype).smallest_normal)

    def fit(x: float) -> Any:
        near = float(np.asarray(x).astype(dtype))
        near = 0.0 if abs(near) < smallest else near
        return dtype.type(min(max(near, low), high))

    def among(*values: float) -> list[Strategy]:
        inside = dict.fromkeys(v for v in values if low <= v <= high)
        return [st.sampled_from([*inside])] if inside else []

    def between(a: float, b: float) -> list[Strategy]:
        a, b = max(low, a), min(high, b)
        return [st.floats(a, b)] if a <= b else []

    step = float(jnp.finfo(dtype).eps) * 8
    beside = [k + sign * step * max(1.0, abs(k)) for k in (1.0, *kinks) for sign in (1, -1)]
    tiny = [sign * 2.0**-k for k in (8, 16, 32, 64) for sign in (1, -1) if 2.0**-k >= smallest]
    whole = range(math.ceil(max(low, -_ORDINARY)), math.floor(min(high, _ORDINARY)) + 1)
    kinds = [
        *among(0.0, 1.0, -1.0, *kinks),
        *([st.integers(whole[0], whole[-1])] if whole else []),
        *between(-_ORDINARY, _ORDINARY),
        *among(*beside),
        *among(*tiny),
        *between(low, high),
        *among(high, low),
    ]
    return st.one_of(kinds).map(fit)


def _representable(dtype: Any, min_value: float, max_value: float) -> tuple[float, float]:
    """The outermost numbers of a type within an interval."""
    limit = float(jnp.finfo(dtype).max)
    low, high = dtype.type(max(min_value, -limit)), dtype.type(min(max_value, limit))
    if float(low) < min_value:
        low = np.nextafter(low, dtype.type(np.inf))
    if float(high) > max_value:
        high = np.nextafter(high, dtype.type(-np.inf))
    if not float(low) <= float(high):
        raise ValueError(
            describe(
                f"no {dtype.name} is from {min_value} to {max_value}",
                expected="min_value <= max_value",
            )
        )
    return float(low), float(high)


def arrays(
    shape: Any = None, dtype: Any = "float32", *, elements: Strategy | None = None
) -> Strategy:
    """Arrays, one in three with ties on purpose: one of the numbers again in other places.

    In an array of more than 128 numbers, each of them comes more than once.

    Args:
        shape: A shape, or a strategy of shapes. Default: `shapes()`.
        dtype: Any type of numbers or booleans.
        elements: The numbers, as values of `dtype`. Default: `floats(dtype)`, integers from 0 to
            9, or booleans.

    Returns:
        A strategy of NumPy arrays.

    Example:
        >>> from hypothesis import find
        >>> find(arrays((2, 3)), lambda x: x.any())
        array([[0., 0., 0.],
               [0., 0., 1.]], dtype=float32)
    """
    dtype = jnp.dtype(dtype)
    numbers = _elements(dtype) if elements is None else elements
    if shape is None:
        shape = shapes()
    elif isinstance(shape, int):
        shape = (shape,)
    some = shape if isinstance(shape, st.SearchStrategy) else st.just(tuple(shape))
    return some.flatmap(lambda fixed: _arrays(fixed, dtype, numbers))


@st.composite
def _arrays(draw: st.DrawFn, shape: Shape, dtype: Any, elements: Strategy) -> np.ndarray:
    size = math.prod(shape)
    x = draw(st_numpy.arrays(dtype, min(size, _DRAWN), elements=elements, fill=st.nothing()))
    if size > _DRAWN:
        places = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).permutation(size)
        x = np.resize(x, size)[places]
    x = x.reshape(shape)
    if size > 1 and draw(st.sampled_from((False, False, True))):
        places = sorted(draw(st.sets(st.integers(0, size - 1), min_size=2)))
        x.flat[places] = x.flat[draw(st.sampled_from(places))]
    return x


def _elements(dtype: Any) -> Strategy:
    if jnp.issubdtype(dtype, jnp.inexact):
        return floats(dtype)
    return st.booleans() if dtype.name == "bool" else st.integers(0, _INTEGERS - 1)


def indices(n: int, shape: Any = (), dtype: Any = "int32") -> Strategy:
    """Arrays of indices into an axis of length `n`, some of them repeated.

    Example:
        >>> from hypothesis import find
        >>> find(indices(5, (3,)), lambda i: i[0] > i[1])
        array([1, 0, 0], dtype=int32)
    """
    if n < 1:
        raise ValueError(describe("n= of indices", expected="at least 1", got=repr(n)))
    return arrays(shape, dtype, elements=st.integers(0, n - 1))


def keys() -> Strategy:
    """PRNG keys.

    Example:
        >>> from hypothesis import find
        >>> find(keys(), lambda key: True)
        Array((), dtype=key<fry>) overlaying:
        [0 0]
    """
    return st.integers(0, 2**32 - 1).map(jax.random.key)


def pytrees(leaves: Strategy | None = None, *, max_leaves: int = 5) -> Strategy:
    """Trees of tuples, lists and dicts with at least one leaf.

    Args:
        leaves: Default: `arrays()`.
        max_leaves: About how many of them at most.

    Example:
        >>> from hypothesis import find
        >>> find(pytrees(floats()), lambda tree: isinstance(tree, dict))
        {'a': np.float32(0.0)}
    """
    some = arrays() if leaves is None else leaves
    names = st.sampled_from(["a", "b", "c"])

    def branch(children: Strategy) -> Strategy:
        several = st.lists(children, min_size=1, max_size=3)
        named = st.dictionaries(names, children, min_size=1)
        return several.map(tuple) | several | named

    return st.recursive(some, branch, max_leaves=max_leaves)


def points(*specs: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    """Arguments of a function, all at once.

    Args:
        *specs: One for each argument: a text as the command line has it, such as `"f32[8,4]"`,
            `"f32[3]>0"`, `"i32[8]<10"` or `"key"`; an array, a number or a `jax.ShapeDtypeStruct`
            to be like; a strategy; or a tree of all these. Integers stay within the range of
            those that they are to be like. Everything else is an argument as it is.

    Example:
        >>> from hypothesis import find
        >>> find(points("f32[2]", {"w": np.ones(1), "axis": 0}), lambda point: True)
        (array([0., 0.], dtype=float32), {'axis': 0, 'w': array([0.])})
        >>> find(points("i32[2]<4", "max"), lambda drawn: drawn[0].sum() > 3)
        (array([1, 3], dtype=int32), 'max')
    """
    leaves, structure = jax.tree.flatten(specs)
    drawn = st.tuples(*(_like(leaf) for leaf in leaves))
    return drawn.map(lambda values: jax.tree.unflatten(structure, values))


def _like(leaf: Any) -> Strategy:
    if isinstance(leaf, st.SearchStrategy):
        return leaf
    if isinstance(leaf, str):
        return _read(leaf)
    if type(leaf) in (float, complex):
        return floats(type(leaf)).map(type(leaf))
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        return st.just(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return keys() if leaf.shape == () else st.just(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.integer) and not isinstance(leaf, jax.ShapeDtypeStruct):
        values = np.asarray(leaf)
        low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
        return arrays(leaf.shape, leaf.dtype, elements=st.integers(low, high))
    return arrays(leaf.shape, leaf.dtype)


def _read(spec: str) -> Strategy:
    """The strategy that a text such as `f32[8,4]` stands for."""
    if spec.strip() == "key":
        return keys()
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        return st.just(spec)
    try:
        dtype = jnp.dtype(_SHORT.get(match["kind"], match["kind"]) + match["bits"])
    except TypeError:
        what = f"no type {match['kind'] + match['bits']!r} in {spec!r}"
        raise TypeError(describe(what, expected="f32, bf16, c64, i32, u8, bool, ...")) from None
    shape = tuple(int(n) for n in match["shape"].replace(" ", "").split(",") if n)
    if match["sign"] is None:
        return arrays(shape, dtype)
    bound, above = float(match["bound"]), match["sign"] == ">"
    if not jnp.issubdtype(dtype, jnp.inexact):
        low, high = (int(bound) + 1, int(bound) + _INTEGERS) if above else (0, int(bound) - 1)
        return arrays(shape, dtype, elements=st.integers(low, high))
    if above:
        elements = floats(dtype, min_value=bound + _MARGIN)
    else:
        elements = floats(dtype, max_value=bound - _MARGIN)
    return arrays(shape, dtype, elements=elements)
