"""`gradkit rules`, as a user meets it."""

import pytest
from typer.testing import CliRunner

from gradkit.cli import app


def run(*args):
    return CliRunner().invoke(app, ["rules", *args])


def test_everything_is_listed_by_package():
    result = run()
    assert result.exit_code == 0, result.output
    for piece in ("gk.rules", "gk.safe", "clip_by_norm", "surrogate.arctan", "log1p", "by name"):
        assert piece in result.output
    assert result.output.index("gk.rules") < result.output.index("gk.safe")


@pytest.mark.parametrize(
    ("args", "there", "missing"),
    [
        (["clip*"], ["clip_by_value", "clip_adaptive", "Pascanu"], ["superspike", "gk.safe"]),
        (["surrogate.*"], ["surrogate.superspike", "surrogate.tanh"], ["clip_by_value"]),
        (["safe"], ["gk.safe", "sqrtm", "0 at the origin"], ["gk.rules", "in a map"]),
        (["safe.log*", "round"], ["log_softmax", "round(x)"], ["sqrtm", "floor"]),
        (["normalize"], ["gk.rules", "gk.safe"], ["sqrtm", "reverse"]),
    ],
    ids=str,
)
def test_names_packages_and_patterns_choose(args, there, missing):
    output = run(*args).output
    for piece in there:
        assert piece in output
    for piece in missing:
        assert piece not in output


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("clip_by_norm", ["gk.rules.clip_by_norm(x, max_norm)", "$$ y = x", ">>> import jax"]),
        ("arctan", ["gk.rules.surrogate.arctan(v, alpha=2.0)", "arXiv:2007.05785"]),
        ("safe.norm", ["gk.safe.norm(x, axis=None", "At the kink:"]),
    ],
    ids=str,
)
def test_one_function_is_shown_with_its_documentation(name, pieces):
    output = run(name).output
    for piece in pieces:
        assert piece in output


def test_markdown_of_some():
    output = run("--markdown", "sign", "safe.sqrt").output
    lines = output.splitlines()
    assert lines[0] == "## gk.rules"
    assert "| `sign` | `sign(x)` | `[\\|x\\| <= window] * y_bar` | yes | by name |" in output
    header = "| name | value | derivative | forward mode | source |"
    assert header in lines, "no column for maps where nothing is for maps"


def test_an_unknown_name_exits_with_2():
    result = run("supperspike")
    assert result.exit_code == 2
    for piece in ("no entry 'supperspike'", "did you mean", "superspike", "'safe.*'"):
        assert piece in result.stderr
