"""Arguments that a function makes."""

import pytest


@pytest.mark.parametrize(
    ("maker", "expected"),
    [
        ("one", [(2.0, 3)]),
        ("several", [(2.0, 3), (0.5, 2)]),
        ("generated", [(2.0, 3), (0.5, 2)]),
    ],
)
def test_each_tuple_is_a_case(run, calls, maker, expected):
    result = run("check", "made.py:power", "--args-from", f"made.py:{maker}")
    assert [args for _, args, _ in calls] == expected
    for i in range(len(expected)):
        assert f"made {i + 1}" in result.output


def test_they_are_checked(run):
    result = run("check", "made.py:power", "--args-from", "made.py:one")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("maker", "pieces"),
    [
        ("raising", ["made.py:raising raised", "KeyError: 'lost'", "made.py:17, in raising"]),
        ("needing", ["called without arguments", "missing 1 required"]),
        ("array", ["does not make arguments", "a tuple of arguments", "got:      Array"]),
        ("unpacked", ["got:      a float at position 0", "return (x,) for one argument"]),
        ("nothing", ["does not make arguments", "got:      nothing"]),
        ("endless", ["got:      more than 1000"]),
        ("absent", ["'made.py' has no function 'absent'"]),
    ],
)
def test_what_makes_no_arguments(run, maker, pieces):
    result = run("check", "made.py:power", "--args-from", f"made.py:{maker}")
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.stderr.replace("ArrayImpl", "Array")
    assert "Traceback" not in result.output


def test_one_source_of_arguments_for_one_function(run):
    both = run("check", "made.py:power", "--args-from", "made.py:one", "--arg", "1.0")
    assert both.exit_code == 2
    assert "--arg and --args-from both give the arguments" in both.stderr
    folder = run("check", "good", "--args-from", "made.py:one")
    assert folder.exit_code == 2
    assert "--args-from gives the arguments of one function" in folder.stderr
