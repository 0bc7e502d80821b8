"""Several processes: the results are those of one, and a crash costs one case."""

import json


def test_a_crash_costs_one_case_and_the_order_stays(run):
    expression = "quick or dies or wrong or made"
    result = run("check", "workers.py", "made.py", "-n", "2", "-k", expression, "--json")
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)["results"]
    assert [(r["function"].rpartition(":")[2], r["verdict"]) for r in found] == [
        ("quick", "ok"),
        ("dies", "could not run"),
        ("wrong", "wrong"),
        ("power", "ok"),
    ]
    died = found[1]["error"]
    for piece in ("the process that ran it died", "exit code 7", "without --workers"):
        assert piece in died
