"""Training of large tables whose steps touch few rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, widen
from gradkit._errors import describe

Tree = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SparseRows:
    """Some rows of a table, all others being zero: its gradient, or an update of it.

    `table + rows` adds them, so that `optax.apply_updates` does.

    Attributes:
        indices: Which rows, int32 `[n]`, ascending, each once; from `size` on they are unused room.
        rows: Their values, `[n, ...]`.
        size: The number of rows of the table.
    """

    indices: jax.Array
    rows: jax.Array
    size: int = field(metadata={"static": True})

    __array_ufunc__ = None  # a NumPy table is not to add row by row, but to leave it to __radd__

    @classmethod
    def sum_of(cls, indices: ArrayLike, rows: ArrayLike, size: int) -> SparseRows:
        """Collect rows, adding those of one index.

        Args:
            indices: Integers of any shape, as in `table[indices]`: negative ones count from the
                end. What is out of range is dropped.
            rows: Real, of that shape and the shape of a row: the gradient of `table[indices]`.
            size: The number of rows of the table.

        Returns:
            Room for as many rows as there are indices. Half precision is summed in float32.

        Raises:
            TypeError: If `rows` are complex, or `indices` are no integers.
            ValueError: If shapes do not fit.
        """
        rows, indices = as_floating("ops.SparseRows.sum_of", rows), jnp.asarray(indices)
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise TypeError(
                describe(
                    "gk.ops.SparseRows.sum_of takes integers as 'indices'.",
                    expected="integers",
                    got=str(indices.dtype),
                )
            )
        if rows.shape[: indices.ndim] != indices.shape:
            raise ValueError(
                describe(
                    "gk.ops.SparseRows.sum_of takes a row for each index.",
                    expected=f"rows {indices.shape}, followed by the shape of a row",
                    got=f"rows {rows.shape}",
                    fix="pass the gradient with respect to table[indices]",
                )
            )
        rows = rows.reshape(indices.size, *rows.shape[indices.ndim :])
        flat = indices.reshape(-1).astype(jnp.int32)
        flat = jnp.where(flat < 0, flat + size, flat)
        flat = jnp.where((flat < 0) | (flat >= size), size, flat)
        unique, place = jnp.unique(flat, size=flat.size, fill_value=size, return_inverse=True)
        total = jnp.zeros_like(widen(rows)).at[place].add(widen(rows)).astype(rows.dtype)
        # Unused room gets different numbers, so that scatters may rely on there being no doubles.
        room = size + jnp.arange(flat.size, dtype=jnp.int32)
        return cls(jnp.where(unique < size, unique, room), total, size)

    def of(self, table: ArrayLike) -> jax.Array:
        """The same rows of another table; 0 in unused room."""
        return (
            jnp.asarray(table)
            .at[self.indices]
            .get(mode="fill", fill_value=0, indices_are_sorted=True, unique_indices=True)
        )

    def put(self, table: ArrayLike) -> jax.Array:
        """Another table with these rows in the place of its own."""
        return (
            jnp.asarray(table)
            .at[self.indices]
            .set(self.rows, mode="drop", indices_are_sorted=True, unique_indices=True)
        )

    def dense(self) -> jax.Array:
        """The whole table, zeros and all."""
        return self.put(jnp.zeros((self.size, *self.rows.shape[1:]), self.rows.dtype))

    def __add__(self, table: ArrayLike) -> jax.Array:
        table = jnp.asarray(table)
        _check_table("SparseRows", self, table.shape, "the table")
        total = (self.of(table) + self.rows).astype(table.dtype)
        return SparseRows(self.indices, total, self.size).put(table)

    __radd__ = __add__


def lazy_rows(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""Let an optimizer see only the rows of a table that a step touches.

    Gradients may have `SparseRows` in the place of arrays. Of a table with such a gradient, the
    optimizer is given these rows: of the gradient, of the parameters, and of its own state, such
    as Adam's moments; its update is `SparseRows` again. A step costs what it touches, however large
    the table is, when parameters and state are donated (`jax.jit(step, donate_argnums=...)`), which
    lets them be changed in place.

    Differentiate with respect to `table[indices]`, and let `SparseRows.sum_of` add the rows of
    equal indices: the derivative with respect to `table` itself would be dense.

    With `optax.sgd` the result is the dense one. Optimizers with a memory become *lazy*, as in
    TensorFlow's LazyAdam: moments of rows that are not touched do not decay, and these rows do not
    move; Adam corrects its moments for the number of all steps.

    Args:
        optimizer: An optax transformation that acts in every step, and whose state of a table, if
            any, has the table's shape. Norms over a whole gradient are right, since other rows are
            0; norms of parameters (LAMB's) and weight decay see the rows that are touched. A chain
            goes in as a whole, `lazy_rows(optax.chain(...))`: outside, its links would take indices
            for values.

    Returns:
        An optax transformation with the state of `optimizer`. For dense gradients it is
        `optimizer`.

    Raises:
        ValueError: In `update`, if the state of a table has another shape (Adafactor's), or rows
            do not fit their table.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> table, words = jnp.zeros((1000, 2)), jnp.array([7, 3, 7])
        >>> loss = lambda vectors: jnp.sum((vectors - 1) ** 2)
        >>> optimizer = lazy_rows(optax.adam(0.1))
        >>> state = optimizer.init(table)
        >>> gradient = SparseRows.sum_of(words, jax.grad(loss)(table[words]), len(table))
        >>> print(gradient.indices[:2], gradient.rows[:2, 0])
        [3 7] [-2. -4.]
        >>> updates, state = optimizer.update(gradient, state, table)
        >>> table = optax.apply_updates(table, updates)
        >>> print(table[3].round(3), table[4])
        [0.1 0.1] [0. 0.]

    Source:
        `tf.IndexedSlices`; `tfa.optimizers.LazyAdam`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates: Tree, state: Tree, params: Tree | None = None, **extra: Any) -> Any:
        grads = updates
        if not any(map(_is_rows, jax.tree.leaves(grads, is_leaf=_is_rows))):
            return inner.update(grads, state, params, **extra)
        # Of each leaf of the state, the gradient whose rows it has, or False.
        touched = optax.tree.map_params(
            optimizer, lambda leaf, g: _is_rows(g) and not _is_masked(leaf) and g, state, grads,
            transform_non_params=lambda _: False, is_leaf=_is_masked,
        )  # fmt: skip
        near = _seen(touched, state, "the optimizer's state")
        near_params = params if params is None else _seen(grads, params, "the table")
        rows = _map(lambda g: g.rows if _is_rows(g) else g, grads)
        rows, near = inner.update(rows, near, near_params, **extra)
        return _map(_placed, grads, rows), _map(
            lambda g, old, new: _placed(g, new).put(old) if _is_rows(g) else new,
            touched, state, near,
        )  # fmt: skip

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _is_rows(x: Any) -> bool:
    return isinstance(x, SparseRows)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def _map(f: Any, tree: Tree, *rest: Tree) -> Tree:
    return jax.tree.map(f, tree, *rest, is_leaf=_is_rows)


def _placed(g: Any, new: jax.Array) -> Any:
    return SparseRows(g.indices, new, g.size) if _is_rows(g) else new


def _seen(rows: Tree, whole: Tree, what: str) -> Tree:
    """The tables with as many rows as were touched, and everything else as it is."""

    def of_leaf(g: Any, leaf: Any) -> Any:
        if not _is_rows(g):
            return leaf
        _check_table("lazy_rows", g, jnp.shape(leaf), what)
        return g.of(leaf)

    return _map(of_leaf, rows, whole)


def _check_table(name: str, rows: SparseRows, shape: tuple[int, ...], what: str) -> None:
    expected = (rows.size, *rows.rows.shape[1:])
    if shape != expected:
        raise ValueError(
            describe(
                f"gk.ops.{name} found rows that do not fit {what}.",
                expected=f"shape {expected}, as the SparseRows have it",
                got=f"shape {shape}",
                fix="give SparseRows.sum_of the table's number of rows, and use an optimizer "
                "whose state has the shape of the parameters",
            )
        )
