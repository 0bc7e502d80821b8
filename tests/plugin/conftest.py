"""Test runs within the test run, warnings as errors."""

import types

import hypothesis
import jax.numpy as jnp
import pytest

import gradkit as gk


@pytest.fixture(scope="session", autouse=True)
def everything_is_imported():
    """A run within a run takes back what it imports, which takes long and does not suit JAX."""
    assert hypothesis.core
    gk.check(jnp.sin, 0.5)


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on some files; keywords are the names of modules, `ini` adds to the settings."""
    monkeypatch.setenv("COLUMNS", "200")

    def run_pytest(*arguments, ini="", **sources):
        pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}")
        if sources:
            pytester.makepyfile(**sources)
        return pytester.runpytest(*arguments)

    return run_pytest


@pytest.fixture
def asked(monkeypatch):
    """The checks that a run asks for, which all find the gradient right."""
    checks = []

    def record(f, *args, **options):
        checks.append(types.SimpleNamespace(f=f, args=args, options=options))
        return types.SimpleNamespace(ok=True, verdict="ok")

    monkeypatch.setattr(gk.verify, "check", record)
    monkeypatch.setattr(gk.verify, "assert_gradients", record)
    return checks
