"""The marker that names the case a test ports, and the fixtures that hand it over."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import gradkit as gk
from tests.conformance import recorded
from tests.conformance.registered import NOT_DIFFERENTIABLE, RULES


def pytest_configure(config):
    config.addinivalue_line("markers", "ports(*names): the recorded TensorFlow cases it ports")


@pytest.fixture
def cases(request):
    """The recorded cases that the test ports, in the marker's order."""
    return [recorded.load(name) for name in request.node.get_closest_marker("ports").args]


@pytest.fixture
def case(cases):
    """The one recorded case that the test ports."""
    (only,) = cases
    return only


@pytest.fixture(autouse=True)
def registered():
    """TensorFlow's registered gradients, under the names that the recordings use."""
    with gk.registry_scope():
        for name, rule in RULES.items():
            gk.RegisterGradient(name)(rule)
        for name in NOT_DIFFERENTIABLE:
            gk.NotDifferentiable(name)
        yield


@pytest.fixture
def in_thread():
    """Run a function in another thread and return its result."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda fn: pool.submit(fn).result()
