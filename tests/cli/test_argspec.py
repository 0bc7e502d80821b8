"""Arguments on the command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit._errors import TargetError
from gradkit.cli._argspec import parse_arguments, precision_of


def parse(spec, seed=0):
    (value,) = parse_arguments([spec], seed)
    return value


@pytest.mark.parametrize(
    ("spec", "dtype", "shape"),
    [
        ("f32[8,4]", "float32", (8, 4)),
        ("float32[8, 4]", "float32", (8, 4)),
        ("f32[]", "float32", ()),
        ("bf16[3]", "bfloat16", (3,)),
        ("f64[2,]", "float64", (2,)),
        ("i32[8]<10", "int32", (8,)),
        ("u8[0]", "uint8", (0,)),
        ("bool[4]", "bool", (4,)),
        ("c64[2]", "complex64", (2,)),
    ],
)
def test_arrays(spec, dtype, shape):
    value = parse(spec)
    assert (value.dtype, value.shape) == (jnp.dtype(dtype), shape)
    np.testing.assert_array_equal(value, parse(spec))


def test_the_seed_and_the_position_change_the_numbers():
    assert (parse("f32[4]", 0) != parse("f32[4]", 1)).all()
    one, two = parse_arguments(["f32[4]", "f32[4]"])
    assert (one != two).all()


def test_bounds():
    assert set(parse("i32[200]<3").tolist()) == {0, 1, 2}
    assert parse("i32[200]").max() == 9
    assert parse("i32[200]>4").min() == 5
    assert parse("f32[200]>2").min() > 2
    assert parse("f32[200]<-1").max() < -1


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("3", 3),
        ("-2.5", -2.5),
        ("1e-3", 1e-3),
        ("None", None),
        ("True", True),
        ("'max'", "max"),
        ("(1, 2)", (1, 2)),
    ],
)
def test_python_values(spec, value):
    parsed = parse(spec)
    assert parsed == value
    assert type(parsed) is type(value)


def test_keys():
    assert jnp.issubdtype(parse("key").dtype, jax.dtypes.prng_key)


def test_64_bit_types_switch_precision_on():
    with precision_of(["3", "f64[2]"]):
        assert jnp.ones(2).dtype == "float64"
    with precision_of(["f32[2]"]):
        assert jnp.ones(2).dtype == "float32"


@pytest.mark.parametrize(
    ("spec", "pieces"),
    [
        ("max", ["cannot read --arg 'max'", "quote strings twice", "f32[8,4]"]),
        ("f32[a]", ["cannot read --arg 'f32[a]'"]),
        ("f33[2]", ["no type 'f33'", "did you mean 'f32'"]),
        ("f32[2]>x", ["'x' is not a bound"]),
        ("i32[2]<0", ["no integer is from 0 to below 0"]),
    ],
)
def test_what_cannot_be_read(spec, pieces):
    with pytest.raises(TargetError) as error:
        parse(spec)
    for piece in pieces:
        assert piece in str(error.value)
