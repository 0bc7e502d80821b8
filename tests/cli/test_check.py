"""`gradkit check`, as a user meets it."""

import json
import sys
import textwrap
from importlib import metadata

import jax
import pytest
from typer.testing import CliRunner

from gradkit.cli import app

FILES = {
    "good/waves.py": """
        from dataclasses import dataclass
        import gradkit, jax.numpy as jnp
        from helper import SCALE

        @dataclass
        class Settings:
            scale: float = SCALE

        @gradkit.RegisterGradient("CliWave")
        def wave_gradient(op, y_bar):
            return y_bar * jnp.cos(op.inputs[0])

        @gradkit.verify.case(0.5, order=2)
        @gradkit.verify.case(jnp.arange(3.0), name="vector")
        @gradkit.custom_gradient
        def wave(x):
            return jnp.sin(x), lambda y_bar: y_bar * jnp.cos(x)

        def plain(x, n):
            return jnp.square(x).sum() * n
        """,
    "good/helper.py": "SCALE = 2.0",
    "good/twin.py": """
        import gradkit

        @gradkit.RegisterGradient("CliWave")
        def wave_gradient(op, y_bar):
            return y_bar
        """,
    "wrong/doubled.py": """
        import gradkit, jax.numpy as jnp

        @gradkit.verify.case(0.5)
        @gradkit.custom_gradient
        def doubled(x):
            return jnp.sin(x), lambda y_bar: 2 * y_bar * jnp.cos(x)
        """,
    "raises/failing.py": """
        import gradkit

        @gradkit.verify.case(0.5)
        def failing(x):
            raise ValueError("not today")
        """,
    "unsure/unsure.py": """
        import gradkit, jax.numpy as jnp
        gradkit.verify.case(-1.0)(logarithm := lambda x: jnp.log(x))
        """,
    "package/__init__.py": "",
    "package/inner.py": """
        import gradkit
        from .factor import FACTOR

        @gradkit.verify.case(2.0)
        def scaled(x):
            return FACTOR * x
        """,
    "package/factor.py": "FACTOR = 3.0",
    "broken.py": "one = 1\ntwo = one / 0\n",
    "unreadable.py": "def f(:\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "caseless.py": "x = 1\n",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def invoke(*args):
        return CliRunner().invoke(app, list(args), env={"COLUMNS": "160"})

    return invoke


def test_version_names_gradkit_jax_and_device():
    result = CliRunner().invoke(app, ["--version"])
    version = metadata.version("gradkit")
    assert result.output == f"gradkit {version}, JAX {jax.__version__}, cpu\n"


@pytest.mark.parametrize("target", ["good", "good/waves.py", "good/waves.py:wave"])
def test_right_gradients_exit_with_0(run, target):
    result = run("check", target)
    assert result.exit_code == 0, result.output
    for piece in ("good/waves.py:wave", "vector", "ok", "2 cases: 2 ok"):
        assert piece in result.output


def test_a_wrong_gradient_exits_with_1_and_says_why(run):
    result = run("check", "good", "wrong")
    assert result.exit_code == 1
    for piece in ("WRONG", "3 cases: 2 ok, 1 wrong", "doubled (case 1)", "expected:", "got:"):
        assert piece in result.output
    assert "too large by a factor of 2" in result.output


def test_what_raises_could_not_run_and_the_rest_does(run):
    result = run("check", "raises", "good")
    assert result.exit_code == 2
    for piece in ("could not run", "ValueError: not today", "3 cases: 2 ok, 1 could not run"):
        assert piece in result.output


def test_inconclusive_is_not_right(run):
    result = run("check", "unsure", "good")
    assert result.exit_code == 3
    assert "3 cases: 2 ok, 1 inconclusive" in result.output


def test_wrong_outweighs_the_rest(run):
    assert run("check", "raises", "unsure", "wrong", "good").exit_code == 1
    assert run("check", "unsure", "raises").exit_code == 2


def test_arguments_on_the_command_line(run):
    result = run(
        "check", "good/waves.py:plain", "--arg", "f32[4]", "--arg", "3", "--order", "2"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "f32[4], 3" in result.output


def test_arguments_in_float64(run):
    result = run("check", "jax.nn:softplus", "--arg", "f64[4]", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["results"][0]["report"]["precision"] == "float64"
    assert jax.numpy.ones(2).dtype == "float32"


def test_a_module_by_its_name_and_a_file_of_a_package(run):
    assert run("check", "package.inner").exit_code == 0
    del sys.modules["package.inner"], sys.modules["package.factor"], sys.modules["package"]
    result = run("check", "package/inner.py:scaled")
    assert result.exit_code == 0, result.output
    del sys.modules["package.inner"], sys.modules["package.factor"], sys.modules["package"]


def test_checking_a_file_leaves_nothing_behind(run):
    path, modules = list(sys.path), set(sys.modules)
    run("check", "good")
    assert sys.path == path
    assert not {name for name in set(sys.modules) - modules if "helper" in name or "wave" in name}


def test_json(run):
    result = run("check", "wrong", "raises", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["exit_code"] == 1
    wrong, failed = found["results"]
    assert wrong["verdict"] == "wrong"
    finding = wrong["report"]["findings"][0]
    assert finding["got"] == pytest.approx(2 * finding["expected"])
    assert failed["verdict"] == "could not run"
    assert "not today" in failed["error"]


def test_json_is_clean_when_the_file_prints(run, tmp_path):
    (tmp_path / "loud.py").write_text(
        "print('hello')\n" + textwrap.dedent(FILES["wrong/doubled.py"])
    )
    result = run("check", "loud.py", "--json")
    assert json.loads(result.stdout)["exit_code"] == 1
    assert "hello" in result.stderr


@pytest.mark.parametrize(
    ("args", "pieces"),
    [
        (["goood"], ["no file, folder or module 'goood'", "did you mean 'good'"]),
        (["good/wave.py"], ["there is no file 'good/wave.py'", "did you mean 'waves.py'"]),
        (["good/waves.py:wafe"], ["has no function 'wafe'", "did you mean 'wave'"]),
        (["good/waves.py:plain"], ["declares no case", "--arg 'f32[8,4]'", "verify.case"]),
        (["good/waves.py:plain", "--arg", "f32"], ["cannot read --arg 'f32'", "f32[8,4]"]),
        (["good/waves.py:SCALE"], ["cannot be called", "got:      float"]),
        (["good:wave"], ["asks for a function of a folder", "name the file"]),
        (["good", "--arg", "3.0"], ["--arg gives the arguments of one function"]),
        (["empty"], ["folder 'empty' holds no Python files"]),
        (["caseless.py"], ["no function declares a case in caseless.py", "verify.case"]),
        (["broken.py"], ["cannot import", "ZeroDivisionError", "line 2: two = one / 0"]),
        (["unreadable.py"], ["cannot import", "SyntaxError", "line 1"]),
        (["leaves.py"], ["cannot import", "SystemExit: 3"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and len(value) < 3 else None,
)
def test_what_cannot_be_understood_exits_with_2(run, args, pieces):
    result = run("check", *args)
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.stderr
    assert "Traceback" not in result.output
