"""Public names without a derivative to check, by library module, each with its reason."""

from __future__ import annotations

EXCLUDED: dict[str, dict[str, str]] = {}


def _exclude(module: str, reason: str, names: str) -> None:
    EXCLUDED.setdefault(module, {}).update(dict.fromkeys(names.split(), reason))


_exclude("jax.nn", "integer labels in, constants out", "one_hot")
_exclude("jax.nn", "needs 8-bit types of a GPU; its scales are constants", "scaled_matmul")
_exclude("jax.nn", "returns settings", "get_scaled_dot_general_config")

_exclude("jax.scipy.special", "a table over integers", "bernoulli")

_exclude(
    "jax.lax",
    "a type or a constant",
    "ConvGeneralDilatedDimensionNumbers DotDimensionNumbers PrecisionLike",
)
_exclude("jax.lax", "a predicate", "eq ge gt is_finite le lt ne reduce_and reduce_or reduce_xor")
_exclude(
    "jax.lax",
    "an integer operation",
    "bitwise_and bitwise_not bitwise_or bitwise_xor clz mulhi population_count shift_left "
    "shift_right_arithmetic shift_right_logical",
)
_exclude("jax.lax", "returns indices", "argmax argmin broadcasted_iota iota")
_exclude(
    "jax.lax",
    "tells shapes, types or layouts",
    "broadcast_shapes conv_dimension_numbers conv_general_permutations conv_general_shape_tuple "
    "conv_shape_tuple conv_transpose_shape_tuple dtype padtype_to_pads reduce_window_shape_tuple "
    "shape_as_value",
)
_exclude("jax.lax", "reads bits as another type", "bitcast_convert_type")
_exclude("jax.lax", "its values are undefined", "empty")
_exclude("jax.lax", "random", "rng_bit_generator rng_uniform")
_exclude("jax.lax", "orders effects, or keeps values alive", "after_all create_token dce_sink")
_exclude(
    "jax.lax",
    "control flow: the derivative is that of the functions in it",
    "cond fori_loop map platform_dependent scan switch while_loop",
)
_exclude(
    "jax.lax",
    "needs an axis of a mesh",
    "all_gather all_to_all axis_index axis_size pbroadcast pcast pmax pmean pmin ppermute precv "
    "psend pshuffle psum psum_scatter psum_scatter_start pswapaxes ragged_all_to_all "
    "with_sharding_constraint",
)
_exclude(
    "jax.lax",
    "has no differentiation rule, and says so",
    "composite igamma_grad_a nextafter scaled_dot scatter_apply zeta",
)

_exclude("jax.lax.linalg", "integers in, integers out", "lu_pivots_to_permutation")
_exclude(
    "jax.lax.linalg",
    "has no differentiation rule, and says so",
    "cholesky_update hessenberg householder_product ormqr schur symmetric_product tridiagonal",
)

_exclude("jax.numpy.linalg", "refuses to differentiate its eigenvectors", "eig")
_exclude("jax.numpy.linalg", "returns an integer", "matrix_rank")

_exclude(
    "jax.scipy.linalg",
    "a constant matrix",
    "dft hadamard helmert hilbert invhilbert invpascal pascal",
)
_exclude(
    "jax.scipy.linalg",
    "has no differentiation rule, and says so",
    "funm hessenberg qr_multiply schur sqrtm",
)
