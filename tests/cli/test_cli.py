"""The command line, as a user meets it."""

import importlib.metadata
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from typer.testing import CliRunner

from gradkit._errors import TargetError
from gradkit.cli import app
from gradkit.cli._argspec import parse_argument

GOOD = """
import gradkit, jax.numpy as jnp

@gradkit.verify.case(0.5, order=2)
@gradkit.verify.case(jnp.arange(3.0), name="vector")
@gradkit.custom_gradient
def wave(x):
    return jnp.sin(x), lambda y_bar: y_bar * jnp.cos(x)

def plain(x, n):
    return jnp.square(x).sum() * n
"""

WRONG = """
import gradkit, jax.numpy as jnp

@gradkit.verify.case(0.5)
@gradkit.custom_gradient
def doubled(x):
    return jnp.sin(x), lambda y_bar: 2 * y_bar * jnp.cos(x)
"""

RAISES = """
import gradkit

@gradkit.verify.case(0.5)
def raises(x):
    raise ValueError("not today")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"good": GOOD, "wrong": WRONG, "raises": RAISES}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}_rules.py").write_text(text)

    def invoke(*args):
        return CliRunner().invoke(app, list(args), env={"COLUMNS": "120"})

    return invoke


def test_version_names_gradkit_jax_and_device():
    result = CliRunner().invoke(app, ["--version"])
    version = importlib.metadata.version("gradkit")
    assert result.output == f"gradkit {version}, JAX {jax.__version__}, cpu\n"


@pytest.mark.parametrize("target", ["good", "good/good_rules.py", "good/good_rules.py:wave"])
def test_right_gradients_exit_with_0(run, target):
    result = run("check", target)
    assert result.exit_code == 0, result.output
    assert "wave" in result.output
    assert "2 checked: 2 ok" in result.output


def test_a_wrong_gradient_exits_with_1_and_says_why(run):
    result = run("check", "good", "wrong")
    assert result.exit_code == 1
    assert "WRONG" in result.output
    assert "3 checked: 2 ok, 1 wrong" in result.output
    assert "doubled, case 1" in result.output
    assert "expected:" in result.output
    assert "factor" in result.output


def test_a_case_that_raises_exits_with_1_and_the_rest_runs(run):
    result = run("check", "raises", "good")
    assert result.exit_code == 1
    assert "could not run" in result.output
    assert "ValueError: not today" in result.output
    assert "2 ok, 1 could not run" in result.output


def test_arguments_on_the_command_line(run):
    result = run(
        "check", "good/good_rules.py:plain", "--arg", "f32[4]", "--arg", "3", "--order", "2"
    )
    assert result.exit_code == 0, result.output
    assert "f32[4], 3" in result.output


def test_a_module_by_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "good")
    result = run("check", "good_rules")
    assert result.exit_code == 0, result.output
    del sys.modules["good_rules"]


def test_json(run):
    result = run("check", "wrong", "--json")
    assert result.exit_code == 1
    (outcome,) = json.loads(result.stdout)
    assert outcome["verdict"] == "wrong"
    finding = outcome["report"]["findings"][0]
    assert finding["got"] == pytest.approx(2 * finding["expected"])


@pytest.mark.parametrize(
    ("args", "pieces"),
    [
        (["nothing_here"], ["'nothing_here' does not import", "ModuleNotFoundError"]),
        (["nothing.py"], ["there is no file 'nothing.py'"]),
        (["good/good_rules.py:wafe"], ["has no function 'wafe'", "did you mean 'wave'"]),
        (["good/good_rules.py:plain"], ["declares no case", "--arg 'f32[8,4]'"]),
        (["good/good_rules.py:plain", "--arg", "f32"], ["cannot be read", "'f32'"]),
        (["good/good_rules.py:plain", "--arg", "g32[2]"], ["unknown type 'g32'", "did you mean"]),
        (["good/good_rules.py:jnp"], ["is not a function", "module"]),
        (["good", "--arg", "3.0"], ["--arg goes with module:function"]),
        (["empty"], ["has no Python files"]),
        (["caseless.py"], ["nothing to check in 'caseless.py'", "@gradkit.verify.case"]),
        (["broken.py"], ["'broken.py' does not import", "ZeroDivisionError", "broken.py:1"]),
    ],
)
def test_what_cannot_be_checked_exits_with_2(run, tmp_path, args, pieces):
    (tmp_path / "empty").mkdir()
    (tmp_path / "caseless.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    result = run("check", *args)
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.stderr
    assert "Traceback" not in result.output


def test_ops_lists_keys(run):
    result = run("ops", "good/good_rules.py:plain", "--arg", "f32[4]", "--arg", "2")
    assert result.exit_code == 0
    assert "square" in result.output
    assert "float32[4]" in result.output


def test_ops_of_a_function_that_raises_exits_with_2(run):
    result = run("ops", "raises/raises_rules.py:raises", "--arg", "3.0")
    assert result.exit_code == 2
    assert "ValueError: not today" in result.stderr


def test_the_console_script_runs():
    out = subprocess.run(
        [sys.executable, "-c", "from gradkit.cli import main; main()", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "check" in out.stdout
    assert "ops" in out.stdout


@pytest.mark.parametrize(
    ("spec", "dtype", "shape"),
    [
        ("f32[8,4]", "float32", (8, 4)),
        ("bf16[3]", "bfloat16", (3,)),
        ("f32[]", "float32", ()),
        ("i32[8]<10", "int32", (8,)),
        ("bool[4]", "bool", (4,)),
        ("c64[2]", "complex64", (2,)),
    ],
)
def test_argument_arrays(spec, dtype, shape):
    value = parse_argument(spec, seed=0)
    assert (value.dtype, value.shape) == (dtype, shape)
    assert (value == parse_argument(spec, seed=0)).all()


def test_argument_scalars_and_keys():
    assert parse_argument("3", 0) == 3
    assert isinstance(parse_argument("3", 0), int)
    assert parse_argument("-2.5", 0) == -2.5
    assert jnp.issubdtype(parse_argument("key", 0).dtype, jax.dtypes.prng_key)
    assert parse_argument("i32[100]<3", 0).max() == 2
    with pytest.raises(TargetError, match="cannot be read"):
        parse_argument("f32[a]", 0)
