"""`-k` and `-x`: which cases run."""

import pytest

from gradkit._errors import TargetError
from gradkit.cli._select import parse_expression

NAME = "models/nn.py:SoftMax large f32[3], f32[4]"


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("softmax", True),
        ("nn.py:soft", True),
        ("f32[3]", True),
        ("relu", False),
        ("not relu", True),
        ("softmax and large", True),
        ("softmax and not large", False),
        ("relu or large", True),
        ("large or softmax and relu", True),
        ("(large or softmax) and relu", False),
        ("not (relu or small)", True),
        ("not not large", True),
        ("'f32[3], f32[4]'", True),
        ('"softmax large"', True),
        ('"softmax  large"', False),
    ],
)
def test_expressions(expression, fits):
    assert parse_expression(expression)(NAME) is fits


@pytest.mark.parametrize(
    ("expression", "pieces"),
    [
        ("", ["cannot read -k ''", "a part of a name", "got:      the end"]),
        ("soft and", ["after soft and", "got:      the end"]),
        ("or soft", ["after the start", "got:      'or'"]),
        ("soft large", ["and, or, or the end, after soft", "got:      'large'", "quote"]),
        ("(soft", ["a closing parenthesis", "got:      the end"]),
        ("soft)", ["got:      ')'"]),
        ("not", ["after not", "got:      the end"]),
        ("'soft", ["a closing quote", "got:      'soft"]),
    ],
)
def test_what_cannot_be_read(expression, pieces):
    with pytest.raises(TargetError) as error:
        parse_expression(expression)
    for piece in pieces:
        assert piece in str(error.value)


def test_only_what_fits_is_run(run, calls):
    run("check", "good", "wrong", "-k", "vector or doubled")
    assert [function.__name__ for function, _, _ in calls] == ["wave", "doubled"]


@pytest.mark.parametrize(
    ("expression", "piece"),
    [
        ("cosine", "-k selects none of 2 cases"),
        ("wave and", "cannot read -k 'wave and'"),
    ],
)
def test_expressions_that_run_nothing_exit_with_2(run, expression, piece):
    result = run("check", "good", "-k", expression)
    assert result.exit_code == 2
    assert piece in result.stderr


def test_the_first_failure_can_end_the_run(run):
    result = run("check", "good/waves.py", "raises", "wrong", "-x")
    assert result.exit_code == 2
    assert "3 cases: 2 ok, 1 could not run" in result.output
    assert "stopped at the first that is not ok: 3 of 5 done" in result.output
