"""The plugin costs nothing until it is used, and works in several processes."""

import subprocess
import sys
from pathlib import Path

import gradkit

HEAVY = ("jax", "numpy", "hypothesis", "gradkit.verify")


def imported_by(program):
    """Which of the heavy modules a program imports."""
    program += f"\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_the_plugin_itself_imports_nothing_heavy():
    folder = str(Path(gradkit.__file__).parent)
    program = f"""
import sys, types
sys.modules["gradkit"] = package = types.ModuleType("gradkit")
package.__path__ = [{folder!r}]
import gradkit.pytest_plugin
"""
    assert imported_by(program) == []


def test_a_test_run_without_checks_imports_nothing_heavy():
    assert imported_by("import gradkit.pytest_plugin") == []


def test_cases_are_shared_among_processes(run, pytester):
    run(
        test_it="""
        import gradkit as gk, jax.numpy as jnp, pytest

        @pytest.mark.gradcheck(jnp.ones(2), order=2)
        @pytest.mark.gradcheck(2.0)
        def test_marked(x): return jnp.sin(x)

        @gk.verify.case(jnp.ones(2))
        def declared(x): return jnp.sin(x)
        """,
        rules="""
        import gradkit as gk

        @gk.verify.case(2.0, name="two")
        @gk.custom_gradient
        def doubled(x): return x, lambda y_bar: 2 * y_bar
        """,
        ini="gradcheck_modules = rules",
    )
    result = pytester.runpytest_subprocess("-n", "2", "--gradcheck-seed=3", "-v")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["FAILED gradcheck::rules::doubled[[]two] - Failed: gradient of 'doubled': WRONG*"]
    )
