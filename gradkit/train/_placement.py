"""Where things lie: batches divided among devices, parameters copied or divided too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gradkit._errors import describe, did_you_mean
from gradkit.train._state import State

REPLICATED, FSDP = "replicated", "fsdp"
_DATA = "data"


@dataclass(frozen=True)
class Placement:
    """Devices, and how a run is laid out on them.

    Attributes:
        mesh: The devices; batches are divided along its first axis.
        params: `"replicated"`, `"fsdp"` (each parameter divided along its longest axis), or a
            tree of `PartitionSpec` like the parameters.
    """

    mesh: Mesh
    params: Any = REPLICATED

    @property
    def batch(self) -> NamedSharding:
        """Of a batch: divided along its first axis."""
        return NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names[0]))

    @property
    def whole(self) -> NamedSharding:
        """A copy on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def place_params(self, params: Any) -> Any:
        """Parameters where they belong.

        Raises:
            ValueError: If a tree of `PartitionSpec` is not like the parameters.
        """
        if self.params == REPLICATED:
            return put(params, self.whole)
        if self.params == FSDP:
            return jax.tree.map(lambda x: put(x, self._divided(x)), params)
        is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
        specs = jax.tree.leaves(self.params, is_leaf=is_spec)
        leaves, structure = jax.tree.flatten(params)
        if len(specs) != len(leaves) or not all(map(is_spec, specs)):
            raise ValueError(
                describe(
                    "param_sharding= of fit does not fit the parameters",
                    expected=f"'replicated', 'fsdp', or {len(leaves)} PartitionSpecs in their tree",
                    got=f"{len(specs)} leaves",
                )
            )
        shardings = [NamedSharding(self.mesh, spec) for spec in specs]
        placed = [put(x, s) for x, s in zip(leaves, shardings, strict=True)]
        return jax.tree.unflatten(structure, placed)

    def place_rest(self, state: State) -> State:
        """Everything that does not lie on these devices yet, copied to each of them."""
        devices = set(self.mesh.devices.flat)

        def place(x: Any) -> Any:
            return x if x.sharding.device_set == devices else put(x, self.whole)

        return jax.tree.map(place, state)

    @property
    def members(self) -> tuple[int, ...]:
        """The processes whose devices these are."""
        return tuple(sorted({d.process_index for d in self.mesh.devices.flat}))

    def divide(self, batch: Any, size: int) -> Any:
        """A batch, divided among the devices if its `size` can be."""
        if size % self.mesh.devices.shape[0]:
            return batch
        return jax.lax.with_sharding_constraint(batch, self.batch)

    def _divided(self, x: Any) -> NamedSharding:
        axis = self.mesh.axis_names[-1]
        n = self.mesh.shape[axis]
        fits = [(size, i) for i, size in enumerate(x.shape) if size % n == 0 and size >= n]
        if not fits:
            return self.whole
        _, where = max(fits)
        return NamedSharding(self.mesh, PartitionSpec(*(None,) * where, axis))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays where they belong; each process has all of them, and keeps its part."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: _put_part(x, sharding), tree)


def _put_part(x: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _put_part(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    # Not device_put, which sends the whole array around to compare it.
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def settle(tree: Any) -> Any:
    """Arrays that are all committed to the device if one of them is.

    A program commits what it returns, so that the second call of a mixture would be compiled again.
    """
    committed = next((x for x in jax.tree.leaves(tree) if x.committed), None)
    return tree if committed is None else jax.device_put(tree, committed.sharding)


def put_shares(batches: Any, sharding: NamedSharding) -> Any:
    """Arrays of which each process has its share, one after the other along the divided axis."""
    if sharding.is_fully_addressable:
        return jax.device_put(batches, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batches
    )


def make_placement(mesh: Mesh | None, params: Any) -> Placement | None:
    """The placement on `mesh`; by default on all accelerators, if there are several.

    With several processes, on all devices of all of them.

    Raises:
        ValueError: If `params` is no known rule.
    """
    if isinstance(params, str) and params not in (REPLICATED, FSDP):
        text = f"fit has no param_sharding={params!r}{did_you_mean(params, (REPLICATED, FSDP))}"
        raise ValueError(describe(text, expected="'replicated', 'fsdp' or a tree of PartitionSpec"))
    if mesh is None:
        devices = jax.devices()
        alone = jax.process_count() == 1
        if alone and (len(devices) == 1 or devices[0].platform == "cpu"):
            return None
        mesh = Mesh(np.array(devices), (_DATA,))
    # Explicit axes would make sharding a part of the types that the loss function sees.
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)
    return Placement(auto, params)
