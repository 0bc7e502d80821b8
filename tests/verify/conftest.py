"""Checks compile many small programs, and JAX keeps thousands of them: let go now and then."""

import itertools

import jax
import pytest

_EVERY = 40
_counter = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_memory():
    yield
    if next(_counter) % _EVERY == 0:
        jax.clear_caches()
