"""What the functions refuse, and in which words."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import safe

REAL = [
    "acosh", "arccos", "arcsin", "atanh", "log", "log1p", "log_softmax", "logsumexp", "norm",
    "normalize", "quaternion_log", "rotation_log", "softmax", "sqrt", "xlogx",
]  # fmt: skip
REAL_PAIRS = ["arctan2", "cosine_similarity", "divide", "logaddexp", "power", "xlogy"]
SQUARE = ["cholesky", "eigh", "sqrtm"]


@pytest.mark.parametrize("name", [*REAL, *REAL_PAIRS])
def test_complex_numbers_are_refused(name):
    args = [jnp.ones(4, complex)] * (2 if name in REAL_PAIRS else 1)
    with pytest.raises(TypeError) as error:
        getattr(safe, name)(*args)
    text = str(error.value)
    assert f"gk.safe.{name} is defined for real numbers only." in text
    assert "got:      complex64" in text
    assert "fix:      pass real and imaginary part apart" in text


@pytest.mark.parametrize("name", SQUARE)
def test_matrices_have_to_be_square(name):
    with pytest.raises(ValueError, match="takes a square matrix") as error:
        getattr(safe, name)(jnp.ones((2, 3)))
    text = str(error.value)
    assert f"gk.safe.{name} takes" in text
    assert "expected: [..., n, n]" in text
    assert "got:      shape (2, 3)" in text
    assert "fix:      use svd or qr" in text


@pytest.mark.parametrize("name", ["qr", "svd"])
def test_a_vector_is_no_matrix(name):
    with pytest.raises(ValueError, match="takes a matrix") as error:
        getattr(safe, name)(jnp.ones(3))
    assert "expected: [..., m, n]" in str(error.value)
    assert "fix:" not in str(error.value)


@pytest.mark.parametrize(("name", "shape"), [("quaternion_log", "4"), ("rotation_log", "3, 3")])
def test_rotations_have_their_shape(name, shape):
    with pytest.raises(ValueError, match=name) as error:
        getattr(safe, name)(jnp.ones((2, 5)))
    assert f"expected: [..., {shape}]" in str(error.value)
    assert "got:      (2, 5)" in str(error.value)


def test_integers_count_as_floating_point_numbers():
    assert safe.sqrt(4) == 2
    assert safe.divide(np.arange(2), 2)[1] == 0.5
    assert safe.norm(np.array([3, 4])) == 5
    assert safe.power(jnp.ones(2, "bfloat16"), 2).dtype == "bfloat16"
    assert safe.eigh(np.eye(2, dtype=int))[0].dtype == "float32"
