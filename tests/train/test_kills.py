"""SIGKILL at any moment: the run, started again, ends as if nothing had happened."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train.killed import CALL, EVERY, train
from tests.train.problems import assert_same_bits

ROOT = Path(__file__).parents[2]


def start(folder, steps):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.train.killed", str(folder), str(steps)]
    return subprocess.Popen(command, env=environment, cwd=ROOT)


def seen(folder):
    """Steps that this life of the run has seen."""
    path = folder / "log"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def newest(folder):
    """The step of the newest checkpoint that is whole."""
    names = [path.name for path in (folder / "run").glob("*")]
    return max([int(name) for name in names if name.isdecimal()], default=0)


def is_torn(folder, since):
    """Has it begun, since then, to write a checkpoint that is not whole?"""
    for path in (folder / "run").glob("*tmp*"):
        with contextlib.suppress(FileNotFoundError):  # whole by now
            if path.stat().st_mtime > since:
                return True
    return False


def live_until(is_over, folder, steps):
    """One life of the run; returns where it began, what it saw, what is left."""
    before = newest(folder)
    (folder / "log").unlink(missing_ok=True)
    process = start(folder, steps)
    try:
        while not is_over():
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    steps_seen, left = seen(folder), newest(folder)
    if steps_seen:
        assert steps_seen[0] <= before + CALL, "it went on from the newest checkpoint"
        # One checkpoint may be in writing, and the steps up to the next go on meanwhile.
        assert steps_seen[-1] - left <= 2 * EVERY
    assert left >= before, "no checkpoint was lost"
    return before, steps_seen, left


def end(folder, steps):
    """Let it end; returns what it found."""
    process = start(folder, steps)
    try:
        assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()
    return dict(np.load(folder / "end.npz"))


def assert_same_end(found, steps):
    whole = train(steps)
    assert whole.keys() == found.keys()
    for name in whole:
        assert_same_bits(whole[name], found[name])


def test_a_killed_run_ends_the_same(tmp_path):
    _, steps, left = live_until(lambda: len(seen(tmp_path)) >= 7, tmp_path, 60)
    assert steps[0] <= CALL
    assert 0 < left < 60
    assert_same_end(end(tmp_path, 60), 60)


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_the_same(tmp_path):
    """As it starts, compiles and reads; between steps; while a checkpoint is written."""
    rng = np.random.default_rng(0)
    torn = 0
    for kind in ["start", "steps", "write", "steps", "write"] * 4:
        began, wait = time.time(), rng.uniform(0, 5 if kind == "start" else 1.5)
        steps_began = [began] if kind == "start" else []

        def is_over():
            if not steps_began and seen(tmp_path):
                steps_began.append(time.time())
            if not steps_began or time.time() < steps_began[0] + wait:
                return False
            return kind != "write" or is_torn(tmp_path, began)

        before, steps, left = live_until(is_over, tmp_path, 4000)
        was_torn = is_torn(tmp_path, began)
        torn += was_torn
        print(f"{kind}: from {before} to {steps[-1:]}, kept {left}, torn: {was_torn}")
    assert torn >= 6, "of eight that were killed while writing, and others"
    assert_same_end(end(tmp_path, 4000), 4000)
