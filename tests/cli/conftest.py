"""A folder full of targets, and the command in it."""

import textwrap

import pytest
from typer.testing import CliRunner

from gradkit.cli import app
from tests.cli.files import FILES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path


@pytest.fixture
def run(folder):
    """Runs the command; `check` looks at the given point only, unless told otherwise."""

    def invoke(command, *args):
        if command == "check" and "--points" not in args:
            args = (*args, "--points", "0")
        return CliRunner().invoke(app, [command, *args], env={"COLUMNS": "160"})

    return invoke


@pytest.fixture
def calls(monkeypatch):
    """Every call of the check itself: its arguments and options. Nothing is checked."""
    made = []

    def record(f, *args, **options):
        made.append((f, args, options))
        raise RuntimeError("recorded")

    monkeypatch.setattr("gradkit.verify._cases.check", record)
    return made
