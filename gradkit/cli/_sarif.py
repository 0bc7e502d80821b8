"""SARIF 2.1.0, which code review tools show at the line of each function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradkit.cli._outcome import Outcome, python_line
from gradkit.cli._run import COULD_NOT_RUN, Result
from gradkit.cli._versions import version
from gradkit.verify import Finding
from gradkit.verify._kinds import EXPLANATIONS

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_NOT_RUN = "could-not-run"
_ROOT = "%SRCROOT%"


def sarif_json(outcome: Outcome) -> str:
    """The log as a string.

    The rules are the kinds of findings. What is wrong is an error, what is inconclusive a warning,
    and what could not be run an error of the rule `could-not-run`.
    """
    found = [entry for result in outcome.results for entry in _results(outcome, result)]
    rules = list(dict.fromkeys(entry["ruleId"] for entry in found))
    for entry in found:
        entry["ruleIndex"] = rules.index(entry["ruleId"])
    driver = {
        "name": "gradkit",
        "version": version(),
        "rules": [_rule(kind) for kind in rules],
    }
    # Whoever shows the log knows where the code is: file names are relative to the folder.
    here = {"description": {"text": "The folder in which gradkit check was run."}}
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {_ROOT: here},
        "columnKind": "utf16CodeUnits",
        "invocations": [
            {
                "executionSuccessful": not (outcome.interrupted or outcome.counts[COULD_NOT_RUN]),
                "exitCode": outcome.exit_code,
                "startTimeUtc": outcome.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "toolExecutionNotifications": list(_notifications(outcome)),
            }
        ],
        "results": found,
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _results(outcome: Outcome, result: Result) -> Iterator[dict[str, Any]]:
    report = result.report
    if report is None:
        yield _entry(outcome, result, _NOT_RUN, "error", result.error, ())
        return
    for level, found in (("error", report.findings), ("warning", report.inconclusive)):
        for finding in found:
            text = "\n".join(filter(None, [str(finding), python_line(finding, report.seed)]))
            where = (finding.mode, finding.order, finding.where, finding.point)
            entry = _entry(outcome, result, finding.kind, level, text, where)
            entry["properties"] = _properties(finding)
            yield entry


def _entry(
    outcome: Outcome, result: Result, rule: str, level: str, text: str, where: tuple[Any, ...]
) -> dict[str, Any]:
    task = result.task
    head = f"The gradient of {task.label} (case {task.case})"
    state = {"error": "is wrong", "warning": "is inconclusive"}[level]
    state = "could not be checked" if rule == _NOT_RUN else state
    # The same finding of the next run has the same mark, also when lines have moved.
    mark = hashlib.sha256(repr((task.label, task.case, rule, *where)).encode()).hexdigest()
    entry: dict[str, Any] = {
        "ruleId": rule,
        "level": level,
        "message": {"text": f"{head} {state}: {text}\nAgain: {outcome.command(result)}"},
        "partialFingerprints": {"gradkitFinding/v1": mark},
    }
    if task.file:
        location = {
            "artifactLocation": _artifact(task.file),
            "region": {"startLine": task.line or 1},
        }
        logical = {"fullyQualifiedName": task.label, "kind": "function"}
        entry["locations"] = [{"physicalLocation": location, "logicalLocations": [logical]}]
    return entry


def _artifact(file: str) -> dict[str, str]:
    path = Path(file)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    relative = (Path.cwd() / path).as_uri().removeprefix(Path.cwd().as_uri()).lstrip("/")
    return {"uri": relative, "uriBaseId": _ROOT}


def _properties(finding: Finding) -> dict[str, Any]:
    return {
        "mode": finding.mode,
        "order": finding.order,
        "argument": finding.where,
        "point": finding.point,
    }


def _rule(kind: str) -> dict[str, Any]:
    if kind not in EXPLANATIONS:
        text = "The check could not be run."
        return {"id": kind, "shortDescription": {"text": text}}
    explanation = EXPLANATIONS[kind]
    return {
        "id": kind,
        "shortDescription": {"text": explanation.summary},
        "fullDescription": {"text": explanation.meaning},
        "help": {"text": explanation.cure},
    }


def _notifications(outcome: Outcome) -> Iterator[dict[str, Any]]:
    if outcome.cut_short:
        yield {"level": "warning", "message": {"text": outcome.cut_short}}
    for label in outcome.no_point:
        text = f"{label} has a gradient of its own and no point to check it at"
        yield {"level": "note", "message": {"text": text}}
