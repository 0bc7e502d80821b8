"""Pytrees as the vectors that solvers compute with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import SolverError, describe
from gradkit._trees import describe_type, is_array, leaves_with_names

Tree = Any


@dataclass(frozen=True)
class Space:
    """The pytrees of one structure, as vectors of one dtype, at least float32.

    Attributes:
        structure: The structure.
        types: The type of each leaf.
        dtype: The dtype of the vectors.
    """

    structure: Any
    types: tuple[jax.ShapeDtypeStruct, ...]
    dtype: Any

    @staticmethod
    def of(tree: Tree, name: str) -> Space:
        """The space that a pytree of real floating-point arrays is in.

        Raises:
            SolverError: If a leaf is something else.
        """
        for path, leaf in leaves_with_names(tree):
            if not is_array(leaf) or not jnp.issubdtype(jax.typeof(leaf).dtype, jnp.floating):
                raise SolverError(
                    describe(
                        f"{name}{path} is not something to solve for.",
                        expected="real floating-point arrays",
                        got=describe_type(leaf),
                        fix="pass what is fixed as a further argument; take real and imaginary "
                        "parts of what is complex",
                    )
                )
        leaves, structure = jax.tree.flatten(tree)
        types = tuple(
            jax.ShapeDtypeStruct(jax.typeof(leaf).shape, jax.typeof(leaf).dtype) for leaf in leaves
        )
        if not types:
            raise SolverError(
                describe(f"{name} holds no array.", expected="at least one to solve for")
            )
        dtype = jnp.result_type(jnp.float32, *(t.dtype for t in types))
        return Space(structure, types, dtype)

    @property
    def size(self) -> int:
        """The length of the vectors."""
        return sum(prod(t.shape) for t in self.types)

    @property
    def precision(self) -> float:
        """The rounding unit of the coarsest leaf."""
        return max(float(jnp.finfo(t.dtype).eps) for t in self.types)

    def vector(self, tree: Tree) -> jax.Array:
        """A pytree as a vector."""
        leaves = [jnp.ravel(leaf).astype(self.dtype) for leaf in jax.tree.leaves(tree)]
        return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)

    def tree(self, vector: jax.Array) -> Tree:
        """A vector as a pytree."""
        leaves, start = [], 0
        for t in self.types:
            stop = start + prod(t.shape)
            leaves.append(vector[start:stop].reshape(t.shape).astype(t.dtype))
            start = stop
        return jax.tree.unflatten(self.structure, leaves)

    def on_vectors(self, fn: Callable[[Tree], Tree]) -> Callable[[jax.Array], jax.Array]:
        """A function from the space to the space, on its vectors."""
        return lambda vector: self.vector(fn(self.tree(vector)))

    def check_same(self, tree: Tree, what: str) -> None:
        """Check that another pytree, arrays or their types, is in the space.

        Raises:
            SolverError: If it is not.
        """
        leaves, structure = jax.tree.flatten(tree)
        types = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        if structure != self.structure or types != self.types:
            raise SolverError(
                describe(
                    f"{what} does not have the structure, shapes and dtypes that it must have.",
                    expected=self._show(self.types, self.structure),
                    got=self._show(types, structure),
                )
            )

    @staticmethod
    def _show(types: tuple[jax.ShapeDtypeStruct, ...], structure: Any) -> str:
        shown = [f"{t.dtype.name}{list(t.shape)}" for t in types]
        return str(jax.tree.unflatten(structure, shown)).replace("'", "")


def default_tolerance(space: Space) -> float:
    """Three quarters of the digits that the dtype has: 6e-6 in float32, 2e-12 in float64."""
    return space.precision**0.75
