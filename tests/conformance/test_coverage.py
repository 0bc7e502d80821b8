"""No recorded case is forgotten: a test ports it, or a reason stands here."""

import ast
from pathlib import Path

import pytest

from tests.conformance import recorded

NOT_PORTED = {
    "cg_call_counts": "only a property of TensorFlow: how often eager mode and tracing run Python",
}

TEST_FILES = sorted(Path(__file__).parent.glob("test_*.py"))


def marked_functions():
    """Each test function, as syntax, with the cases that its markers name."""
    for path in TEST_FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]:
            markers = [
                node
                for decorator in function.decorator_list
                for node in ast.walk(decorator)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.ports"
            ]
            yield function, [[ast.literal_eval(arg) for arg in marker.args] for marker in markers]


def ported():
    return {name for _, markers in marked_functions() for names in markers for name in names}


def test_every_recorded_case_is_ported_or_has_a_reason():
    assert ported() | NOT_PORTED.keys() == recorded.names()
    assert not ported() & NOT_PORTED.keys()


def test_every_test_that_ports_a_case_takes_its_numbers():
    for function, markers in marked_functions():
        asked_for = {argument.arg for argument in function.args.args}
        needed = {"case" if len(names) == 1 else "cases" for names in markers}
        assert needed <= asked_for, function.name


@pytest.mark.parametrize("name", sorted(recorded.names()))
def test_recorded_case_decodes(name):
    case = recorded.load(name)
    assert case.mode in ("eager", "function", "graph")
    assert case.outputs
