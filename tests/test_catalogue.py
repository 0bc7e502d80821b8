"""The tables of the catalogue: nothing public is missing, and the docs show what the code says."""

import inspect
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gradkit as gk
from gradkit.cli import app
from gradkit.cli._catalogue import ENTRIES

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ["rules", "safe", "ops", "losses"]


def public_functions(package):
    module = getattr(gk, package)
    public = {name: getattr(module, name) for name in module.__all__}
    return {
        name for name, value in public.items() if callable(value) and not inspect.isclass(value)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_has_one_line(package):
    names = [entry.name for entry in ENTRIES if entry.package == package]
    assert len(names) == len(set(names))
    assert {name for name in names if "." not in name} == public_functions(package)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: ".".join(entry.path))
def test_an_entry_is_found_where_it_says_and_has_an_example(entry):
    found = gk
    for name in entry.path:
        found = getattr(found, name)
    assert found is entry.function
    assert ">>> " in entry.function.__doc__
    assert entry.value
    assert entry.rule


def test_the_page_shows_the_tables():
    printed = CliRunner().invoke(app, ["rules", "--markdown"]).output
    assert (DOCS / "catalogue.md").read_text() == printed, (
        "run `gradkit rules --markdown > docs/catalogue.md`"
    )
