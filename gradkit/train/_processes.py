"""The processes of one run, which decide together."""

from __future__ import annotations

import collections
import contextlib
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from gradkit._errors import ProcessError, describe
from gradkit._jax_compat import coordination_client

_RUNS: collections.Counter[tuple[int, ...]] = collections.Counter()
_POLL = 1.0  # seconds between two looks at whether another process failed
_LOST = ("UNAVAILABLE", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "Gloo", "heartbeat", "onnect")
_AGAIN = "start all processes again; with checkpoint_dir= and resume=True they go on"


class Processes:
    """Those that own the devices of a run; they say small things to each other over the network.

    A process alone hears itself, at no cost.

    Args:
        members: Their indices, this one's among them.
    """

    def __init__(self, members: tuple[int, ...]):
        self.members = members
        self._client = coordination_client() if len(members) > 1 else None
        if self._client is not None:
            _RUNS[members] += 1
        self._run = f"gradkit/{'-'.join(map(str, members))}/{_RUNS[members]}"
        self._rounds: collections.Counter[str] = collections.Counter()

    @property
    def is_first(self) -> bool:
        """Is this the one that shows progress and writes files?"""
        return jax.process_index() == self.members[0]

    @property
    def are_several(self) -> bool:
        """Is there anybody else?"""
        return self._client is not None

    def exchange(
        self, channel: str, value: Any, given_up: Callable[[], bool] = lambda: False
    ) -> list[Any]:
        """Say something, and hear what each process says, in the order of `members`.

        Args:
            channel: What it is about: each is a conversation of its own.
            value: Anything that JSON can hold.
            given_up: Is nobody interested any more?

        Raises:
            ProcessError: If another process failed, or cannot be reached.
        """
        if self._client is None:
            return [value]
        turn = self._rounds[channel]
        self._rounds[channel] += 1
        place = f"{self._run}/{channel}/{turn}"
        try:
            if not self.is_first:
                self._client.key_value_set(f"{place}/{jax.process_index()}", json.dumps(value))
                return json.loads(self._hear(f"{place}/all", given_up))
            others = [self._hear(f"{place}/{one}", given_up) for one in self.members[1:]]
            text = f"[{', '.join([json.dumps(value), *others])}]"
            self._client.key_value_set(f"{place}/all", text)
            if turn:  # everybody has heard what was said before
                self._client.key_value_delete(f"{self._run}/{channel}/{turn - 1}")
            return json.loads(text)
        except jax.errors.JaxRuntimeError as error:
            raise self._describe(error) from error

    def _hear(self, key: str, given_up: Callable[[], bool]) -> str:
        assert self._client is not None
        while True:
            try:
                return self._client.blocking_key_value_get(key, int(_POLL * 1000))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
            if given_up():
                raise ProcessError("nobody waits for this answer")
            failure = self._failure()
            if failure:
                raise ProcessError(
                    describe("another process of the run failed", got=failure, fix=_AGAIN)
                )

    def _failure(self) -> str:
        assert self._client is not None
        try:
            return self._client.key_value_try_get(f"{self._run}/failed")
        except jax.errors.JaxRuntimeError:
            return ""

    def _describe(self, error: BaseException) -> ProcessError:
        lines = str(error).strip().splitlines() or [""]
        got = self._failure() or lines[0][:200]
        return ProcessError(
            describe("another process of the run ended, or is out of reach", got=got, fix=_AGAIN)
        )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails here in one process ends the others too, instead of leaving them waiting.

        Raises:
            ProcessError: If it is another process that failed.
        """
        try:
            yield
        except ProcessError:
            raise
        except BaseException as error:
            if self._client is None:
                raise
            if isinstance(error, jax.errors.JaxRuntimeError) and _is_of_a_loss(error):
                time.sleep(_POLL)  # for the reason to arrive
                raise self._describe(error) from error
            text = f"{type(error).__name__} in process {jax.process_index()}: {error}"
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._client.key_value_set(f"{self._run}/failed", text, allow_overwrite=True)
            raise

    def check_same(self, what: str, tree: Any) -> None:
        """Have all processes been given the same arrays?

        Raises:
            ProcessError: If not.
        """
        if self._client is None:
            return
        sums = self.exchange(f"same {what}", _fingerprint(tree))
        other = [one for one, s in zip(self.members, sums, strict=True) if s != sums[0]]
        if other:
            raise ProcessError(
                describe(
                    f"{what}= of fit is not the same in all processes",
                    expected="the same arrays everywhere",
                    got=f"other ones in process {', '.join(map(str, other))}",
                    fix="make parameters from the same seed, and give all processes all of the "
                    "arrays; an iterable may give each process batches of its own",
                )
            )


def _is_of_a_loss(error: BaseException) -> bool:
    return any(word in str(error) for word in _LOST)


def _fingerprint(tree: Any) -> int:
    total = 0
    for x in jax.tree.leaves(tree):
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            continue  # one array of all processes
        if hasattr(x, "dtype") and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = np.asarray(x)
            total = zlib.crc32(f"{x.dtype}{x.shape}".encode(), total)
            total = zlib.crc32(np.ascontiguousarray(x).view(np.uint8).reshape(-1).data, total)
        elif isinstance(x, float):
            total = zlib.crc32(np.float64(x).tobytes(), total)
    return total
