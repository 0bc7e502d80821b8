"""Several processes on one machine: the training of one, whatever happens to any of them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.train import fit
from tests.train.problems import arrays, cross_entropy, in_order, network

ROOT = Path(__file__).parents[2]
OPTIONS = {"optimizer": optax.adam(1e-2), "progress": False}
TRAIN = (cross_entropy, network(), arrays())
# JAX's own thread may end a process before ours has heard of the loss.
SAID_OF_A_LOSS = ("ProcessError", "JAX distributed service detected fatal errors")
JOBS = ["evaluated", "divided", "shares", "stopped", "other_parameters", "raised"]


@contextlib.contextmanager
def running(folder, jobs, count, devices=1):
    """The processes; none is left behind."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }
    started = []
    for i in range(count):
        command = [sys.executable, "-m", "tests.train.worker", str(port), str(count), str(i)]
        log = (folder / f"log-{i}").open("w")
        started.append(
            subprocess.Popen([*command, str(folder), *jobs], env=environment, cwd=ROOT, stdout=log,
                             stderr=log)
        )  # fmt: skip
        log.close()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def run(folder, jobs, count, devices=1, seconds=240):
    """What each process found, by job."""
    with running(folder, jobs, count, devices) as started:
        for i, process in enumerate(started):
            assert process.wait(seconds) == 0, (folder / f"log-{i}").read_text()
    return {
        job: [json.loads((folder / f"{job}-{i}.json").read_text()) for i in range(count)]
        for job in jobs
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return folder, run(folder, JOBS, 2)


def assert_is(told, result):
    np.testing.assert_allclose(told["loss"], result.history["loss"], rtol=1e-4)
    assert (told["step"], told["stop"]) == (result.step, result.stop_reason)


def evaluated_by_one():
    options = OPTIONS | {"optimizer": optax.adam(0.3)}
    return fit(*TRAIN, eval_data=arrays(), epochs=16, eval_every=2, patience=2, **options)


def shares_by_one():
    return fit(*TRAIN[:2], list(in_order(arrays(96), 16, 1)), epochs=2, **OPTIONS)


def check_trainings(folder, found):
    """Each process tells the same, and it is what one device finds."""
    for job in ("evaluated", "divided", "shares", "stopped"):
        first, *others = found[job]
        assert all(other == first for other in others), job
    one = evaluated_by_one()
    told = found["evaluated"][0]
    assert_is(told, one)
    assert (told["stop"], told["best"]) == ("patience", one.best_step)
    for mine, theirs in zip(told["evaluations"], one.history.evaluations, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
    assert_is(found["divided"][0], fit(*TRAIN, epochs=2, **OPTIONS))
    assert found["divided"][0]["params"] is None, "no process has all of them"
    assert_is(found["shares"][0], shares_by_one())
    first, second = (found["stopped"][0][name] for name in ("first", "second"))
    assert first["stop"] == "interrupt"
    assert 4 <= first["step"] < 1000
    assert_is(second, fit(*TRAIN, steps=first["step"] + 4, **OPTIONS))


def test_two_processes_find_what_one_device_does(found):
    check_trainings(*found)


def test_progress_and_curves_are_the_first_ones(found):
    folder, _ = found
    assert (folder / "curves-0").is_dir()
    assert not (folder / "curves-1").exists()
    assert "steps/s" in (folder / "log-0").read_text()
    assert "steps/s" not in (folder / "log-1").read_text()


def test_their_checkpoint_is_read_by_one(found, tmp_path):
    folder, jobs = found
    step = jobs["stopped"][0]["second"]["step"] + 4
    options = OPTIONS | {"checkpoint_dir": folder / "stopped", "resume": True}
    assert_same = np.testing.assert_allclose
    whole = fit(*TRAIN, steps=step, **OPTIONS)
    resumed = fit(*TRAIN, steps=step, **options)
    assert_same(resumed.history["loss"], whole.history["loss"], rtol=1e-4)
    assert resumed.step == step


def test_other_parameters_are_named(found):
    for told in found[1]["other_parameters"]:
        assert told["error"] == "ProcessError"
        assert "params= of fit is not the same in all processes" in told["text"]
        assert "other ones in process 1" in told["text"]


def test_an_error_of_one_ends_the_others_with_its_text(found):
    other, one = found[1]["raised"]
    assert (one["error"], one["text"]) == ("OSError", "no such disk")
    assert other["error"] == "ProcessError"
    assert "another process of the run failed" in other["text"]
    assert "OSError in process 1: no such disk" in other["text"]


@pytest.mark.slow
def test_four_processes_of_two_devices_find_it_too(tmp_path):
    check_trainings(tmp_path, run(tmp_path, JOBS, 4, devices=2))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim"), [(2, 0), (2, 1), (4, 0), (4, 2)])
def test_a_killed_process_ends_the_others_and_a_restart_goes_on(tmp_path, count, victim):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = run(whole, ["long"], count)["long"][0]
    with running(killed, ["long"], count) as started:
        sign = killed / "runs-0"
        while not (sign.exists() and int(sign.read_text() or 0) > 50):
            assert all(process.poll() is None for process in started)
            time.sleep(0.05)
        started[victim].send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        for one, process in enumerate(started):
            if one != victim:
                assert process.wait(max(60 - (time.monotonic() - killed_at), 1)) != 0
        print(f"the others ended within {time.monotonic() - killed_at:.1f} s")
    for one in set(range(count)) - {victim}:
        log = (killed / f"log-{one}").read_text()
        said = [text for text in SAID_OF_A_LOSS if text in log]
        print(f"process {one} of {count}, {victim} killed: {said}")
        assert said, log
    again = run(killed, ["long"], count)["long"]
    assert all(told == expected for told in again)


def test_initialising_twice_changes_nothing(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert gk.train.initialize("127.0.0.1:1", 2, 0) is None
