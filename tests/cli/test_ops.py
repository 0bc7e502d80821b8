"""`gradkit ops`, as a user meets it."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gradkit.cli import app


def run(*args):
    return CliRunner().invoke(app, ["ops", *args])


def test_ops_lists_keys_and_shapes():
    result = run("jax.nn:softplus", "--arg", "f32[8,4]")
    assert result.exit_code == 0, result.output
    for piece in ("key", "softplus", "Softplus", "float32[8, 4]"):
        assert piece in result.output


def test_ops_in_float64():
    assert "float64[2]" in run("jax.numpy:tanh", "--arg", "f64[2]").output


@pytest.mark.parametrize(
    ("args", "pieces"),
    [
        (["jax.nn"], ["'jax.nn' does not name a function", "MODULE:FUNCTION"]),
        (["jax.nn:softpls"], ["did you mean 'softplus'"]),
        (["jax.numpy:matmul", "--arg", "f32[2]"], ["cannot trace jax.numpy:matmul", "TypeError"]),
        (["jax.nn:relu", "--arg", "q32[2]"], ["no type 'q32'", "did you mean"]),
    ],
    ids=str,
)
def test_what_cannot_be_listed_exits_with_2(args, pieces):
    result = run(*args)
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.stderr


def test_help_names_the_commands():
    program = "from gradkit.cli import main; main()"
    out = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True
    )
    assert "check" in out.stdout
    assert "ops" in out.stdout
