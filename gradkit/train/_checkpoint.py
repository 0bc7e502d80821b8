"""Checkpoints: written by orbax in the background, whole or not at all, and read with care."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import CheckpointError, ProcessError, describe
from gradkit.train._folder import Folder
from gradkit.train._processes import Processes

_FORMAT = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        arrays: A pytree of arrays, PRNG keys included, whose types the run knows beforehand.
        position: Numbers and texts: where the run is.
        logs: Arrays of any length, by name.
    """

    arrays: Any
    position: dict[str, Any]
    logs: Mapping[str, np.ndarray]


class Checkpoints:
    """The checkpoints of one run in one folder, which no other run can use meanwhile.

    Args:
        folder: The folder; made if need be. All processes of the run see it.
        keep: How many to keep, the newest ones.
        processes: Those of the run, which write and read together.

    Raises:
        ImportError: Without orbax, the extra `checkpoint`.
        CheckpointError: If the folder cannot be written to, or another run uses it.
    """

    def __init__(self, folder: str | Path, keep: int, processes: Processes):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            text = "checkpoint_dir= needs orbax: pip install 'gradkit[checkpoint]'"
            raise ImportError(text) from error
        self._ocp = ocp
        self._step: int | None = None
        self._failed: Exception | None = None
        self._folder = Folder(Path(folder))
        self._processes = processes
        self._together(self._folder.lock if processes.is_first else lambda: None)
        # Where a folder cannot be made, threads that wait for it would keep the process alive for
        # five minutes after its end (orbax 0.12).
        at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=False, async_options=at_once
        )
        if processes.members != tuple(range(jax.process_count())):
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=processes.members[0], active_processes=set(processes.members)
            )
        self._manager = ocp.CheckpointManager(self._folder.path, options=options)

    def save(self, step: int, saved: Saved) -> None:
        """Begin to write; the arrays may be given away when this returns.

        Warns:
            UserWarning: If it, or the one before, could not be written.
        """
        self._wait()
        self._step, self._failed = step, None
        self._try(self._write, step, saved)

    def _wait(self) -> None:
        """Wait for what is being written, and take note of what orbax has to tell of it."""
        self._try(self._manager.wait_until_finished)
        self._try(self._manager.check_for_errors)

    def _try(self, act: Callable[..., None], *args: Any) -> None:
        """Act, and warn of the first thing that keeps a checkpoint from being written."""
        try:
            act(*args)
        except Exception as error:
            if self._failed is None:
                self._failed = error
                warnings.warn(
                    f"checkpoint {self._step} could not be written: {_first_line(error)}",
                    stacklevel=2,
                )

    def _write(self, step: int, saved: Saved) -> None:
        args = self._ocp.args
        leaves = [_as_data(x) for x in jax.tree.leaves(saved.arrays)]
        about = {"format": _FORMAT, "types": _types(saved.arrays), "position": saved.position}
        items = args.Composite(
            arrays=args.StandardSave({str(i): x for i, x in enumerate(leaves)}),
            logs=args.StandardSave({"": np.zeros(1), **saved.logs}),
            about=args.JsonSave(about),
        )
        self._manager.save(step, args=items, force=True)

    def finish(self) -> None:
        """Wait for the last checkpoint.

        Raises:
            CheckpointError: If it cannot be written.
        """

        def check() -> None:
            if self._failed is not None:
                raise self._failed

        self._wait()
        try:
            self._together(check)
        except ProcessError:
            raise
        except Exception as error:
            raise CheckpointError(
                describe(
                    f"the last checkpoint could not be written to {self._folder.path}",
                    got=_first_line(error),
                )
            ) from error

    def close(self) -> None:
        """Leave the folder to others."""
        try:
            self._wait()
            with contextlib.suppress(Exception):  # orbax tells again of what failed before
                self._manager.close()
        finally:
            self._folder.unlock()

    def newest(self, like: Any) -> tuple[int, Saved] | None:
        """The newest checkpoint that can be read, or `None` if there is none.

        Args:
            like: Arrays of the types and structure that it must have.

        Raises:
            CheckpointError: If it was written by a run of another structure.

        Warns:
            UserWarning: For each that is damaged, or no checkpoint of `fit`.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                types, position = self._together(self._read_about, step)
                self._compare(step, types, _types(like))
                arrays = self._together(self._read_arrays, step, like)
                return step, Saved(arrays, position, self._together(self._read_logs, step))
            except (CheckpointError, ProcessError):
                raise
            except Exception as error:
                self._warn_of(step, error)
        return None

    def _together(self, act: Callable[..., _T], *args: Any) -> _T:
        """The answer of `act`, if it went well in all processes; else an error in all of them."""
        answer, error = None, None
        try:
            answer = act(*args)
        except Exception as raised:
            error = raised
        told = None if error is None else f"{type(error).__name__}: {error}"
        found = next(filter(None, self._processes.exchange("checkpoint", told)), None)
        if error is not None:
            raise error
        if found is not None:
            message = f"in another process, {found}"
            raise OSError(message)
        return cast(_T, answer)

    def _read_about(self, step: int) -> tuple[dict[str, str], dict[str, Any]]:
        about = self._restore(step, "about", self._ocp.args.JsonRestore())
        if about["format"] != _FORMAT:
            message = f"format {about['format']}"
            raise ValueError(message)
        return about["types"], about["position"]

    def _restore(self, step: int, item: str, arg: Any) -> Any:
        return self._manager.restore(step, args=self._ocp.args.Composite(**{item: arg}))[item]

    def _read_arrays(self, step: int, like: Any) -> Any:
        leaves, structure = jax.tree.flatten(like)
        wanted = {
            str(i): jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for i, x in enumerate(map(_as_data, leaves))
        }
        found = self._restore(step, "arrays", self._ocp.args.StandardRestore(wanted))
        pairs = zip(leaves, (found[str(i)] for i in range(len(leaves))), strict=True)
        return jax.tree.unflatten(structure, [_as_key(x, data) for x, data in pairs])

    def _read_logs(self, step: int) -> dict[str, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that their shapes were not given
            found = self._restore(step, "logs", self._ocp.args.StandardRestore())
        return {name: np.asarray(values) for name, values in found.items() if name}

    def _compare(self, step: int, written: dict[str, str], own: dict[str, str]) -> None:
        lines = list(_differences(written, own))
        if lines:
            raise CheckpointError(
                describe(
                    f"checkpoint {step} in {self._folder.path} is of another model or optimizer",
                    expected="the same arrays",
                    got="\n            ".join(lines[:12]),
                    fix="resume with the model and optimizer that wrote it, or use another folder",
                )
            )

    def _warn_of(self, step: int, error: Exception) -> None:
        text = f"checkpoint {step} in {self._folder.path} is damaged, or none of fit: "
        text += _first_line(error)
        warnings.warn(text, stacklevel=2)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_data(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _as_key(like: Any, data: Any) -> Any:
    if not _is_key(like):
        return data
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))


def _types(tree: Any) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}".replace(" ", "")
        for path, x in leaves
    }


def _differences(written: dict[str, str], own: dict[str, str]) -> Iterator[str]:
    for path in sorted(written.keys() | own.keys()):
        there, here = written.get(path, "nothing"), own.get(path, "nothing")
        if there != here:
            yield f"{path}: {there} in the checkpoint, {here} here"
