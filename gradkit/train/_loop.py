"""The loop: hands out calls of many steps, and reads their numbers one call behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.train._callbacks import Callback, Moment
from gradkit.train._chunk import Chunk, make_chunk
from gradkit.train._history import History
from gradkit.train._pace import Pace
from gradkit.train._placement import settle
from gradkit.train._portion import Data, Portion
from gradkit.train._processes import Processes
from gradkit.train._progress import Display
from gradkit.train._readings import Call, Reading, Readings
from gradkit.train._state import State
from gradkit.train._update import ROLLBACK, Update

_MOST_ROLLBACKS = 10
_SECONDS = 0.05  # between two looks at the numbers
_MOST_CALLS = 32  # between two looks, so that the host is never far ahead of the device


@dataclass
class Every:
    """Something to do after every so many steps or seconds; after each epoch if both are `None`."""

    steps: int | None
    do: Callable[[], None]
    seconds: float | None = None
    _last: float = field(default_factory=time.monotonic)
    _rung: bool = False

    def is_due(self, step: int) -> bool:
        """Is it time, after so many steps?"""
        if self.steps is not None:
            return step % self.steps == 0
        rung, self._rung = self._rung, False
        return rung

    @property
    def has_rung(self) -> bool:
        """Is it time by the clock?"""
        return self.seconds is not None and time.monotonic() - self._last >= self.seconds

    def ring(self) -> None:
        """It is agreed that it is time."""
        self._rung, self._last = True, time.monotonic()


class HaltedError(Exception):
    """Training halted at a number that is not finite.

    Attributes:
        step: The step, counted from one.
        epoch: Its epoch, counted from one.
        batch: Its batch.
    """

    def __init__(self, step: int, epoch: int, batch: Any):
        super().__init__(step)
        self.step = step
        self.epoch = epoch
        self.batch = batch


@dataclass
class Loop:
    """A run in progress.

    Args:
        update: One step.
        state: Where it starts.
        data: The data.
        pace: How many steps a call takes.
        display: Shows how it goes.
        callbacks: Are told how it goes.
        copy_params: From a state to a copy of the user's model.
        most_steps: Steps after which it ends; `None` for no limit.
        most_epochs: Epochs after which it ends; `None` for no limit.
        interrupted: Has somebody asked for the end?
        processes: Those that train together.
        is_divided: Does it run on several devices?
        history: Filled.
        stop_reason: Why it ended; empty as long as it runs.
        epoch: Epochs completed.
        step: Steps handed out; all of them are taken where an event happens.
        epoch_began: The step with which the current epoch began.
        events: What happens on the way.
    """

    update: Update
    state: State
    data: Data
    pace: Pace
    display: Display
    callbacks: Sequence[Callback]
    copy_params: Callable[[State], Any]
    most_steps: int | None
    most_epochs: int | None
    interrupted: Callable[[], bool]
    processes: Processes
    is_divided: bool = False
    history: History = field(default_factory=History)
    stop_reason: str = ""
    epoch: int = 0
    step: int = 0
    epoch_began: int = 0
    events: list[Every] = field(default_factory=list)
    _readings: Readings | None = None
    _good: State | None = None
    _rollbacks: int = 0
    _last_read: float = 0.0
    _meeting: int = 0
    _wish: str = ""
    _chunks: dict[Any, Chunk] = field(default_factory=dict)

    def run(self, start: int) -> None:
        """Train, from batch `start` of the current epoch on.

        Raises:
            HaltedError: At a number that is not finite.
        """
        if not self.is_divided:
            self.state = settle(self.state)
        self._remember()
        while not self._is_over():
            before = self.step
            for portion in self.data.portions(self.epoch, start):
                self._run_portion(portion)
                if self.stop_reason:
                    break
            else:
                if self.step == before and not start:
                    self.stop_reason = "data"
                    break
                self.epoch += 1
                self.epoch_began = self.step
                self._after_epoch()
            start = 0
        self._drain(0)

    @property
    def compilations(self) -> int:
        """Training programs compiled so far."""
        return sum(chunk.compilations for chunk in self._chunks.values())

    @property
    def moment(self) -> Callable[[dict[str, float]], Moment]:
        """Makes the `Moment` of now."""
        params = lambda: self.copy_params(self.state)  # noqa: E731
        return lambda metrics: Moment(self.step, self.epoch, metrics, params)

    def _is_over(self) -> bool:
        if not self.stop_reason:
            if self.most_steps is not None and self.step >= self.most_steps:
                self.stop_reason = "steps"
            elif self.most_epochs is not None and self.epoch >= self.most_epochs:
                self.stop_reason = "epochs"
        return bool(self.stop_reason)

    def _run_portion(self, portion: Portion) -> None:
        done = 0
        while done < portion.count and not self._is_over():
            count = min(self.pace.steps, portion.count - done, self._until_next_event())
            done += self._take_steps(portion, done, count)
            done -= self._read_in_time()
            for event in self.events:
                if event.is_due(self.step):
                    self._happen(event)

    def _take_steps(self, portion: Portion, done: int, count: int) -> int:
        """Hand out a call of at most `count` steps; returns of how many."""
        chunk, source = self._chunk_of(portion), portion.source_at(done)
        if self._readings is None:
            self._readings = Readings(chunk.empty_logs(self.state), self.step)
        readings = self._readings
        if not readings.room:
            readings.ask(self.state)
        count = min(count, chunk.most, readings.room)
        self.state, readings.logs = chunk(self.state, readings.logs, source, count, readings.slot)
        readings.note(Call(portion, done, count, self.epoch))
        self.step += count
        return count

    def _read_in_time(self) -> int:
        """Read numbers a few times a second; returns how many steps are to be taken again."""
        if self.update.on_nonfinite == ROLLBACK:
            again = self._drain(0)  # a run that may have to go back looks before it goes on
        elif self._is_time():
            again = self._drain(1)
        else:
            return 0
        self._agree()
        return again

    def _is_time(self) -> bool:
        assert self._readings is not None
        if self._readings.calls >= _MOST_CALLS:
            return True
        if self.processes.are_several:  # clocks differ, steps do not
            return self.step >= self._meeting
        return time.monotonic() - self._last_read >= _SECONDS

    def _agree(self) -> None:
        """Decide, with the other processes, what depends on clocks, signals and callbacks."""
        self._last_read = time.monotonic()
        wish = self._wish or ("interrupt" if self.interrupted() else "")
        rung = [event.has_rung for event in self.events]
        heard = self.processes.exchange("loop", [wish, self.pace.wish, rung])
        if not self.stop_reason:
            self.stop_reason = next((wish for wish, *_ in heard if wish), "")
        self.pace.reach = min(steps for _, steps, _ in heard)
        self._meeting = self.step + self.pace.reach
        for event, is_time in zip(self.events, heard[0][2], strict=True):
            if is_time:
                event.ring()

    def wish_to_stop(self, reason: str) -> None:
        """Ask for the end of the run."""
        self._wish = self._wish or reason

    def _chunk_of(self, portion: Portion) -> Chunk:
        if portion.pick not in self._chunks:
            shardings = None
            if self.is_divided:
                whole = self.state.step.sharding
                shardings = jax.tree.map(lambda x: x.sharding, self.state), whole
            self._chunks[portion.pick] = make_chunk(
                self.update, portion.pick, self.state, portion.data, shardings
            )
        return self._chunks[portion.pick]

    def _until_next_event(self) -> int:
        limits = [e.steps - self.step % e.steps for e in self.events if e.steps is not None]
        if self.most_steps is not None:
            limits.append(self.most_steps - self.step)
        return min(limits, default=self.pace.most)

    def _after_epoch(self) -> None:
        for event in self.events:
            if event.steps is None and event.seconds is None:
                self._happen(event)

    def _happen(self, event: Every) -> None:
        self._drain(0)
        self._agree()
        if not self.stop_reason:
            event.do()
            self._remember()
            self.pace.pause()
            self._agree()

    def _remember(self) -> None:
        if self.update.on_nonfinite == ROLLBACK:
            self._good = jax.tree.map(jnp.copy, self.state)

    def _drain(self, keep: int) -> int:
        """Read the numbers of what was handed out; returns how many steps are to be taken again.

        Args:
            keep: How many copies of the logs to leave, for the device to get on meanwhile.
        """
        if self._readings is None:
            return 0
        self._readings.ask(self.state)
        for reading in self._readings.read(keep):
            self.pace.note(reading.taken)
            self._tell(reading.logs)
            if reading.halted:
                return self._go_back(reading)
        return 0

    def _tell(self, logs: dict[str, np.ndarray]) -> None:
        """Pass the numbers of further steps on."""
        self.history.add(logs)
        means = {name: float(values.mean()) for name, values in logs.items() if len(values)}
        if not means:
            return
        assert self._readings is not None
        moment = replace(self.moment(means), step=self._readings.step)
        self.display.show(moment.step, self.epoch, self.pace.rate, means)
        for callback in self.callbacks:
            if callback.on_chunk(moment):
                self.wish_to_stop("callback")

    def _go_back(self, reading: Reading) -> int:
        """Undo what was handed out after the step at which training halted."""
        assert self._readings is not None
        last = reading.taken - 1
        for call in reading.calls:
            if last < call.count:
                break
            last -= call.count
        handed_out = sum(call.count for call in reading.calls)
        dropped = sum(call.count for call in self._readings.forget(self._readings.step))
        missed = handed_out - reading.taken + dropped
        self.step -= missed
        if self.update.on_nonfinite != ROLLBACK or self._rollbacks >= _MOST_ROLLBACKS:
            raise HaltedError(self.step, call.epoch + 1, call.portion.batch(call.done + last))
        self._rollbacks += 1
        assert self._good is not None
        step = jnp.full_like(self._good.step, self.step)
        self.state = replace(jax.tree.map(jnp.copy, self._good), step=step)
        return missed
