"""The options of `gradkit check` reach the check."""

import jax
import numpy as np
import pytest

from gradkit.cli._dtype import cast_arguments


def test_numbers_and_names_are_passed_on(run, calls):
    run(
        *("check", "jax.numpy:sin", "--arg", "1.0", "--order", "2", "--seed", "5"),
        *("--points", "3", "--budget", "2.5", "--mode", "forward", "--mode", "reverse"),
    )
    ((function, args, options),) = calls
    assert function is jax.numpy.sin
    assert args == (1.0,)
    assert options == {
        "order": 2,
        "seed": 5,
        "points": 3,
        "budget": 2.5,
        "modes": ("forward", "reverse"),
    }


def test_without_options_those_of_the_case_hold(run, calls):
    run("check", "good/waves.py", "-k", "'wave 2'", "--points", "1")
    ((_, args, options),) = calls
    assert (args, options) == ((0.5,), {"order": 2, "points": 1})


def test_functions_are_passed_on(run, calls):
    run(
        *("check", "clipped.py:sign", "--reference", "jax.numpy:sign"),
        *("--surrogate", "clipped.py:clip", "--domain", "clipped.py:near"),
        *("--cotangent-map", "jax.numpy:tanh"),
    )
    ((function, _, options),) = calls
    assert options["reference"] is jax.numpy.sign
    assert options["cotangent_map"] is jax.numpy.tanh
    assert options["surrogate"](5.0) == 1
    assert options["domain"](5.0)
    # The file was loaded once.
    assert options["surrogate"].__globals__["sign"] is function


def test_a_surrogate_decides(run):
    assert run("check", "clipped.py:sign").exit_code == 1
    result = run("check", "clipped.py:sign", "--surrogate", "clipped.py:clip")
    assert result.exit_code == 0, result.output


def test_a_reference_in_a_file_that_registers_the_same_name(run, folder):
    text = (folder / "made.py").read_text().replace("return n *", "return 7 *")
    (folder / "other.py").write_text(text)
    result = run(
        *("check", "made.py:power", "--arg", "2.0", "--arg", "3"),
        *("--domain", "other.py:power"),
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("args", "pieces"),
    [
        (["clipped.py", "--reference", "jax.numpy:sign"], ["--reference concerns one function"]),
        (["clipped.py:sign", "--domain", "clipped.py"], ["--domain 'clipped.py' does not name"]),
        (["clipped.py:sign", "--surrogate", "clipped.py:clap"], ["did you mean 'clip'"]),
        (["clipped.py:sign", "--cotangent-map", "clapped:x"], ["no file, folder or module"]),
    ],
    ids=["folder", "file", "function", "module"],
)
def test_functions_that_are_not_there(run, args, pieces):
    result = run("check", *args)
    assert result.exit_code == 2
    for piece in pieces:
        assert piece in result.output


@pytest.mark.parametrize(
    "option",
    [["--mode", "sideways"], ["--dtype", "int8"], ["--order", "0"], ["--workers", "0"]],
    ids=" ".join,
)
def test_values_that_an_option_cannot_have(run, option):
    result = run("check", "good", *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_arguments_are_cast(run, monkeypatch, dtype):
    seen = []

    def record(f, x, **options):
        seen.append((jax.numpy.asarray(x).dtype, x.shape))
        raise RuntimeError("recorded")

    monkeypatch.setattr("gradkit.verify._cases.check", record)
    run("check", "good/waves.py", "-k", "vector", "--dtype", dtype)
    assert seen == [(dtype, (3,))]
    assert not jax.config.jax_enable_x64


def test_only_floating_point_leaves_are_cast():
    key = jax.random.key(0)
    tree = {"a": np.ones(2, np.float16), "i": np.arange(2), "k": key, "n": None, "s": "max"}
    (cast, z), (also, w) = (cast_arguments((tree, 1j), dtype) for dtype in ("float32", "bfloat16"))
    assert (cast["a"].dtype, also["a"].dtype) == ("float32", "bfloat16")
    assert cast["i"] is tree["i"]
    assert cast["k"] is key
    assert (cast["n"], cast["s"]) == (None, "max")
    assert (z.dtype, w) == ("complex64", 1j)


def test_a_gradient_is_computed_in_the_type(run):
    result = run("check", "good/waves.py:wave", "--dtype", "float64", "-k", "vector")
    assert result.exit_code == 0, result.output
