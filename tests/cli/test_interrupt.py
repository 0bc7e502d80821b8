"""Ctrl-C: what was done until then is reported."""

import json
import os
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest

FILES = ["--output", "a.json", "--junit", "a.xml", "--sarif", "a.sarif", "--html", "a.html"]


def test_what_was_done_is_printed_and_written(run, folder):
    result = run("check", "interrupted.py", *FILES)
    assert result.exit_code == 130
    assert "1 case: 1 ok" in result.output
    assert "interrupted: 1 of 3 cases done" in result.output
    written = json.loads((folder / "a.json").read_text())
    assert (written["interrupted"], written["total"], len(written["results"])) == (True, 3, 1)
    assert len(ET.parse(folder / "a.xml").findall(".//testcase")) == 1
    (run_,) = json.loads((folder / "a.sarif").read_text())["runs"]
    assert not run_["invocations"][0]["executionSuccessful"]
    assert "interrupted: 1 of 3 cases done" in (folder / "a.html").read_text()


def test_json_on_the_screen_stays_json(run):
    result = run("check", "interrupted.py", "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["exit_code"] == 130
    assert "interrupted: 1 of 3 cases done" in result.stderr


def test_while_importing(run, folder):
    (folder / "slow.py").write_text("raise KeyboardInterrupt")
    result = run("check", "slow.py")
    assert result.exit_code == 130
    assert "interrupted: 0 of 0 cases done" in result.output


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_workers_end_with_it(folder):
    # Whoever runs the tests in the background may have had SIGINT ignored.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; from gradkit.cli import main; main()"
    args = ["check", "workers.py", "-n", "2", "-k", "quick or waits or marks", "--points", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *args, *FILES],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell would give it
    )
    # The third case starts when the first has been reported.
    patience = time.monotonic() + 120
    while not (folder / "mark").exists() and time.monotonic() < patience:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: 1 of 3 cases done" in output
    assert "Traceback" not in errors
    assert len(json.loads((folder / "a.json").read_text())["results"]) == 1
    assert (folder / "a.html").exists()
