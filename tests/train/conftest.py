"""What the tests of training share."""

import os

import pytest


@pytest.fixture(scope="session")
def programs():
    """The folder of compiled programs, for processes that are started."""
    return os.environ["JAX_COMPILATION_CACHE_DIR"]
