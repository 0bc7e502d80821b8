"""A run with every verdict, made by hand: what the writers of reports are tried on."""

import numpy as np

from gradkit.cli._discover import Task
from gradkit.cli._outcome import Outcome
from gradkit.cli._run import Result
from gradkit.cli._settings import Settings
from gradkit.cli._targets import Place
from gradkit.verify import Evidence, Finding, ModeSummary, Report

STEPS = tuple(2.0**-k for k in range(2, 40, 2))


def slopes(true, curvature=0.3, eps=1e-16):
    """What difference quotients of a float64 function look like."""
    return tuple(true + curvature * h**2 + eps / h * (-1) ** i for i, h in enumerate(STEPS))


def errors(*shape):
    numbers = np.random.default_rng(0).standard_normal(shape)
    numbers[0, 0], numbers[1] = 4.0, 0.0
    numbers[-1, -1] = np.nan
    return tuple(map(tuple, numbers.tolist()))


DOUBLED = Finding(
    "gradient",
    "both",
    1,
    "args[0]['w']",
    "the derivative disagrees with finite differences",
    expected=-0.544270833,
    got=-1.088541666,
    error=0.544270833,
    error_bar=1.2e-12,
    cause="too large by a factor of 2",
    point="signs flipped",
    index=(0, 0),
    evidence=Evidence(STEPS, slopes(-0.544270833), errors(6, 8), (6, 8)),
)
INFINITE = Finding(
    "nonfinite", "reverse", 2, "args[1]", "the derivative (nan) <is> not finite & odd"
)
UNSURE = Finding(
    "gradient",
    "forward",
    1,
    "args[0]",
    "finite differences are too uncertain here to tell right from wrong",
    expected=1.0,
    got=1.25,
    error=0.25,
    error_bar=float("inf"),
    evidence=Evidence((1e-2, 1e-3), (1.25, float("nan")), ((0.25,),), (1,)),
)
SUMMARIES = (
    ModeSummary("reverse", 1, "wrong", 12, 5.4e-1, 1e-10),
    ModeSummary("forward", 1, "not available", reason="a custom_vjp has none"),
)


def report(findings=(), inconclusive=(), notes=()):
    points = ("given", "nearby", "signs flipped")
    return Report(
        "f", findings, inconclusive, notes, SUMMARIES[:1] * bool(findings), 1, 3, "float64", points
    )


def result(function, case, found=None, error="", line=7):
    task = Task(Place("models/nn.py", None, function), f"models/nn.py:{function}", case)
    task = Task(task.place, task.label, case, file="models/nn file.py", line=line)
    return Result(task, found, error, 0.25)


def make_outcome(**changes):
    results = [
        result("softmax", "1", report(notes=("args[0] is at a kink",))),
        result("attention", "large <tokens>", report((DOUBLED, INFINITE))),
        result("router", "1", report((), (UNSURE,)), line=None),
        result("mask", "1", None, "ValueError: \x1b[31mnot today\n  at models/nn.py:9, in mask"),
    ]
    outcome = Outcome(
        Settings(options={"order": 2}),
        5,
        ["models/nn.py:scale"],
        "gradkit 0.1.0, JAX 0.10.2, cpu",
        dict(enumerate(results)),
        seconds=1.5,
    )
    for name, value in changes.items():
        setattr(outcome, name, value)
    return outcome
