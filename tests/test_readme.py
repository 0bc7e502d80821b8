"""The README and the pages in docs/ are programs: each Python block runs and prints what is shown.

The blocks of a page run in order, in one namespace. A block prints what the `text` block right
behind it shows; for a block that raises, that is the error. Blocks that start with the line
`# TensorFlow` show what a reader migrates from, and are not run. Numbers such as `1.2e-13` are
sizes of rounding errors, which differ between machines: any other of that kind will do.
"""

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

import gradkit as gk

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.M | re.S)
ROUNDING = re.compile(r"\b\d\.\de-\d\d\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def page_id(page):
    return page.name


class Block(NamedTuple):
    line: int
    code: str
    shown: str


def read_blocks(page):
    text = page.read_text()
    for match in FENCED.finditer(text):
        line = text[: match.start()].count("\n") + 1
        if not match[1].startswith("# TensorFlow\n"):
            yield Block(line, match[1], match[2] or "")


def run_block(page, block, namespace):
    """What the block prints, and the error that it raises if it is shown to raise one."""
    printed = io.StringIO()
    code = compile("\n" * block.line + block.code, page.name, "exec")
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            exec(code, namespace)
        except Exception as error:
            name = type(error).__name__
            if f"{name}: " not in block.shown:
                raise
            print(f"{name}: {error}")
    return printed.getvalue()


def without_rounding(text):
    """The text without what depends on the machine, or on where in its page the block stands."""
    return re.sub(r"\.md:\d+:\d+", ".md:<line>", ROUNDING.sub("<rounding>", text))


@pytest.mark.parametrize("page", [p for p in PAGES if list(read_blocks(p))], ids=page_id)
def test_python_blocks_print_what_the_page_shows(page):
    namespace = {"__name__": "__main__"}
    with gk.registry_scope():
        for block in read_blocks(page):
            printed = run_block(page, block, namespace)
            assert without_rounding(printed) == without_rounding(block.shown), (
                f"{page.name}:{block.line}"
            )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_files_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), target
            if anchor:
                assert anchor in anchors_of(file), target


def anchors_of(file):
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_first_screen_of_the_readme_solves_a_problem_in_ten_lines():
    first = next(read_blocks(ROOT / "README.md"))
    code = [line for line in first.code.splitlines() if line and "import" not in line]
    assert first.line < 30
    assert len(code) <= 10
    assert first.shown


def test_readme_installs_with_two_commands_of_which_ci_runs_the_tests():
    first_run, test_run = re.findall(r"^```sh\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.M)
    assert first_run == "pip install '.[examples]' && gradkit check examples"
    install, run_tests = test_run.split(" && ")
    ci = (ROOT / ".ci" / "run").read_text()
    assert install.removeprefix("pip install ") in ci
    assert run_tests in ci
