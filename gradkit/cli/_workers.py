"""Running checks in several processes, in a way that a crash or Ctrl-C loses one check at most."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from gradkit._errors import describe
from gradkit.cli._discover import Task
from gradkit.cli._run import Result, Runner
from gradkit.cli._settings import Settings

Numbered = tuple[int, Task]
Done = Callable[[int, Result], bool]  # says whether to go on

_runner: Runner | None = None  # of a worker process; its modules stay loaded from task to task


def run_in_workers(
    tasks: Sequence[Task],
    settings: Settings,
    workers: int,
    begun: Callable[[Task], None],
    done: Done,
) -> None:
    """Run checks in worker processes, each of which imports the targets itself.

    A process that dies takes the pool of processes with it. What it was running is found out by
    running each check that was under way once more, alone; the rest goes on in a new pool.

    Args:
        tasks: The checks.
        settings: What was asked for on the command line.
        workers: How many processes.
        begun: Called when a check is handed out.
        done: Called with the number and result of a check; no more are handed out once it returns
            false, and those that are under way are waited for.
    """
    waiting: deque[Numbered] = deque(enumerate(tasks))
    while waiting:
        for number, task in _run_pool(waiting, settings, workers, begun, done):
            if not done(number, _run_alone(task, settings)):
                waiting.clear()


def _run_pool(
    waiting: deque[Numbered],
    settings: Settings,
    workers: int,
    begun: Callable[[Task], None],
    done: Done,
) -> list[Numbered]:
    """Run until everything is done, or a process dies: then, what was under way."""
    under_way: dict[Future[Result], Numbered] = {}
    with _pool(settings, min(workers, len(waiting))) as pool:
        while waiting or under_way:
            while waiting and len(under_way) < workers:
                number, task = waiting.popleft()
                try:
                    with _without_interrupts():  # processes start here, and inherit it
                        future = pool.submit(_run_here, task)
                except BrokenProcessPool:
                    return [*under_way.values(), (number, task)]
                under_way[future] = number, task
                begun(task)
            finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in finished:
                if isinstance(future.exception(), BrokenProcessPool):
                    continue
                number, task = under_way.pop(future)
                if not done(number, _result_of(future, task)):
                    waiting.clear()
            if any(future.done() for future in under_way):
                return list(under_way.values())
    return []


def _run_alone(task: Task, settings: Settings) -> Result:
    """Run one check in a process of its own."""
    with _pool(settings, 1) as pool:
        before = set(multiprocessing.active_children())
        with _without_interrupts():
            future = pool.submit(_run_here, task)
        own = [p for p in multiprocessing.active_children() if p not in before]
        try:
            return _result_of(future, task)
        except BrokenProcessPool:
            how = ", ".join(_how_it_died(_exit_code_of(process)) for process in own)
            text = describe(
                "the process that ran it died",
                got=how,
                fix="run it without --workers to see what it prints; memory may have run out",
            )
            return Result(task, None, text, 0.0)


def _result_of(future: Future[Result], task: Task) -> Result:
    """What a worker sent; an exception that it could not send otherwise is a result as well."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        return Result(task, None, f"{type(error).__name__}: {error}", 0.0)


def _exit_code_of(process: Any) -> int | None:
    """The exit code, once it is known: the pool's own thread may be the one that was told."""
    process.join()
    for _ in range(100):
        if process.exitcode is not None:
            break
        time.sleep(0.02)
    return process.exitcode


def _how_it_died(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextlib.contextmanager
def _pool(settings: Settings, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that do not outlive this block, whatever ends it."""
    before = set(multiprocessing.active_children())
    # JAX has threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (settings,))
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in before:
                process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is for this process: it ends the workers. What starts in here never sees it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(settings: Settings) -> None:
    """Set a worker process up."""
    global _runner
    sys.stdout = sys.stderr  # what targets print must not get into reports
    # Processes that share a device cannot each take all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _runner = Runner(settings)


def _run_here(task: Task) -> Any:
    assert _runner is not None
    return _runner.run(task)
