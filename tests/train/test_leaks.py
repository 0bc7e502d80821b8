"""A hundred epochs take no more memory, and no more programs, than the first ones."""

import gc
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax import monitoring

from gradkit.train import Callback, fit
from tests.train.problems import arrays, cross_entropy, in_order, network


@pytest.fixture
def compiled():
    """The programs that JAX has been asked to compile since."""
    found = []

    def note(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(about)

    monitoring.register_event_duration_secs_listener(note)
    yield found
    monitoring.unregister_event_duration_listener(note)


def resident():
    """Bytes of memory that this process holds."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


class Ledger(Callback):
    """Of each tenth epoch: bytes of arrays alive, programs compiled, bytes of memory."""

    def __init__(self, compiled):
        self.rows = []
        self._compiled = compiled

    def on_eval(self, moment):
        if moment.epoch % 10:
            return
        gc.collect()
        alive = sum(x.nbytes for x in jax.live_arrays())
        self.rows.append((alive, len(self._compiled), resident()))


def train(compiled, epochs, data, **options):
    """Returns the columns of the ledger."""
    ledger = Ledger(compiled)
    fit(
        cross_entropy, network(), data, epochs=epochs, eval_data=arrays(), ema_decay=0.9,
        optimizer=optax.adam(1e-2), progress=False, callbacks=[ledger], **options,
    )  # fmt: skip
    return np.array(ledger.rows).T


def test_a_hundred_epochs_keep_no_array_and_no_program(compiled):
    alive, programs, _ = train(compiled, 100, arrays())
    assert len(alive) == 10
    assert programs[0] == programs[-1] > 0
    assert alive[-1] <= alive[:3].max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "iterable"])
def test_a_hundred_epochs_keep_no_memory(kind, compiled, tmp_path):
    data = arrays() if kind == "arrays" else list(in_order(arrays(), 32, 1))
    alive, programs, memory = train(
        compiled, 120, data, checkpoint_dir=tmp_path, checkpoint_every=20
    )
    print(f"programs {programs[[0, -1]]}, arrays {alive[[0, 1, -1]]} bytes")
    print(f"memory {memory[[0, 1, 6, -1]] / 1e6} MB")
    assert programs[0] == programs[-1] > 0
    assert alive[-1] <= alive[:3].max()
    assert memory[-1] - memory[1] < 10e6, "100 epochs, the first 20 left out"


@pytest.mark.slow
def test_fit_called_again_and_again_keeps_no_memory(compiled):
    rows = []
    for _ in range(60):
        train(compiled, 2, arrays())
        gc.collect()
        rows.append((sum(x.nbytes for x in jax.live_arrays()), resident()))
    alive, memory = np.array(rows).T
    print(f"arrays {alive[[9, -1]]} bytes, memory {memory[[0, 9, 34, -1]] / 1e6} MB")
    assert alive[-1] == alive[9]
    assert memory[-1] - memory[9] < 10e6, "50 calls"
