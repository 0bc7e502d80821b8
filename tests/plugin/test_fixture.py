"""The fixture `gradcheck`, and the options that hold for every check of a run."""

import jax.numpy as jnp
import pytest

import gradkit as gk


def test_fixture_returns_the_report_of_a_right_gradient(gradcheck):
    report = gradcheck(jnp.sin, 0.5, order=2)
    assert report.ok
    assert (report.order, report.seed) == (2, 0)


def test_fixture_raises_the_report_of_a_wrong_gradient(gradcheck):
    @gk.custom_gradient
    def doubled(x):
        return jnp.sin(x), lambda y_bar: 2 * y_bar * jnp.cos(x)

    with pytest.raises(AssertionError) as error:
        gradcheck(doubled, 0.5)
    assert str(error.value) == str(gk.check(doubled, 0.5))


def test_failure_shows_the_line_of_the_test_and_the_report_alone(run):
    result = run(
        test_it="""
        import gradkit as gk, jax.numpy as jnp

        @gk.custom_gradient
        def doubled(x):
            return jnp.sin(x), lambda y_bar: 2 * y_bar * jnp.cos(x)

        def test_doubled(gradcheck):
            gradcheck(doubled, 0.5)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       gradcheck(doubled, 0.5)",
            "E       gradkit._errors.GradientCheckError: gradient of 'doubled': WRONG*",
            "test_it.py:8: GradientCheckError",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin*")


@pytest.mark.parametrize(
    ("arguments", "header", "options"),
    [
        ([], "seed 0", {"seed": 0}),
        (["--gradcheck-seed=7"], "seed 7", {"seed": 7}),
        (["--gradcheck-points", "3"], "seed 0, 3 points", {"seed": 0, "points": 3}),
        (["--gradcheck-budget=0.5"], "seed 0, budget 0.5 s", {"seed": 0, "budget": 0.5}),
    ],
    ids=["default", "seed", "points", "budget"],
)
def test_options_reach_every_kind_of_check_and_the_header(run, asked, arguments, header, options):
    result = run(
        *arguments,
        test_it="""
        import gradkit as gk, pytest

        @gk.verify.case(1.0)
        def declared(x): return x

        @pytest.mark.gradcheck(1.0)
        def test_marked(x): return x

        def test_fixture(gradcheck):
            gradcheck(declared, 1.0)
        """,
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"gradkit: gradcheck {header}"])
    assert [check.options for check in asked] == [options] * 3


def test_options_of_a_check_win_over_those_of_the_command_line(run, asked):
    run(
        "--gradcheck-seed=7",
        test_it="""
        import gradkit as gk, pytest

        @gk.verify.case(1.0, seed=1)
        def declared(x): return x

        @pytest.mark.gradcheck(1.0, seed=1)
        def test_marked(x): return x

        def test_fixture(gradcheck):
            gradcheck(declared, 1.0, seed=1)
        """,
    ).assert_outcomes(passed=3)
    assert [check.options for check in asked] == [{"seed": 1}] * 3


def test_fixture_serves_module_fixtures_and_hypothesis(run, asked):
    run(
        test_it="""
        import pytest
        from hypothesis import given, settings, strategies

        @pytest.fixture(scope="module")
        def checked(gradcheck):
            return gradcheck(abs, 1.0)

        @settings(max_examples=3, database=None)
        @given(x=strategies.floats(1, 2))
        def test_it(gradcheck, checked, x):
            gradcheck(abs, x)
        """
    ).assert_outcomes(passed=1)
    assert len(asked) > 1
