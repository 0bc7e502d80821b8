"""The report files: JUnit XML, SARIF, and one page to look at."""

import json
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from gradkit.cli._html import html_page
from gradkit.cli._junit import junit_xml
from gradkit.cli._outcome import python_line
from gradkit.cli._sarif import sarif_json
from gradkit.verify._kinds import EXPLANATIONS
from tests.cli.outcomes import DOUBLED, make_outcome

GO_THERE = 'gradkit.check(f, *gradkit.verify.point_at("signs flipped", *args, seed=3), points=0)'


def test_the_line_that_goes_to_a_point():
    assert python_line(DOUBLED, 3) == GO_THERE


def test_junit():
    root = ET.fromstring(junit_xml(make_outcome()).split("\n", 1)[1])
    assert root.tag == "testsuites"
    (suite,) = root
    numbers = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert numbers == ["4", "2", "1", "0"]
    ok, wrong, unsure, failed = suite.findall("testcase")
    assert (ok.get("name"), ok.get("classname"), ok.get("line")) == ("softmax [1]", *CLASS)
    assert len(ok) == 0
    assert wrong.find("failure").get("type") == "gradient"
    assert "args[0]['w'][0, 0]: the derivative disagrees" in wrong.find("failure").get("message")
    assert GO_THERE in wrong.find("failure").text
    assert "gradkit check models/nn.py:attention --order 2 --seed 3" in wrong.find("failure").text
    assert unsure.find("failure").get("type") == "inconclusive"
    assert failed.find("error").get("message") == "ValueError: [31mnot today"  # no escape
    notes = {p.get("name"): p.get("value") for p in suite.find("properties")}
    assert notes["no point 1"] == "models/nn.py:scale"


CLASS = ("models/nn.py", "7")


def test_sarif():
    log = json.loads(sarif_json(make_outcome()))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    found = [(r["ruleId"], r["level"]) for r in run["results"]]
    assert found == [
        ("gradient", "error"),
        ("nonfinite", "error"),
        ("gradient", "warning"),
        ("could-not-run", "error"),
    ]
    for entry in run["results"]:
        assert rules[entry["ruleIndex"]] == entry["ruleId"]
        (location,) = entry["locations"]
        where = location["physicalLocation"]
        assert where["artifactLocation"]["uri"] == "models/nn%20file.py"
        assert where["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
    lines = [r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in run["results"]]
    assert lines == [7, 7, 1, 7]
    marks = {r["partialFingerprints"]["gradkitFinding/v1"] for r in run["results"]}
    assert len(marks) == 4
    assert GO_THERE in run["results"][0]["message"]["text"]
    assert not run["invocations"][0]["executionSuccessful"]
    texts = [n["message"]["text"] for n in run["invocations"][0]["toolExecutionNotifications"]]
    assert any("models/nn.py:scale" in text for text in texts)


class Balance(HTMLParser):
    """Collects the tags, and those that were never closed."""

    VOID = ("meta", "input", "link", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    return html_page(make_outcome())


def test_the_page_is_well_formed_and_needs_nothing_else(page):
    parser = Balance()
    parser.feed(page)
    assert not parser.open
    for tag, name, value in parser.attributes:
        assert name not in ("src", "srcset", "data"), (tag, name, value)
        assert name != "href" or value.startswith("#"), value
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
    "piece",
    [
        "4 cases: 1 ok, 1 wrong, 1 could not run, 1 inconclusive",
        "gradkit 0.1.0, JAX 0.10.2, cpu",
        "<b>1</b> inconclusive",
        "too large by a factor of 2",
        "-0.544270833 ± 1.2e-12",
        "-1.08854167",
        "0.544, 4.5e+11 error bars",
        "args[0][&#39;w&#39;][0, 0]",
        "signs flipped, seed 3",
        GO_THERE.replace('"', "&#34;"),
        "gradkit check models/nn.py:attention --order 2 --seed 3",
        "ValueError: \x1b[31mnot today",
        "args[0] is at a kink",
        "large &lt;tokens&gt;",
        "the derivative (nan) &lt;is&gt; not finite &amp; odd",
        "models/nn file.py:7 · computed in float64 · points: given, nearby, signs flipped",
        "models/nn.py:scale",
        "stopped at the first that is not ok: 4 of 5 done",
    ],
)
def test_the_page_says(page, piece):
    assert piece in page


def test_the_page_explains_the_kinds_that_it_has(page):
    for kind, explanation in EXPLANATIONS.items():
        told = explanation.summary in page or explanation.cure.split(".")[0] in page
        assert told == (kind in ("gradient", "nonfinite")), kind


def test_the_page_filters_by_verdict(page):
    verdicts = re.findall(r'<(?:tr|section)[^>]*data-verdict="([^"]*)"', page)
    assert sorted(verdicts) == sorted(["ok"] + 2 * ["wrong", "inconclusive", "could not run"])
    assert set(re.findall(r'data-show="([^"]+)"', page)) == set(verdicts)


def test_a_missing_jinja_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("check", "good", "--html", "page.html")
    assert result.exit_code == 2
    assert "--html needs jinja2" in result.stderr
    assert "pip install 'gradkit[report]'" in result.stderr


@pytest.mark.parametrize("option", ["--output", "--junit", "--sarif", "--html"])
@pytest.mark.parametrize(
    ("path", "pieces"),
    [
        ("empty", ["Is a directory", "name a file in it"]),
        ("absent/file", ["No such file or directory", "create the folder absent"]),
    ],
)
def test_files_that_cannot_be_written_are_known_before_the_run(run, calls, option, path, pieces):
    result = run("check", "good", option, path)
    assert result.exit_code == 2
    assert not calls
    for piece in [f"cannot write {option} {path}", *pieces]:
        assert piece in result.stderr


def test_two_reports_need_two_files(run):
    result = run("check", "good", "--sarif", "same", "--junit", "same")
    assert result.exit_code == 2
    assert "--junit and --sarif name the same file, same" in result.stderr


def test_a_run_that_fails_leaves_no_empty_file(run, folder):
    assert run("check", "broken.py", "--output", "new.json").exit_code == 2
    assert not (folder / "new.json").exists()


def test_all_reports_of_one_run(run, folder):
    result = run(
        *("check", "wrong", "--output", "a.json", "--junit", "a.xml"),
        *("--sarif", "a.sarif", "--html", "a.html"),
    )
    assert result.exit_code == 1
    assert json.loads((folder / "a.json").read_text())["exit_code"] == 1
    assert ET.parse(folder / "a.xml").find(".//failure") is not None
    (entry,) = json.loads((folder / "a.sarif").read_text())["runs"][0]["results"]
    location = entry["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "wrong/doubled.py"
    assert location["region"]["startLine"] == 6
    assert "too large by a factor of 2" in (folder / "a.html").read_text()
