"""Iterables of batches, and data that cannot be."""

import itertools
import threading

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradkit.train import fit
from tests.train.problems import arrays, assert_same_bits, cross_entropy, in_order, network

OPTIONS = {"optimizer": optax.adam(1e-2), "progress": False}


def test_an_iterable_gives_the_steps_of_arrays_to_the_last_bit():
    data = arrays()
    one = fit(cross_entropy, network(), data, epochs=2, shuffle=False, **OPTIONS)
    other = fit(cross_entropy, network(), list(in_order(data, 32, 1)), epochs=2, **OPTIONS)
    assert_same_bits(one.params, other.params)
    assert other.compilations == 2


def test_an_iterator_ends_the_training_when_it_ends():
    result = fit(cross_entropy, network(), in_order(arrays(), 50, 1), steps=10, **OPTIONS)
    assert (result.step, result.stop_reason) == (2, "data")


def test_an_endless_generator_is_read_as_far_as_needed():
    read = []

    def endless():
        for i in itertools.count():
            read.append(i)
            yield tuple(a[:16] for a in arrays())

    result = fit(cross_entropy, network(), endless(), steps=300, **OPTIONS)
    assert result.step == 300
    assert len(read) < 700
    assert not [t for t in threading.enumerate() if t.name == "gradkit-data" and not t.daemon]


def test_what_an_iterator_raises_reaches_the_caller():
    def broken():
        yield tuple(a[:16] for a in arrays())
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone") as caught:
        fit(cross_entropy, network(), broken(), epochs=1, **OPTIONS)
    assert "the iterator given to fit" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ((np.ones(3), np.ones(4)), r"same number of examples(.|\n)*\[3\], \[4\]"),
        (np.ones(0), "same number of examples"),
        ({"x": "text"}, "no array"),
        ([object()], "batch 0 of data="),
    ],
    ids=["lengths", "empty", "text", "object"],
)
def test_data_that_cannot_be_is_named(data, match):
    with pytest.raises((TypeError, ValueError), match=match):
        fit(lambda p, b: jnp.sum(p), 1.0, data, **OPTIONS)
