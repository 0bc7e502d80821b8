"""Declared cases are tests, in test files and in the modules that are asked for."""

import re
from xml.etree import ElementTree

import pytest

RULES = """
import gradkit as gk, jax.numpy as jnp

@gk.verify.case(2.0)
@gk.verify.case(-1.0, name="negative", order=2)
@gk.custom_gradient
def softclip(x):
    return jnp.tanh(x), lambda y_bar: y_bar * (1 - jnp.tanh(x) ** 2)

alias = softclip

def plain(x):
    return x
"""
LOSSES = """
import gradkit as gk

@gk.verify.case(2.0)
@gk.custom_gradient
def doubled(x):
    return x, lambda y_bar: 2 * y_bar

@gk.verify.case(2.0)
def raising(x):
    raise ValueError("not today")
"""
RULES_IDS = ["rules::softclip[negative]", "rules::softclip[2]"]
LOSSES_IDS = ["losses::doubled[1]", "losses::raising[1]"]
FILE_IDS = ["rules.py::softclip[negative]", "rules.py::softclip[2]"]
FOLDER_IDS = [
    "my_package/losses.py::doubled[1]",
    "my_package/losses.py::raising[1]",
    "my_package/rules.py::softclip[negative]",
    "my_package/rules.py::softclip[2]",
]


def named_by_first(table):
    return [
        pytest.param(arguments, expected, id=arguments) for arguments, expected in table.items()
    ]


@pytest.fixture
def package(pytester):
    """`rules` and `losses`, as modules and as a package, and a test file."""
    for folder in ("", "my_package/"):
        path = pytester.path / folder
        path.mkdir(exist_ok=True)
        (path / "rules.py").write_text(RULES)
        (path / "losses.py").write_text(LOSSES)
    (pytester.path / "my_package" / "__init__.py").touch()
    (pytester.path / "test_it.py").write_text("def test_it(): pass")
    return pytester.path


def collected(result):
    return re.findall(r"^gradcheck::(\S+)$", result.stdout.str(), re.M)


def test_cases_of_test_files_are_tests(run, asked):
    result = run(
        "-v",
        helper="""
        import gradkit as gk

        @gk.verify.case(3.0)
        def imported(x): return x
        """,
        test_it="""
        import gradkit as gk, pytest
        from helper import imported

        @gk.verify.case(2.0)
        @gk.verify.case(1.0, name="one", order=2)
        def square(x): return x * x

        same = square

        @pytest.mark.xfail
        @gk.verify.case(1.0)
        def test_cube(x): assert False

        class TestMethods:
            offset = 10

            @gk.verify.case(1.0)
            def method(self, x): return x + self.offset

            @staticmethod
            @gk.verify.case(1.0)
            def static(x): return x
        """,
    )
    result.assert_outcomes(passed=4, xpassed=1)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::square[[]one] PASSED*",
            "test_it.py::square[[]2] PASSED*",
            "test_it.py::test_cube[[]1] XPASS*",
            "test_it.py::TestMethods::method[[]1] PASSED*",
            "test_it.py::TestMethods::static[[]1] PASSED*",
        ]
    )
    assert asked[0].options == {"order": 2, "seed": 0}
    assert asked[3].f(*asked[3].args) == 11.0


@pytest.mark.parametrize(
    ("arguments", "ids"),
    named_by_first(
        {
            "--gradcheck=rules": RULES_IDS,
            "--gradcheck rules --gradcheck losses": RULES_IDS + LOSSES_IDS,
            "--gradcheck my_package.rules": [f"my_package.{i}" for i in RULES_IDS],
            "--gradcheck ./rules.py --gradcheck rules.py": FILE_IDS,
            "--gradcheck my_package/": FOLDER_IDS,
            "--gradcheck my_package/rules.py --gradcheck my_package": FOLDER_IDS[2:]
            + FOLDER_IDS[:2],
            "--gradcheck rules -k negative": RULES_IDS[:1],
            "--gradcheck rules --deselect gradcheck::rules::softclip[2]": RULES_IDS[:1],
            "gradcheck::rules": RULES_IDS,
            "gradcheck::rules.py": FILE_IDS,
            "gradcheck::my_package": FOLDER_IDS,
            "gradcheck::rules::softclip": RULES_IDS,
            "gradcheck::rules::softclip[2]": RULES_IDS[1:],
            "gradcheck::rules::softclip[2] gradcheck::rules": RULES_IDS,
            "gradcheck::losses::raising[1] gradcheck::losses::doubled": LOSSES_IDS,
            "gradcheck::losses::doubled gradcheck::rules::softclip[2]": LOSSES_IDS[:1]
            + RULES_IDS[1:],
        }
    ),
)
def test_targets_are_modules_files_folders_and_single_cases(run, package, arguments, ids):
    assert collected(run("--collect-only", "-q", *arguments.split())) == ids


@pytest.mark.parametrize(
    ("arguments", "ids"),
    named_by_first(
        {
            "": RULES_IDS + FILE_IDS,
            ".": RULES_IDS + FILE_IDS,
            "--gradcheck rules": RULES_IDS + FILE_IDS,
            "test_it.py": [],
            "test_it.py::test_it": [],
            "gradcheck::losses": LOSSES_IDS,
        }
    ),
)
def test_ini_modules_are_part_of_runs_that_are_not_narrowed_down(run, package, arguments, ids):
    ini = "gradcheck_modules = rules rules.py"
    assert collected(run("--collect-only", "-q", *arguments.split(), ini=ini)) == ids


def test_ids_are_understood_where_pytest_prints_them(run, package, monkeypatch):
    run()
    monkeypatch.chdir(package / "my_package")
    result = run("-q", "--collect-only", "../gradcheck::rules::softclip[2]")
    result.stdout.fnmatch_lines(["*gradcheck::rules::softclip[[]2]"])


def test_each_case_is_checked_and_fails_with_its_report(run, package):
    result = run("gradcheck::losses", "gradcheck::rules", "--junit-xml=report.xml")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*_ losses: doubled[[]1] _*",
            "gradient of 'doubled': WRONG*",
            "*_ losses: raising[[]1] _*",
            '>       raise ValueError("not today")',
            "E       ValueError: not today",
            "losses.py:11: ValueError",
            "FAILED gradcheck::losses::doubled[[]1] - Failed: gradient of 'doubled': WRONG*",
            "FAILED gradcheck::losses::raising[[]1] - ValueError: not today",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin*")
    doubled, raising, *right = ElementTree.parse(package / "report.xml").iter("testcase")
    assert doubled.get("classname") == "gradcheck.losses"
    assert doubled.get("name") == "doubled[1]"
    assert doubled.find("failure").text.startswith("gradient of 'doubled': WRONG")
    assert doubled.find("properties/property").get("value") == "wrong"
    assert raising.find("failure").get("message").startswith("ValueError: not today")
    assert [case.find("properties/property").get("value") for case in right] == ["ok", "ok"]


def test_what_failed_last_is_run_again(run, package):
    (package / "test_it.py").write_text("def test_it(): assert False")
    ini = "gradcheck_modules = losses rules"
    run(ini=ini).assert_outcomes(passed=2, failed=3)
    run("--last-failed", ini=ini).assert_outcomes(failed=3, deselected=2)


def test_fixtures_and_marks_hold_for_cases(run, package, asked):
    (package / "losses.py").write_text("import pytest\n" + LOSSES + "pytestmark = pytest.mark.slow")
    run(
        "gradcheck::losses",
        "-m",
        "slow and gradcheck",
        conftest="""
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def skipped(request):
            pytest.skip(request.module.__name__)
        """,
        ini="markers = slow",
    ).assert_outcomes(skipped=2)


@pytest.mark.parametrize(
    ("argument", "text"),
    named_by_first(
        {
            "--gradcheck=nothing": "there is no file, folder or module 'nothing'",
            "--gradcheck=rules.nothing": "there is no file, folder or module 'rules.nothing'",
            "--gradcheck=./nothing.py": "there is no file, folder or module './nothing.py'",
            "--gradcheck=my_package": "'my_package' declares no case",
            "--gradcheck=test_it": "'test_it' declares no case",
            "gradcheck::rules::softclap": "'rules' declares no case softclap",
            "--gradcheck=broken": "*ModuleNotFoundError: No module named 'not_there'",
        }
    ),
)
def test_targets_without_cases_are_errors(run, package, argument, text):
    for file in (package / "my_package").iterdir():
        file.write_text("")
    result = run(argument, broken="import not_there")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([text])


def test_modules_that_skip_themselves_are_skipped(run, package):
    result = run("--gradcheck=optional", optional="import pytest; pytest.importorskip('not_there')")
    result.assert_outcomes(passed=1, skipped=1)
