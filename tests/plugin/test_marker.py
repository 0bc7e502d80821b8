"""`@pytest.mark.gradcheck` makes tests of a function whose gradient is checked."""

import re

import pytest


def ids_of(result):
    return re.findall(r"^\S+\.py::(\S+)$", result.stdout.str(), re.M)


def test_each_marker_is_a_test_named_for_its_point(run):
    result = run(
        "--collect-only",
        "-q",
        test_it="""
        import jax, jax.numpy as jnp, pytest

        @pytest.mark.gradcheck(jnp.ones((2, 3), jnp.bfloat16), order=2)
        @pytest.mark.gradcheck(2.0, modes=("reverse", "forward"))
        @pytest.mark.gradcheck(2.0)
        @pytest.mark.gradcheck(2.0)
        @pytest.mark.gradcheck({"w": 1.0}, name="params")
        @pytest.mark.gradcheck(jax.random.key(0))
        def test_one(x): return x

        @pytest.mark.gradcheck(1.0, jnp.arange(3), None, reference=jnp.add)
        def test_three(x, y, z): return x
        """,
    )
    assert ids_of(result) == [
        "test_one[key]",
        "test_one[params]",
        "test_one[2.0]",
        "test_one[2.0#2]",
        "test_one[2.0,modes=reverse+forward]",
        "test_one[bf16[2,3],order=2]",
        "test_three[1.0,i32[3],None,reference=add]",
    ]


def test_right_gradients_pass_and_wrong_ones_fail_with_their_report(run):
    result = run(
        "-rA",
        test_it="""
        import gradkit as gk, jax.numpy as jnp, pytest

        @pytest.mark.gradcheck(0.5)
        def test_right(x):
            return jnp.sin(x)

        @pytest.mark.gradcheck(0.5)
        @gk.custom_gradient
        def test_wrong(x):
            return jnp.sin(x), lambda y_bar: 2 * y_bar * jnp.cos(x)
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_wrong[[]0.5] _*",
            "gradient of 'test_wrong': WRONG*",
            "*_ test_right[[]0.5] _*",
            "gradient of 'test_right': ok*",
            "PASSED test_it.py::test_right[[]0.5]",
            "FAILED test_it.py::test_wrong[[]0.5] - Failed: gradient of 'test_wrong': WRONG*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*traceback*")


def test_an_inconclusive_check_fails_with_its_own_word(run, monkeypatch):
    import gradkit as gk
    from gradkit.verify import Finding, Report

    unsure = Finding("gradient", "both", 1, "args[0]", "the differences scatter")
    report = Report("f", (), (unsure,), (), (), 1, 0, "float64")
    monkeypatch.setattr(gk.verify, "check", lambda f, *args, **options: report)
    result = run(
        test_it="""
        import pytest

        @pytest.mark.gradcheck(0.5)
        def test_unsure(x): return x
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["gradient of 'f': inconclusive*", "FAILED *Failed: gradient of 'f': inconclusive*"]
    )


def test_an_error_of_the_function_is_shown_where_it_happened(run):
    result = run(
        test_it="""
        import pytest

        def helper(x):
            raise ValueError("not today")

        @pytest.mark.gradcheck(0.5)
        def test_raises(x):
            return helper(x)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "x = *",
            "    @pytest.mark.gradcheck(0.5)",
            ">       return helper(x)",
            "E       ValueError: not today",
            "FAILED test_it.py::test_raises[[]0.5] - ValueError: not today",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin*")


def test_other_arguments_come_from_parametrize_and_fixtures(run, asked):
    result = run(
        "-v",
        test_it="""
        import pytest

        @pytest.fixture
        def offset(): return 10

        @pytest.mark.parametrize("power", [2, 3])
        @pytest.mark.gradcheck(1.0)
        def test_power(x, power, *, offset): return x**power + offset
        """,
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*::test_power[[]1.0-2] PASSED*", "*::test_power[[]1.0-3] PASSED*"]
    )
    assert [(check.args, check.f(2.0)) for check in asked] == [((1.0,), 14.0), ((1.0,), 18.0)]


def test_every_kind_of_signature_takes_a_point(run, asked):
    run(
        test_it="""
        import pytest

        @pytest.mark.gradcheck(1.0, 2.0)
        def test_positional_only(x, /, y): return x + y

        @pytest.mark.gradcheck(1.0, 2.0)
        @pytest.mark.gradcheck(1.0, 3.0)
        def test_any_number(*xs): return sum(xs)

        @pytest.mark.gradcheck(1.0, 2.0)
        @pytest.mark.gradcheck(1.0)
        def test_default(x, y=2.0): return x + y

        class TestMethods:
            @pytest.mark.gradcheck(1.0, 2.0)
            def test_method(self, x, y): return x + y

            @staticmethod
            @pytest.mark.gradcheck(1.0, 2.0)
            def test_static(x, y): return x + y

        @pytest.mark.gradcheck(1.0, 2.0)
        class TestOnTheClass:
            def test_method(self, x, y): return x + y
        """
    ).assert_outcomes(passed=8)
    assert [check.f(*check.args) for check in asked] == [3.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("decorators", "text"),
    [
        ("@pytest.mark.gradcheck", "of 'test_it' gives no arguments"),
        (
            "@pytest.mark.gradcheck(1.0, 2.0)\n@pytest.mark.gradcheck(1.0)",
            "of 'test_it' gives fewer arguments than another",
        ),
    ],
    ids=["none", "uneven"],
)
def test_markers_without_a_whole_point_are_refused(run, decorators, text):
    result = run(test_it=f"import pytest\n{decorators}\ndef test_it(x, y): return x")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"a marker 'gradcheck' {text}", "  fix: *"])


def test_a_marker_that_comes_too_late_is_refused(run):
    result = run(
        test_it="""
        import pytest

        @pytest.mark.parametrize("x", [pytest.param(1.0, marks=pytest.mark.gradcheck(1.0))])
        def test_it(x): pass
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["a marker 'gradcheck' of 'test_it' came too late*"])


def test_marks_of_pytest_hold(run, asked):
    result = run(
        "-m",
        "gradcheck",
        test_it="""
        import pytest

        @pytest.mark.skip
        @pytest.mark.gradcheck(1.0)
        def test_skipped(x): return x

        def test_plain(): pass
        """,
    )
    result.assert_outcomes(skipped=1, deselected=1)
    assert not asked
