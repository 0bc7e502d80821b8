"""`gradkit check`, as a user meets it."""

import json
import sys
import textwrap
from importlib import metadata

import jax
import pytest
from typer.testing import CliRunner

from gradkit.cli import app
from tests.cli.files import FILES


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
    assert "again: gradkit check wrong/doubled.py:doubled --points 0 --seed 0" in result.output


def test_what_raises_could_not_run_and_the_rest_does(run):
    result = run("check", "raises", "good")
    assert result.exit_code == 2
    for piece in (
        "could not run",
        "ValueError: not today",
        'at raises/failing.py:6, in failing: raise ValueError("not today")',
        "SystemExit: 0",
        "4 cases: 2 ok, 2 could not run",
    ):
        assert piece in result.output


def test_inconclusive_is_not_right(run):
    result = run("check", "unsure", "good")
    assert result.exit_code == 3
    assert "3 cases: 2 ok, 1 inconclusive" in result.output
    assert "the function's value is not finite here" in result.output


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


@pytest.mark.parametrize(
    ("specs", "pieces"),
    [
        (["f32[4]"], ["do not fit 'plain'", "missing", "plain(x, n)", "1 argument: float32[4]"]),
        (["1.0", "2", "3"], ["do not fit 'plain'", "too many", "3 arguments"]),
        (["f32[2]", "'a'"], ["could not run", "TypeError", "good/waves.py:21, in plain"]),
        (["3", "3"], ["nothing to differentiate", "no floating-point argument"]),
    ],
    ids=["too few", "too many", "wrong type", "integers"],
)
def test_arguments_that_do_not_fit_could_not_run(run, specs, pieces):
    options = [word for spec in specs for word in ("--arg", spec)]
    result = run("check", "good/waves.py:plain", *options)
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.output
    assert "Traceback" not in result.output


def test_a_function_without_outputs_could_not_run(run, folder):
    (folder / "mute.py").write_text("def mute(x): return None\n")
    result = run("check", "mute.py:mute", "--arg", "1.0")
    assert result.exit_code == 2
    assert "returned no floating-point result" in result.output


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


def test_an_environment_in_the_folder_is_not_part_of_it(run, folder):
    packages = folder / "good/venv/lib/site-packages"
    packages.mkdir(parents=True)
    (packages / "cli_installed.py").write_text("raise SystemError\n")
    assert run("check", "good").exit_code == 0
    (packages / "cli_installed.py").write_text("")
    script = f"import sys; sys.path.append({str(packages)!r})\nimport cli_installed\n"
    (folder / "uses.py").write_text(script + textwrap.dedent(FILES["wrong/doubled.py"]))
    assert run("check", "uses.py").exit_code == 1
    assert sys.modules.pop("cli_installed")  # as numpy does, it may not bear a second import


def test_json(run, folder):
    result = run("check", "wrong", "raises/failing.py", "--json", "--output", "found.json")
    assert result.exit_code == 1
    assert result.stdout == (folder / "found.json").read_text()
    found = json.loads(result.stdout)
    assert found["exit_code"] == 1
    assert (found["total"], found["interrupted"]) == (2, False)
    wrong, failed = found["results"]
    assert (wrong["file"], wrong["line"]) == ("wrong/doubled.py", 6)
    assert wrong["verdict"] == "wrong"
    finding = wrong["report"]["findings"][0]
    assert finding["got"] == pytest.approx(2 * finding["expected"])
    assert failed["verdict"] == "could not run"
    assert "not today" in failed["error"]


def test_json_is_clean_when_the_file_prints(run, folder):
    (folder / "loud.py").write_text("print('hello')\n" + textwrap.dedent(FILES["wrong/doubled.py"]))
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
