"""`gradkit explain`, and its texts: each example has the kind of finding that it explains."""

import pytest
from typer.testing import CliRunner

from gradkit.cli import app
from gradkit.verify._kinds import EXPLANATIONS
from gradkit.verify._report import KINDS


def explain(*args):
    return CliRunner().invoke(app, ["explain", *args], env={"COLUMNS": "100"})


def test_every_kind_is_explained():
    assert tuple(EXPLANATIONS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_has_a_finding_of_this_kind(kind):
    names = {}
    exec(EXPLANATIONS[kind].example, names)
    assert kind in {finding.kind for finding in names["report"].findings}, names["report"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_shown_with_meaning_example_and_cure(kind):
    result = explain(kind)
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    explanation = EXPLANATIONS[kind]
    for text in (explanation.summary, explanation.meaning, explanation.example, explanation.cure):
        assert " ".join(text.split()) in shown


def test_the_example_can_be_copied():
    code = explain("kink").output.split("Example")[1].split("Cure")[0]
    assert "\n    def maximum(a, b):\n        def grad(y_bar):\n" in code


def test_without_a_kind_all_are_listed():
    lines = explain().output.splitlines()
    assert [line.split()[0] for line in lines] == list(KINDS)
    for line, explanation in zip(lines, EXPLANATIONS.values(), strict=True):
        assert line.endswith(explanation.summary)


def test_an_unknown_kind_exits_with_2():
    result = explain("nonfinit")
    assert result.exit_code == 2
    for piece in ("no kind of finding 'nonfinit'", "did you mean 'nonfinite'", "gradient, kink"):
        assert piece in result.stderr
