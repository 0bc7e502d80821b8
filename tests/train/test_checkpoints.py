"""Interrupted runs end as if nothing had happened; folders that cannot be used are named."""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.train import fit
from gradkit.train._folder import Folder
from tests.train.problems import arrays, assert_same_bits, cross_entropy, in_order, network

OPTIONS = {"optimizer": optax.adam(1e-2), "progress": False}
VARIANTS = {
    "plain": {},
    "average and accumulation": {"ema_decay": 0.9, "accumulate": 2, "last_batch": "drop"},
    "float16": {"compute_dtype": jnp.float16},
    "patience": {"eval_data": arrays(), "eval_every": 3, "patience": 50},
    "a schedule": {"optimizer": optax.adam(optax.cosine_decay_schedule(1e-2, 20))},
}


def assert_same_run(one, other):
    assert_same_bits(one.params, other.params)
    assert_same_bits(one.opt_state, other.opt_state)
    assert_same_bits(one.ema_params, other.ema_params)
    assert set(one.history) == set(other.history)
    for name in one.history:
        assert_same_bits(one.history[name], other.history[name])
    assert one.history.evaluations == other.history.evaluations
    assert (one.step, one.best_step) == (other.step, other.best_step)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("stop", [5, 8], ids=["within an epoch", "at its end"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, options, stop):
    options = OPTIONS | options
    whole = fit(cross_entropy, network(), arrays(), steps=17, **options)
    options |= {"checkpoint_dir": tmp_path}
    fit(cross_entropy, network(), arrays(), steps=stop, **options)
    resumed = fit(cross_entropy, network(), arrays(), steps=17, resume=True, **options)
    assert_same_run(whole, resumed)


def test_a_stream_goes_on_where_it_was(tmp_path):
    batches = list(in_order(arrays(), 10, 1))
    whole = fit(cross_entropy, network(), batches, steps=25, **OPTIONS)
    fit(cross_entropy, network(), batches, steps=13, checkpoint_dir=tmp_path, **OPTIONS)
    resumed = fit(
        cross_entropy, network(), batches, steps=25, checkpoint_dir=tmp_path, resume=True, **OPTIONS
    )
    assert_same_run(whole, resumed)


def test_keys_in_a_model_are_kept(tmp_path):
    def noisy(params, state, batch):
        key, used = jax.random.split(state)
        return params * jax.random.normal(used) + 0 * batch.sum(), key

    start = 1.0, jax.random.key(3)
    options = {"has_state": True, "batch_size": 2, "progress": False}
    data = np.ones(20, np.float32)
    whole = fit(noisy, start, data, **options)
    fit(noisy, start, data, steps=4, checkpoint_dir=tmp_path, **options)
    resumed = fit(noisy, start, data, epochs=1, checkpoint_dir=tmp_path, resume=True, **options)
    assert_same_bits(whole.history["loss"], resumed.history["loss"])
    assert jax.random.key_data(whole.model_state).tolist() == (
        jax.random.key_data(resumed.model_state).tolist()
    )


def test_a_finished_run_has_nothing_to_do(tmp_path):
    options = OPTIONS | {"checkpoint_dir": tmp_path, "resume": True, "epochs": 2}
    one = fit(cross_entropy, network(), arrays(), **options)
    assert_same_run(one, fit(cross_entropy, network(), arrays(), **options))


def test_the_newest_are_kept(tmp_path):
    fit(cross_entropy, network(), arrays(), epochs=5, checkpoint_dir=tmp_path, checkpoint_every=4,
        keep_checkpoints=2, **OPTIONS)  # fmt: skip
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.is_dir()) == [16, 20]


def test_they_are_written_by_the_clock(tmp_path):
    seen = []
    fit(
        cross_entropy, network(), arrays(), epochs=400, checkpoint_dir=tmp_path,
        checkpoint_every=timedelta(seconds=0.2), steps_per_call=4, keep_checkpoints=1000,
        callbacks=[lambda m: seen.append(time.sleep(0.005))], **OPTIONS,
    )  # fmt: skip
    written = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert 2 <= len(written) < 50


def damage(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path):
    options = OPTIONS | {"checkpoint_dir": tmp_path}
    whole = fit(cross_entropy, network(), arrays(), steps=12, **OPTIONS)
    fit(cross_entropy, network(), arrays(), steps=8, checkpoint_every=4, **options)
    damage(tmp_path / "8")
    with pytest.warns(UserWarning, match="checkpoint 8 in .* is damaged"):
        resumed = fit(cross_entropy, network(), arrays(), steps=12, resume=True, **options)
    assert_same_run(whole, resumed)


def test_another_model_is_refused_with_what_differs(tmp_path):
    options = OPTIONS | {"checkpoint_dir": tmp_path}
    fit(cross_entropy, network(), arrays(), steps=2, **options)
    with pytest.raises(gk.CheckpointError, match="another model or optimizer") as caught:
        fit(cross_entropy, network(hidden=8), arrays(), steps=4, resume=True, **options)
    assert "['hidden']['w']: float32[8,16] in the checkpoint, float32[8,8] here" in str(
        caught.value
    )
    with pytest.raises(gk.CheckpointError, match="another model or optimizer"):
        fit(
            cross_entropy, network(), arrays(), steps=4, resume=True, progress=False,
            checkpoint_dir=tmp_path, optimizer=optax.sgd(0.1, momentum=0.9),
        )  # fmt: skip


def test_two_runs_in_one_folder_are_refused(tmp_path):
    def inner(moment):
        with pytest.raises(gk.CheckpointError, match="another run is using"):
            fit(cross_entropy, network(), arrays(), checkpoint_dir=tmp_path, **OPTIONS)

    fit(cross_entropy, network(), arrays(), checkpoint_dir=tmp_path, callbacks=[inner], **OPTIONS)


def test_a_folder_that_cannot_be_made_is_named_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(gk.CheckpointError, match="cannot be written(.|\n)*NotADirectory"):
        fit(lambda p, b: 1 / 0, 1.0, np.ones(2), checkpoint_dir=tmp_path / "file" / "x", **OPTIONS)


@pytest.mark.skipif(os.name == "nt", reason="folders have no modes there")
def test_a_folder_that_is_read_only_is_named_before_anything_runs(tmp_path, monkeypatch):
    tmp_path.chmod(0o555)
    if not os.geteuid():  # root may write everywhere: be nobody where it is tried

        def lock_as_nobody(folder, lock=Folder.lock):
            os.seteuid(65534)
            try:
                lock(folder)
            finally:
                os.seteuid(0)

        monkeypatch.setattr(Folder, "lock", lock_as_nobody)
    with pytest.raises(gk.CheckpointError, match="cannot be written to(.|\n)*PermissionError"):
        fit(lambda p, b: 1 / 0, 1.0, np.ones(2), checkpoint_dir=tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="files have no such limits there")
def test_a_disk_that_fails_costs_no_result(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.train.failing_disk", str(tmp_path)]
    options = {"env": os.environ | {"PYTHONPATH": str(root)}, "cwd": root, "check": True}
    # Where threads are left waiting, it takes five minutes to end.
    told = subprocess.run(command, stdout=subprocess.PIPE, timeout=200, **options).stdout
    found = json.loads(told)
    assert [run["step"] for run in found.values()] == [12, 12, 12, 12]
    for run in found.values():
        assert all("could not be written: " in text for text in run["warnings"])

    short, resumed = found["full for a while"], found["and resumed"]
    assert short["warnings"]
    assert not short["error"]
    assert short["kept"][-2:] == [10, 12], "it went on as soon as there was room"
    assert resumed == {"error": "", "kept": short["kept"], "step": 12, "warnings": []}
    for name, reason in (("full to the end", "File too large"), ("lost", "Not a directory")):
        assert found[name]["kept"] == []
        assert len(found[name]["warnings"]) >= 5
        assert "the last checkpoint could not be written to" in found[name]["error"]
        assert reason in found[name]["error"]


def test_without_orbax_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"gradkit\[checkpoint\]"):
        fit(cross_entropy, network(), arrays(), checkpoint_dir=tmp_path, **OPTIONS)
