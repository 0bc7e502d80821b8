"""`gradkit nan`, as a user meets it."""

import textwrap

import pytest
from typer.testing import CliRunner

from gradkit.cli import app

MODEL = """\
    import jax.numpy as jnp

    def loss(x):
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))

    def zeros():
        return (jnp.zeros(2),)

    def batches():
        yield (jnp.ones(2),)
        yield (jnp.zeros(2),)

    def fails(x):
        raise ValueError("not today")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(textwrap.dedent(MODEL))
    return lambda *args: CliRunner().invoke(app, ["nan", *args])


def test_a_nan_exits_with_1_and_is_named(run):
    result = run("model.py:loss", "--args-from", "model.py:zeros")
    assert result.exit_code == 1, result.output
    assert "NaN from the gradient of sqrt at model.py:4" in result.output
    assert "fix:" in result.output


def test_which_of_many_arguments(run):
    result = run("model.py:loss", "--args-from", "model.py:batches")
    assert result.exit_code == 1
    assert "arguments 1: NaN from the gradient of sqrt" in result.output
    assert "arguments 0" not in result.output


@pytest.mark.parametrize(
    "args", [("--arg", "f32[3]>0"), ("--arg", "0.0", "--forward")], ids=" ".join
)
def test_finite_exits_with_0(run, args):
    result = run("model.py:loss", *args)
    assert result.exit_code == 0, result.output
    assert result.output == "everything is finite\n"


def test_every_argument_has_a_gradient(run):
    result = run("jax.numpy:power", "--arg", "2.0", "--arg", "0.5")
    assert result.exit_code == 0
    result = run("jax.numpy:power", "--arg", "-2.0", "--arg", "2.0")
    assert (result.exit_code, "gradient of pow" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("args", "pieces"),
    [
        (["model.py:los"], ["did you mean 'loss'"]),
        (["model.py:fails", "--arg", "1.0"], ["cannot run model.py:fails", "not today"]),
        (["model.py:loss"], ["cannot run model.py:loss", "missing 1 required"]),
        (
            ["model.py:loss", "--arg", "1.0", "--args-from", "model.py:zeros"],
            ["--arg and --args-from exclude each other"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_run_exits_with_2(run, args, pieces):
    result = run(*args)
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.stderr
