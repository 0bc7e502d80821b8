"""What docs/testing-gradients.md shows happens in a test run."""

import re
import textwrap
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "testing-gradients.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
SHOWN = re.search(r"^```sh\npytest (.*?)\n```\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)


def write_page(pytester):
    """Blocks that start with the name of a file go there, the others are one test file."""
    tests = []
    for block in PYTHON:
        name = re.match(r"# (\S+\.py)\n", block)
        if name:
            file = pytester.path / name[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block)
        else:
            tests.append(block)
    pytester.makepyfile(test_page="\n".join(tests))


def test_the_tests_of_the_page_pass(run, pytester):
    write_page(pytester)
    result = run("-v", "test_page.py", "--hypothesis-seed=0")
    result.assert_outcomes(passed=6)
    assert "test_page.py::test_softplus[origin] PASSED" in result.stdout.str()
    for name in re.findall(r"`(test_\w+\[.*?\])`", PAGE):
        assert f"test_page.py::{name} PASSED" in result.stdout.str()


def test_the_run_that_the_page_shows(run, pytester):
    write_page(pytester)
    output = run(SHOWN[1]).stdout.str()
    for line in textwrap.dedent(SHOWN[2]).splitlines():
        assert line.strip(" _") in output or line == "..."


def test_the_ini_option_and_the_options_of_the_page_exist(run, pytester):
    ini = re.search(r"^```ini\n\[pytest\]\n(.*?)^```$", PAGE, re.M | re.S)[1]
    write_page(pytester)
    (pytester.path / "my_package" / "losses.py").write_text(
        (pytester.path / "my_package" / "rules.py").read_text()
    )
    result = run("--collect-only", "-q", ini=ini)
    assert "gradcheck::my_package.losses::leaky[negative]" in result.stdout.str()
    shown = run("--help").stdout.str()
    for option in re.findall(r"^\| `(--gradcheck[\w-]*)", PAGE, re.M):
        assert option in shown
