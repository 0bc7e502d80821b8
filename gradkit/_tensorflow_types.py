"""What each TensorFlow operation type means in JAX, as a table of override targets.

A target is a key of `gradient_override_map` in its canonical form. `prim:dot_general` is the JAX
primitive of that name. `fn:jax.nn.relu` is a function object that leaves a recognisable trace:
a `jax.custom_jvp` object, or a function wrapped in `jax.jit` that is not inlined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorFlowType:
    """One TensorFlow operation type and what stands for it in JAX.

    Attributes:
        name: The type in TensorFlow's spelling, such as `"MatMul"`.
        targets: What the type stands for as a key. A target that the installed JAX lacks is
            skipped: versions spell some operations differently.
        function: Dotted path of the public JAX function that computes the operation from its
            array inputs alone. Its default gradient is the meaning of the type as a value;
            `None` where the operation needs attributes too, or JAX cannot differentiate it
            in every floating-point input.
        note: Where the JAX operation differs from TensorFlow's.
    """

    name: str
    targets: tuple[str, ...]
    function: str | None
    note: str = ""


def _types(
    names: str, targets: str, function: str | None = None, note: str = ""
) -> tuple[TensorFlowType, ...]:
    """Types that mean the same in JAX; names and targets are separated by blanks."""
    row = tuple(targets.split()), function, note
    return tuple(TensorFlowType(name, *row) for name in names.split())


# Rule of the table: a type is mapped to something that computes the same values from the same
# inputs, up to attributes such as rank or axes. A primitive is preferred where each public
# spelling binds it. A function is preferred where the primitive alone means something else: the
# upper triangle of what `cholesky` returns is undefined until jnp.linalg.cholesky masks it.

_UNARY = (
    *_types("Abs ComplexAbs", "prim:abs", "jax.numpy.abs"),
    *_types("Neg", "prim:neg", "jax.numpy.negative"),
    *_types("Sign", "prim:sign", "jax.numpy.sign"),
    *_types("Floor", "prim:floor", "jax.numpy.floor"),
    *_types("Ceil", "prim:ceil", "jax.numpy.ceil"),
    *_types("Round", "prim:round", "jax.numpy.round", note="`jnp.floor_divide` binds it too."),
    *_types("Rint", "prim:round", "jax.numpy.rint", note="`jnp.floor_divide` binds it too."),
    *_types("Square", "prim:square", "jax.numpy.square", note='`x**2` is "Pow", `x * x` is "Mul".'),
    *_types("Sqrt", "prim:sqrt", "jax.numpy.sqrt"),
    *_types(
        "Rsqrt", "prim:rsqrt", "jax.lax.rsqrt", note='`1 / jnp.sqrt(x)` is "Sqrt" and "RealDiv".'
    ),
    *_types("Exp", "prim:exp", "jax.numpy.exp"),
    *_types("Expm1", "prim:expm1", "jax.numpy.expm1"),
    *_types("Log", "prim:log", "jax.numpy.log"),
    *_types("Log1p", "prim:log1p", "jax.numpy.log1p"),
    *_types("Sin", "prim:sin", "jax.numpy.sin"),
    *_types("Cos", "prim:cos", "jax.numpy.cos"),
    *_types("Tan", "prim:tan", "jax.numpy.tan"),
    *_types("Asin", "prim:asin", "jax.numpy.arcsin"),
    *_types("Acos", "prim:acos", "jax.numpy.arccos"),
    *_types("Atan", "prim:atan", "jax.numpy.arctan"),
    *_types("Sinh", "prim:sinh", "jax.numpy.sinh"),
    *_types("Cosh", "prim:cosh", "jax.numpy.cosh"),
    *_types("Tanh", "prim:tanh", "jax.numpy.tanh"),
    *_types("Asinh", "prim:asinh", "jax.numpy.arcsinh"),
    *_types("Acosh", "prim:acosh", "jax.numpy.arccosh"),
    *_types("Atanh", "prim:atanh", "jax.numpy.arctanh"),
    *_types("Real", "prim:real", "jax.numpy.real"),
    *_types("Imag", "prim:imag", "jax.numpy.imag"),
    *_types("Conj", "prim:conj", "jax.numpy.conj", note="No trace on a real array."),
    *_types("Angle", "fn:jax.numpy.angle", "jax.numpy.angle"),
    *_types(
        "Cast",
        "prim:convert_element_type",
        note="Conversions that type promotion inserts are matched as well.",
    ),
)

_SPECIAL = (
    *_types("Erf", "prim:erf", "jax.scipy.special.erf"),
    *_types("Erfc", "prim:erfc", "jax.scipy.special.erfc"),
    *_types("Erfinv", "prim:erf_inv", "jax.scipy.special.erfinv"),
    *_types("Lgamma", "prim:lgamma", "jax.scipy.special.gammaln"),
    *_types("Digamma", "prim:digamma", "jax.scipy.special.digamma"),
    *_types("Polygamma", "prim:polygamma", "jax.scipy.special.polygamma"),
    *_types("Zeta", "fn:jax.scipy.special.zeta", "jax.scipy.special.zeta"),
    *_types("Igamma", "prim:igamma", "jax.scipy.special.gammainc"),
    *_types("Igammac", "prim:igammac", "jax.scipy.special.gammaincc"),
    *_types(
        "Betainc",
        "prim:regularized_incomplete_beta",
        note="JAX differentiates it in x alone: elsewhere `op.default_vjp` fails.",
    ),
    *_types(
        "BesselI0",
        "fn:jax.numpy.i0",
        "jax.numpy.i0",
        note='`jax.scipy.special.i0` is a plain function: "BesselI0e" is the part to override.',
    ),
    *_types("BesselI0e", "prim:bessel_i0e", "jax.scipy.special.i0e"),
    *_types("BesselI1e", "prim:bessel_i1e", "jax.scipy.special.i1e"),
    *_types("Expint", "fn:jax.scipy.special.expi", "jax.scipy.special.expi"),
    *_types("Xlogy", "fn:jax.scipy.special.xlogy", "jax.scipy.special.xlogy"),
    *_types("Xlog1py", "fn:jax.scipy.special.xlog1py", "jax.scipy.special.xlog1py"),
)

_BINARY = (
    *_types("Add AddV2", "prim:add", "jax.numpy.add"),
    *_types(
        "BiasAdd BiasAddV1",
        "prim:add",
        "jax.numpy.add",
        note="Every addition matches. The bias has the rank of the other operand, with axes of "
        "size 1 where it is stretched, and its cotangent is summed over those.",
    ),
    *_types("Sub", "prim:sub", "jax.numpy.subtract"),
    *_types("Mul", "prim:mul", "jax.numpy.multiply"),
    *_types("Div RealDiv", "prim:div", "jax.numpy.divide"),
    *_types("FloorDiv", "fn:jax.numpy.floor_divide", "jax.numpy.floor_divide"),
    *_types("FloorMod", "fn:jax.numpy.remainder", "jax.numpy.remainder"),
    *_types(
        "Mod TruncateMod",
        "prim:rem",
        "jax.lax.rem",
        note="`jnp.remainder` and `jnp.floor_divide` bind it too.",
    ),
    *_types(
        "Pow",
        "prim:pow prim:integer_pow",
        "jax.numpy.power",
        note="With a constant integer exponent the primitive is integer_pow: one input, and "
        '`op.attrs["y"]` is the exponent.',
    ),
    *_types("Maximum", "prim:max", "jax.numpy.maximum"),
    *_types("Minimum", "prim:min", "jax.numpy.minimum"),
    *_types(
        "ClipByValue",
        "fn:jax.numpy.clip prim:clamp",
        "jax.numpy.clip",
        note="The inputs of `jnp.clip` are (x, min, max), a missing bound left out; those of "
        "`lax.clamp` are (min, x, max).",
    ),
    *_types("Atan2", "prim:atan2", "jax.numpy.arctan2"),
    *_types(
        "Complex", "prim:complex", "jax.lax.complex", note='`x + 1j * y` is "Mul" and "AddV2".'
    ),
    *_types(
        "NextAfter",
        "prim:nextafter",
        note="Older JAX has no derivative of it, so `op.default_vjp` fails there.",
    ),
    *_types("Cross", "fn:jax.numpy.cross", "jax.numpy.cross"),
    *_types(
        "Select SelectV2",
        "prim:select_n",
        "jax.numpy.where",
        note="The inputs are (condition, value if false, value if true).",
    ),
)

_ACTIVATIONS = (
    *_types("Relu", "fn:jax.nn.relu", "jax.nn.relu", note='`jnp.maximum(x, 0)` is "Maximum".'),
    *_types("Relu6", "fn:jax.nn.relu6", "jax.nn.relu6", note="Inside `jax.nn.hard_sigmoid` too."),
    *_types("Elu", "fn:jax.nn.elu", "jax.nn.elu", note="Inside `jax.nn.selu` too."),
    *_types("Selu", "fn:jax.nn.selu", "jax.nn.selu"),
    *_types(
        "LeakyRelu",
        "fn:jax.nn.leaky_relu",
        "jax.nn.leaky_relu",
        note="The default slope is 0.01 (0.2 in TensorFlow); a slope that is passed is a second "
        "input.",
    ),
    *_types(
        "Sigmoid",
        "prim:logistic",
        "jax.nn.sigmoid",
        note="Inside `jax.nn.silu` and `jax.nn.glu` too.",
    ),
    *_types(
        "Softplus",
        "fn:jax.nn.softplus",
        "jax.nn.softplus",
        note="Inside `jax.nn.log_sigmoid` too. `jnp.logaddexp(x, 0)` does not match.",
    ),
    *_types("Softsign", "fn:jax.nn.soft_sign", "jax.nn.soft_sign"),
    *_types("LogSoftmax", "fn:jax.nn.log_softmax", "jax.nn.log_softmax"),
)

_REDUCTIONS = (
    *_types("Sum", "prim:reduce_sum", note="Inside `jnp.mean` and `jax.nn.softmax` too."),
    *_types("Prod", "prim:reduce_prod"),
    *_types("Max", "prim:reduce_max", note="Inside `jax.nn.softmax` too."),
    *_types("Min", "prim:reduce_min"),
    *_types(
        "EuclideanNorm",
        "fn:jax.numpy.linalg.norm",
        note="Every order of norm matches, the matrix norms included.",
    ),
    *_types("Cumsum", "prim:cumsum"),
    *_types("Cumprod", "prim:cumprod"),
    *_types("CumulativeLogsumexp", "prim:cumlogsumexp"),
)

_PRODUCTS = (
    *_types(
        "MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 SparseMatMul",
        "prim:dot_general",
        note='Every rank matches; `op.attrs["dimension_numbers"]` says which axes are contracted. '
        "`x @ y.T` transposes first.",
    ),
    *_types(
        "Einsum XlaEinsum",
        "prim:dot_general",
        note="One for each pairwise contraction, the operands perhaps swapped; an einsum of one "
        "operand is a reduction or a transpose.",
    ),
)

_CONVOLUTIONS = (
    *_types(
        "Conv Conv2D Conv3D DepthwiseConv2dNative",
        "prim:conv_general_dilated",
        note='Every rank matches, depthwise (`op.attrs["feature_group_count"]`) and transposed '
        '(`op.attrs["lhs_dilation"]`) convolutions too.',
    ),
    *_types(
        "MaxPool MaxPoolV2 MaxPool3D",
        "prim:reduce_window_max",
        note="Every rank matches; the window spans all axes, batch and channel included.",
    ),
)

_SHAPES = (
    *_types("Reshape", "prim:reshape"),
    *_types("Squeeze", "prim:squeeze", note="An integer index is a slice and a squeeze."),
    *_types(
        "ExpandDims BroadcastTo Fill",
        "prim:broadcast_in_dim",
        note="One primitive for all three; the broadcasts that arithmetic inserts match as well.",
    ),
    *_types("Transpose", "prim:transpose"),
    *_types("Reverse ReverseV2", "prim:rev", note="`x[::-1]` is one."),
    *_types("Pad PadV2", "prim:pad", note="The inputs are (x, padding value)."),
    *_types(
        "Concat ConcatV2",
        "prim:concatenate",
        note='The axis is `op.attrs["dimension"]`, not an input.',
    ),
    *_types("Pack", "prim:stack", note="Before JAX 0.10.1, `jnp.stack` is a concatenate."),
    *_types("Unpack", "prim:unstack fn:jax.numpy.unstack"),
    *_types("Split SplitV", "prim:split"),
    *_types("Tile", "prim:tile", note="Before JAX 0.9, `jnp.tile` is a broadcast and a reshape."),
)

_INDEXING = (
    *_types(
        "Slice StridedSlice",
        "prim:slice prim:dynamic_slice",
        note="An integer index is a slice and a squeeze; a start that is traced is an input of "
        "dynamic_slice; arrays of indices are a gather.",
    ),
    *_types(
        "Gather GatherV2 GatherNd",
        "prim:gather",
        note="The inputs are (x, indices), the indices with one more axis at the end.",
    ),
    *_types(
        "TensorScatterUpdate",
        "prim:scatter",
        note="`x.at[i].set(y)`. The inputs are (x, indices, y).",
    ),
    *_types(
        "TensorStridedSliceUpdate",
        "prim:scatter prim:dynamic_update_slice",
        note="`x.at[a:b].set(y)` has the inputs (x, indices, y), `lax.dynamic_update_slice` "
        "(x, y, start of each axis).",
    ),
    *_types(
        "ScatterNd TensorScatterAdd ScatterNdNonAliasingAdd",
        "prim:scatter-add",
        note="`x.at[i].add(y)`. The inputs are (x, indices, y).",
    ),
    *_types("TensorScatterSub", "prim:scatter-sub", note="x.at[i].subtract(y)."),
    *_types("TensorScatterMax", "prim:scatter-max", note="x.at[i].max(y)."),
    *_types("TensorScatterMin", "prim:scatter-min", note="x.at[i].min(y)."),
    *_types(
        "SegmentSum UnsortedSegmentSum",
        "prim:scatter-add",
        note="`jax.ops.segment_sum`. The inputs are (zeros, segment ids, data).",
    ),
    *_types("SegmentMax UnsortedSegmentMax", "prim:scatter-max", note="jax.ops.segment_max."),
    *_types("SegmentMin UnsortedSegmentMin", "prim:scatter-min", note="jax.ops.segment_min."),
    *_types("SegmentProd UnsortedSegmentProd", "prim:scatter-mul", note="jax.ops.segment_prod."),
    *_types(
        "DiagPart MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3",
        "fn:jax.numpy.diagonal",
        note="`jnp.diagonal`, and `jnp.diag` of a matrix.",
    ),
    *_types(
        "MatrixBandPart", "fn:jax.numpy.tril fn:jax.numpy.triu", note="Only the triangular bands."
    ),
    *_types("TopK TopKV2", "prim:top_k", note="The outputs are (values, indices)."),
    *_types("ApproxTopK", "prim:approx_top_k", note="The outputs are (values, indices)."),
)

_LINEAR_ALGEBRA = (
    *_types(
        "Cholesky",
        "fn:jax.numpy.linalg.cholesky",
        "jax.numpy.linalg.cholesky",
        note="`jax.scipy.linalg.cholesky` and `lax.linalg.cholesky` do not match; they bind "
        '"prim:cholesky", whose output is undefined above the diagonal.',
    ),
    *_types("MatrixInverse", "fn:jax.numpy.linalg.inv", "jax.numpy.linalg.inv"),
    *_types("MatrixDeterminant", "fn:jax.numpy.linalg.det", "jax.numpy.linalg.det"),
    *_types(
        "LogMatrixDeterminant",
        "fn:jax.numpy.linalg.slogdet",
        "jax.numpy.linalg.slogdet",
        note="The outputs are (sign, logarithm), as in TensorFlow.",
    ),
    *_types(
        "MatrixSolve",
        "fn:jax.numpy.linalg.solve",
        "jax.numpy.linalg.solve",
        note="Inside `jnp.linalg.inv` and, for general matrices, `jax.scipy.linalg.solve` too.",
    ),
    *_types(
        "MatrixTriangularSolve",
        "prim:triangular_solve",
        note="Triangle and side are `op.attrs`; b is a matrix. Inside lu_solve and cho_solve too.",
    ),
    *_types(
        "TridiagonalSolve",
        "prim:tridiagonal_solve",
        note="The inputs are (lower, diagonal, upper, b), not one stacked array.",
    ),
    *_types("Qr", "prim:qr", note="The outputs are (q, r), as in TensorFlow."),
    *_types(
        "Svd",
        "prim:svd",
        note="The outputs are (s, u, v^H); TensorFlow's third is v, `jnp.linalg.svd`'s order u, s.",
    ),
    *_types(
        "SelfAdjointEigV2",
        "fn:jax.numpy.linalg.eigh",
        "jax.numpy.linalg.eigh",
        note="The outputs are (eigenvalues, eigenvectors). `jax.scipy.linalg.eigh` and "
        '`lax.linalg.eigh` do not match; they bind "prim:eigh", which returns the vectors first.',
    ),
    *_types("Eig", "prim:eig", note="By default JAX differentiates the eigenvalues alone."),
    *_types("Lu", "prim:lu", note="The outputs are (lu, pivots, permutation)."),
    *_types("MatrixExponential", "fn:jax.scipy.linalg.expm", "jax.scipy.linalg.expm"),
)

_FOURIER_NOTE = (
    'Every kind matches; `op.attrs["fft_type"]` and `op.attrs["fft_lengths"]` tell them.'
)
_FOURIER = (
    *_types("FFT", "prim:fft", "jax.numpy.fft.fft", _FOURIER_NOTE),
    *_types("IFFT", "prim:fft", "jax.numpy.fft.ifft", _FOURIER_NOTE),
    *_types("FFT2D", "prim:fft", "jax.numpy.fft.fft2", _FOURIER_NOTE),
    *_types("IFFT2D", "prim:fft", "jax.numpy.fft.ifft2", _FOURIER_NOTE),
    *_types(
        "FFT3D IFFT3D FFTND IFFTND RFFT IRFFT RFFT2D IRFFT2D RFFT3D IRFFT3D RFFTND IRFFTND",
        "prim:fft",
        note=_FOURIER_NOTE,
    ),
)

_OTHERS = (
    *_types(
        "Identity",
        "prim:copy fn:jax.nn.identity",
        "jax.numpy.copy",
        note="`jnp.copy`, `jnp.array` and `jax.nn.identity`. An assignment leaves no trace.",
    ),
    *_types("StopGradient", "prim:stop_gradient", "jax.lax.stop_gradient"),
    *_types("PyFunc EagerPyFunc", "prim:pure_callback prim:io_callback"),
    *_types("PyFuncStateless", "prim:pure_callback"),
    *_types(
        "RandomGamma StatelessRandomGammaV2 StatelessRandomGammaV3",
        "prim:random_gamma",
        note='The inputs are (key, alpha); `op.attrs["log_space"]` tells gamma from loggamma.',
    ),
    *_types(
        "CrossReplicaSum NcclAllReduce",
        "prim:psum prim:psum_invariant",
        note="The name depends on shard_map's check_vma. Only sums.",
    ),
    *_types("CollectivePermute", "prim:ppermute"),
    *_types("AllToAll", "prim:all_to_all"),
)

_FAMILIES: Mapping[str, tuple[TensorFlowType, ...]] = {
    "Elementwise, one input": _UNARY,
    "Special functions": _SPECIAL,
    "Elementwise, several inputs": _BINARY,
    "Activations": _ACTIVATIONS,
    "Reductions and scans": _REDUCTIONS,
    "Products": _PRODUCTS,
    "Convolution and pooling": _CONVOLUTIONS,
    "Shapes": _SHAPES,
    "Indexing": _INDEXING,
    "Linear algebra": _LINEAR_ALGEBRA,
    "Fourier transforms": _FOURIER,
    "Identity, callbacks, randomness, collectives": _OTHERS,
}

TENSORFLOW_TYPES: Mapping[str, TensorFlowType] = {
    row.name: row for rows in _FAMILIES.values() for row in rows
}

_BACKWARD = (
    "The backward pass of TensorFlow, not something that a JAX program calls: override the "
    "forward type. For the second derivative, let its rule call a `gk.custom_gradient` function."
)
_CONTROL_FLOW = (
    "Control flow is overridden through the operations that its branches and bodies call: use "
    "their keys."
)
_NO_OPERATION = (
    'Leaves no operation in a JAX program. Mark the place with `jnp.copy` and use "Identity".'
)
_NO_COUNTERPART = (
    "JAX has no differentiable counterpart. Bring one with `gk.op`, or with `gk.host_op` for a "
    "function outside JAX."
)
_DENSE = 'JAX arrays are dense: use the dense type, such as "AddV2", "MatMul" or "Gather".'
_COLLECTIONS = (
    "JAX collects arrays by `lax.scan`, by `jnp.stack` or by `x.at[i].set`: use "
    '"Pack", "Gather" or "TensorScatterUpdate".'
)

_ADVICE = (
    ("AddN AccumulateNV2", 'A sum of arrays is a chain of additions: use "AddV2".'),
    ("SquaredDifference", '`jnp.square(x - y)` is two operations: use "Square" or "Sub".'),
    (
        "Reciprocal Inv",
        '`jnp.reciprocal` is a power with exponent -1, `1 / x` a division: use "Pow", in whose '
        'rule `op.attrs["y"]` is the exponent, or "RealDiv".',
    ),
    (
        "DivNoNan MulNoNan Xdivy",
        'Spelled as an operation and a `jnp.where`: use "RealDiv", "Mul" or "SelectV2".',
    ),
    ("TruncateDiv", 'A division of integers; the key of every division is "RealDiv".'),
    ("ArgMax", 'An integer output has no gradient; "Max" and "TopKV2" do.'),
    ("ArgMin", 'An integer output has no gradient; "Min" and "TopKV2" do.'),
    ("L2Loss", 'Composed of "Square", "Pow" or "Mul", as it is spelled, and "Sum".'),
    (
        "Mean",
        '`jnp.mean` is a sum and a division: use "Sum", whose cotangent has been divided by the '
        "number of elements.",
    ),
    (
        "SegmentMean",
        'A sum over segments and a division: use "SegmentSum", whose cotangent has been divided '
        "by the size of the segment.",
    ),
    (
        "AvgPool AvgPool3D",
        'A sum over windows and a division: use "prim:reduce_window_sum", whose cotangent has '
        "been divided by the size of the window.",
    ),
    (
        "MaxPoolWithArgmax FractionalMaxPool FractionalAvgPool",
        'JAX pools over windows of one size and without indices: "MaxPool".',
    ),
    (
        "Softmax",
        '`jax.nn.softmax` is a plain function that leaves "Exp", "Sum" and "RealDiv" behind: use '
        'those, or "LogSoftmax" where the model calls log_softmax. A softmax of your own gets '
        "its gradient by `gk.op` or `gk.custom_gradient`.",
    ),
    (
        "SoftmaxCrossEntropyWithLogits CTCLoss CTCLossV2",
        'The losses of optax are plain functions; these call log_softmax: use "LogSoftmax".',
    ),
    (
        "SparseSoftmaxCrossEntropyWithLogits",
        'The loss of optax is a plain function that leaves "Exp", "Sum" and "Log" behind.',
    ),
    (
        "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 BatchNormWithGlobalNormalization",
        'Normalisation layers leave "Sub", "Rsqrt" and "Mul" behind: use those, limited to the '
        "named scope of the layer.",
    ),
    ("LRN", 'Composed of "Square", "prim:reduce_window_sum" and "Pow".'),
    (
        "Ndtri Spence Dawsn BesselI1",
        "A plain function of `jax.scipy.special`, without a name of its own in a trace: call it "
        "through a function made with `gk.op`.",
    ),
    (
        "FresnelSin FresnelCos",
        'JAX computes both at once: use "fn:jax.scipy.special.fresnel", whose outputs are the '
        "sine and the cosine integral.",
    ),
    (
        "BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Dilation2D "
        "CropAndResize RGBToHSV ImageProjectiveTransformV2 ImageProjectiveTransformV3 "
        "BandedTriangularSolve TridiagonalMatMul IsotonicRegression MatrixSquareRoot",
        _NO_COUNTERPART,
    ),
    ("ConjugateTranspose", '`x.conj().T` is two operations: use "Transpose" or "Conj".'),
    (
        "Diag MatrixDiag MatrixDiagV2 MatrixDiagV3",
        '`jnp.diag` of a vector is a pad and a selection: use "Pad" or "SelectV2".',
    ),
    (
        "MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3",
        '`jnp.fill_diagonal` and `x.at[i, i].set` are "TensorScatterUpdate".',
    ),
    ("MirrorPad", '`jnp.pad` by reflection leaves "Slice", "Reverse" and "ConcatV2" behind.'),
    ("Roll", '`jnp.roll` leaves "Slice" and "ConcatV2" behind.'),
    ("ReverseSequence", 'Spelled by indexing or by `jnp.where`: use "Gather" or "SelectV2".'),
    (
        "SpaceToBatch SpaceToBatchND BatchToSpace BatchToSpaceND SpaceToDepth DepthToSpace",
        'Spelled as a reshape, a transpose and a reshape: use "Reshape" or "Transpose".',
    ),
    (
        "ExtractImagePatches ExtractVolumePatches",
        '`lax.conv_general_dilated_patches` is a convolution: use "Conv2D".',
    ),
    (
        "Conv2DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput",
        '`lax.conv_transpose` is a convolution: use "Conv2D", in whose rule '
        '`op.attrs["lhs_dilation"]` tells it from others.',
    ),
    (
        "DynamicPartition DynamicStitch ParallelDynamicStitch",
        'Shapes are fixed in JAX; spelled by indexing: use "Gather" or "TensorScatterUpdate".',
    ),
    ("NthElement", '`jnp.partition` takes the largest and the smallest: use "TopKV2".'),
    ("MatrixSolveLs", '`jnp.linalg.lstsq` is a plain function on top of "Svd".'),
    (
        "ResizeBilinear ResizeBicubic ScaleAndTranslate",
        '`jax.image.resize` multiplies by matrices of weights: use "MatMul".',
    ),
    ("ResizeNearestNeighbor", '`jax.image.resize` indexes: use "Gather".'),
    (
        "FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel "
        "QuantizeAndDequantize QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 "
        "QuantizeAndDequantizeV4",
        'Quantisation is spelled with "Round" and "ClipByValue".',
    ),
    (
        "BlockLSTM BlockLSTMV2 CudnnRNN CudnnRNNV2 CudnnRNNV3",
        'Recurrent cells leave "MatMul", "Sigmoid" and "Tanh" behind.',
    ),
    (
        "StatelessParameterizedTruncatedNormal",
        '`jax.random.truncated_normal` leaves "Erf" and "Erfinv" behind.',
    ),
    (
        "If StatelessIf Case StatelessCase While StatelessWhile Switch RefSwitch Merge RefMerge "
        "Enter RefEnter Exit RefExit NextIteration RefNextIteration LoopCond",
        _CONTROL_FLOW,
    ),
    ("IdentityN", 'Copy each array with `jnp.copy` and use "Identity".'),
    (
        "_EagerConst RefIdentity ReadVariableOp PlaceholderWithDefault PreventGradient EnsureShape "
        "CheckNumerics CheckNumericsV2 Print DebugGradientIdentity DebugGradientRefIdentity "
        "DebugIdentityV2 OptionalFromValue OptionalGetValue CompositeTensorVariantFromComponents "
        "CompositeTensorVariantToComponents TPUEmbeddingActivations NcclBroadcast NcclReduce",
        _NO_OPERATION,
    ),
    ("ResourceGather ResourceGatherNd", 'JAX has no variables: use "Gather".'),
    (
        "SparseSegmentSum SparseSegmentSumWithNumSegments SparseSegmentMean "
        "SparseSegmentMeanWithNumSegments SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments",
        'Spelled as an index and a segment sum: use "Gather" or "SegmentSum".',
    ),
    (
        "SparseAdd SparseReorder SparseSlice SparseToDense SparseTensorDenseAdd "
        "SparseTensorDenseMatMul SparseDenseCwiseAdd SparseDenseCwiseMul SparseDenseCwiseDiv "
        "SparseReduceSum SparseSoftmax SparseSparseMaximum SparseSparseMinimum "
        "SparseFillEmptyRows SparseMatrixAdd SparseMatrixMul SparseMatrixMatMul "
        "SparseMatrixSparseMatMul SparseMatrixSoftmax SparseMatrixTranspose "
        "CSRSparseMatrixToDense CSRSparseMatrixToSparseTensor DenseToCSRSparseMatrix "
        "SparseTensorToCSRSparseMatrix RaggedGather RaggedFillEmptyRows RaggedTensorToTensor "
        "RaggedTensorToSparse RaggedTensorToVariant RaggedTensorFromVariant",
        _DENSE,
    ),
    (
        "TensorArrayConcat TensorArrayConcatV2 TensorArrayConcatV3 TensorArrayGather "
        "TensorArrayGatherV2 TensorArrayGatherV3 TensorArrayRead TensorArrayReadV2 "
        "TensorArrayReadV3 TensorArrayScatter TensorArrayScatterV2 TensorArrayScatterV3 "
        "TensorArraySplit TensorArraySplitV2 TensorArraySplitV3 TensorArrayWrite "
        "TensorArrayWriteV2 TensorArrayWriteV3 TensorListConcat TensorListConcatV2 "
        "TensorListFromTensor TensorListGather TensorListGetItem TensorListPopBack "
        "TensorListPushBack TensorListResize TensorListScatter TensorListScatterV2 "
        "TensorListScatterIntoExistingList TensorListSetItem TensorListSplit TensorListStack "
        "TensorMapErase TensorMapInsert TensorMapLookup",
        _COLLECTIONS,
    ),
    (
        "AvgPoolGrad AvgPool3DGrad BiasAddGrad Conv2DBackpropFilter Conv3DBackpropFilterV2 "
        "DepthwiseConv2dNativeBackpropFilter EluGrad FusedBatchNormGrad FusedBatchNormGradV2 "
        "FusedBatchNormGradV3 InvGrad LeakyReluGrad MaxPoolGrad MaxPoolGradV2 MaxPoolGradGrad "
        "MaxPool3DGrad MaxPool3DGradGrad MirrorPadGrad QuantizeAndDequantizeV4Grad "
        "ReciprocalGrad ReluGrad Relu6Grad RsqrtGrad SeluGrad SigmoidGrad SoftplusGrad SqrtGrad "
        "StridedSliceGrad TanhGrad",
        _BACKWARD,
    ),
)

NOT_MAPPED: Mapping[str, str] = {
    name: advice for names, advice in _ADVICE for name in names.split()
}


_INTRODUCTION = """\
# TensorFlow operation types

A key of `gradient_override_map` may be the type of a TensorFlow operation, in TensorFlow's
spelling. This page lists what each type stands for. Every type for which TensorFlow 2.21
registers a gradient is here: in the first part if it can be a key, in the second with what to use
instead. The page is generated from `gradkit/_tensorflow_types.py`.

- `prim:dot_general` is the JAX primitive of that name, wherever it is called: by `jnp.matmul`, by
  `@`, inside a library. A primitive can be wider than the type; the note says so, and the rule
  sees the difference in `op.attrs`.
- `fn:jax.nn.relu` is that function object and no other spelling of the same mathematics.
- A target that the installed JAX lacks is skipped.
- The column *as a value* names the function whose default gradient the type means on the right
  side of a map: `{"Sign": "Tanh"}` gives `sign` the gradient of `tanh`. Types without one need
  attributes that a value cannot carry, such as an axis, or have no derivative in some input.
"""


def as_markdown() -> str:
    """The page docs/tensorflow-op-types.md, with one row for types that mean the same."""
    parts = [_INTRODUCTION, f"## Types that can be keys ({len(TENSORFLOW_TYPES)})\n"]
    for family, rows in _FAMILIES.items():
        parts.append(f"### {family}\n")
        meanings: dict[tuple[tuple[str, ...], str | None, str], list[str]] = {}
        for row in rows:
            meanings.setdefault((row.targets, row.function, row.note), []).append(row.name)
        cells = [
            (_code(names), _code(targets), _code([function] if function else []), note)
            for (targets, function, note), names in meanings.items()
        ]
        parts.append(_table(("Type", "Target", "As a value", "Note"), cells))
    parts.append(f"## Types that cannot be keys ({len(NOT_MAPPED)})\n")
    advice = [(_code(names.split()), text) for names, text in _ADVICE]
    parts.append(_table(("Type", "What to do instead"), advice))
    return "\n".join(parts)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
