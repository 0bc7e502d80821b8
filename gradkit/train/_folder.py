"""A folder that one run has to itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gradkit._errors import CheckpointError, describe

_LOCK = ".gradkit-lock"


class Folder:
    """A folder, locked while it is used; the lock goes with the process, however that ends."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self._lock: Any = None

    def lock(self) -> None:
        """Make the folder, and take it.

        Raises:
            CheckpointError: If that cannot be.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / _LOCK).open("a")
        except OSError as error:
            raise CheckpointError(
                describe(
                    f"checkpoints cannot be written to {self.path}",
                    got=f"{type(error).__name__}: {error.strerror}",
                    fix="give a checkpoint_dir= that can be written to",
                )
            ) from error
        try:
            _lock_file(self._lock)
        except OSError as error:
            self._lock.close()
            raise CheckpointError(
                describe(
                    f"another run is using {self.path}",
                    fix="wait for it to end, or give each run a checkpoint_dir= of its own",
                )
            ) from error

    def unlock(self) -> None:
        """Leave it to others."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _lock_file(file: Any) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
