"""The table of TensorFlow operation types against the JAX that is installed."""

import inspect
import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from jax import lax
from jax.experimental import io_callback
from jax.extend.core import Primitive, primitives
from jax.interpreters import ad

from gradkit._tensorflow_types import (
    _ADVICE,
    _FAMILIES,
    NOT_MAPPED,
    TENSORFLOW_TYPES,
    as_markdown,
)

# Types whose only target is younger than the oldest supported JAX.
SINCE = {"Tile": (0, 9, 0), "Pack": (0, 10, 1)}

V = np.array([0.2, 0.5, 0.7], np.float32)
W = np.array([0.3, 0.4, 0.6], np.float32)
Z = (V + 1j * W).astype(np.complex64)
M = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
B = np.stack([M, 2 * M])
IMAGE = np.ones((1, 6, 6, 2), np.float32)
VOLUME = np.ones((1, 4, 4, 4, 2), np.float32)
IDS = np.array([0, 2])


def conv(x, w, groups=1):
    spatial = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        w,
        (1,) * len(spatial),
        "SAME",
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )


def pool(x, start, reducer):
    window = (1, *(2,) * (x.ndim - 2), 1)
    return lax.reduce_window(x, start, reducer, window, window, "VALID")


def over_mesh(f, check_vma=True):
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    return jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check_vma)


def on_host(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


# The usual public spelling of each type, then inputs for it.
CASES = {
    "Abs": (jnp.abs, V),
    "ComplexAbs": (jnp.abs, Z),
    "Neg": (lambda x: -x, V),
    "Sign": (jnp.sign, V),
    "Floor": (jnp.floor, V),
    "Ceil": (jnp.ceil, V),
    "Round": (jnp.round, V),
    "Rint": (jnp.rint, V),
    "Square": (jnp.square, V),
    "Sqrt": (jnp.sqrt, V),
    "Rsqrt": (lax.rsqrt, V),
    "Exp": (jnp.exp, V),
    "Expm1": (jnp.expm1, V),
    "Log": (jnp.log, V),
    "Log1p": (jnp.log1p, V),
    "Sin": (jnp.sin, V),
    "Cos": (jnp.cos, V),
    "Tan": (jnp.tan, V),
    "Asin": (jnp.arcsin, V),
    "Acos": (jnp.arccos, V),
    "Atan": (jnp.arctan, V),
    "Sinh": (jnp.sinh, V),
    "Cosh": (jnp.cosh, V),
    "Tanh": (jax.nn.tanh, V),
    "Asinh": (jnp.arcsinh, V),
    "Acosh": (jnp.arccosh, V + 1),
    "Atanh": (jnp.arctanh, V),
    "Real": (jnp.real, Z),
    "Imag": (jnp.imag, Z),
    "Conj": (jnp.conj, Z),
    "Angle": (jnp.angle, Z),
    "Cast": (lambda x: x.astype(jnp.float16), V),
    "Erf": (jax.scipy.special.erf, V),
    "Erfc": (jax.scipy.special.erfc, V),
    "Erfinv": (jax.scipy.special.erfinv, V),
    "Lgamma": (jax.scipy.special.gammaln, V),
    "Digamma": (jax.scipy.special.digamma, V),
    "Polygamma": (jax.scipy.special.polygamma, np.ones(3, np.int32), V),
    "Zeta": (jax.scipy.special.zeta, V + 2, W),
    "Igamma": (jax.scipy.special.gammainc, V, W),
    "Igammac": (jax.scipy.special.gammaincc, V, W),
    "Betainc": (jax.scipy.special.betainc, V, W, V),
    "BesselI0": (jnp.i0, V),
    "BesselI0e": (jax.scipy.special.i0e, V),
    "BesselI1e": (jax.scipy.special.i1e, V),
    "Expint": (jax.scipy.special.expi, V),
    "Xlogy": (jax.scipy.special.xlogy, V, W),
    "Xlog1py": (jax.scipy.special.xlog1py, V, W),
    "Add AddV2": (lambda x, y: x + y, V, W),
    "BiasAdd BiasAddV1": (lambda x, b: x + b[None], M, V[:2]),
    "Sub": (lambda x, y: x - y, V, W),
    "Mul": (lambda x, y: x * y, V, W),
    "Div RealDiv": (lambda x, y: x / y, V, W),
    "FloorDiv": (lambda x, y: x // y, V, W),
    "FloorMod": (lambda x, y: x % y, V, W),
    "Mod TruncateMod": (jnp.fmod, V, W),
    "Pow": (jnp.power, V, W),
    "Maximum": (jnp.maximum, V, W),
    "Minimum": (jnp.minimum, V, W),
    "ClipByValue": (jnp.clip, V, 0.3, 0.6),
    "Atan2": (jnp.arctan2, V, W),
    "Complex": (lax.complex, V, W),
    "NextAfter": (jnp.nextafter, V, W),
    "Cross": (jnp.cross, V, W),
    "Select SelectV2": (jnp.where, V > W, V, W),
    "Relu": (jax.nn.relu, V - 0.5),
    "Relu6": (jax.nn.relu6, 10 * V),
    "Elu": (jax.nn.elu, V - 0.5),
    "Selu": (jax.nn.selu, V - 0.5),
    "LeakyRelu": (jax.nn.leaky_relu, V - 0.5),
    "Sigmoid": (jax.nn.sigmoid, V),
    "Softplus": (jax.nn.softplus, V),
    "Softsign": (jax.nn.soft_sign, V - 0.5),
    "LogSoftmax": (jax.nn.log_softmax, V),
    "Sum": (jnp.sum, V),
    "Prod": (jnp.prod, V),
    "Max": (jnp.max, V),
    "Min": (jnp.min, V),
    "EuclideanNorm": (jnp.linalg.norm, V),
    "Cumsum": (jnp.cumsum, V),
    "Cumprod": (jnp.cumprod, V),
    "CumulativeLogsumexp": (lax.cumlogsumexp, V),
    "MatMul SparseMatMul": (jnp.matmul, M, M),
    "BatchMatMul BatchMatMulV2 BatchMatMulV3": (lambda x, y: x @ y, B, B),
    "Einsum XlaEinsum": (lambda x, y: jnp.einsum("ij,kj->ki", x, y), M, M),
    "Conv Conv2D": (conv, IMAGE, np.ones((3, 3, 2, 4))),
    "Conv3D": (conv, VOLUME, np.ones((3, 3, 3, 2, 4))),
    "DepthwiseConv2dNative": (lambda x, w: conv(x, w, groups=2), IMAGE, np.ones((3, 3, 1, 2))),
    "MaxPool MaxPoolV2": (lambda x: pool(x, -jnp.inf, lax.max), IMAGE),
    "MaxPool3D": (lambda x: pool(x, -jnp.inf, lax.max), VOLUME),
    "Reshape": (lambda x: x.reshape(-1), M),
    "Squeeze": (jnp.squeeze, M[None]),
    "ExpandDims": (lambda x: jnp.expand_dims(x, 0), V),
    "BroadcastTo": (lambda x: jnp.broadcast_to(x, (2, 3)), V),
    "Fill": (lambda x: jnp.full((2, 3), x), 2.0),
    "Transpose": (lambda x: x.T, M),
    "Reverse ReverseV2": (jnp.flip, V),
    "Pad PadV2": (lambda x: jnp.pad(x, 1), V),
    "Concat ConcatV2": (lambda x, y: jnp.concatenate([x, y]), V, W),
    "Pack": (lambda x, y: jnp.stack([x, y]), V, W),
    "Unpack": (jnp.unstack, M),
    "Split": (lambda x: jnp.split(x, 3), V),
    "SplitV": (lambda x: jnp.split(x, [1]), V),
    "Tile": (lambda x: jnp.tile(x, 2), V),
    "Slice StridedSlice": (lambda x: x[1:2], M),
    "Gather GatherV2": (lambda x, i: jnp.take(x, i, axis=0), V, IDS),
    "GatherNd": (lambda x, i: x[i, i], B[:, :, 0], IDS // 2),
    "TensorScatterUpdate": (lambda x, i, y: x.at[i].set(y), V, IDS, W[:2]),
    "TensorStridedSliceUpdate": (lambda x, y: x.at[1:].set(y), V, W[:2]),
    "ScatterNd": (lambda i, y: jnp.zeros(3).at[i].add(y), IDS, W[:2]),
    "TensorScatterAdd ScatterNdNonAliasingAdd": (lambda x, i, y: x.at[i].add(y), V, IDS, W[:2]),
    "TensorScatterSub": (lambda x, i, y: x.at[i].subtract(y), V, IDS, W[:2]),
    "TensorScatterMax": (lambda x, i, y: x.at[i].max(y), V, IDS, W[:2]),
    "TensorScatterMin": (lambda x, i, y: x.at[i].min(y), V, IDS, W[:2]),
    "SegmentSum UnsortedSegmentSum": (lambda x: jax.ops.segment_sum(x, IDS // 2, 2), M),
    "SegmentMax UnsortedSegmentMax": (lambda x: jax.ops.segment_max(x, IDS // 2, 2), M),
    "SegmentMin UnsortedSegmentMin": (lambda x: jax.ops.segment_min(x, IDS // 2, 2), M),
    "SegmentProd UnsortedSegmentProd": (lambda x: jax.ops.segment_prod(x, IDS // 2, 2), M),
    "DiagPart": (jnp.diag, M),
    "MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3": (
        lambda x: jnp.diagonal(x, axis1=-2, axis2=-1),
        B,
    ),
    "MatrixBandPart": (jnp.tril, M),
    "TopK TopKV2": (lambda x: lax.top_k(x, 2), V),
    "ApproxTopK": (lambda x: lax.approx_max_k(x, 2), V),
    "Cholesky": (jnp.linalg.cholesky, M),
    "MatrixInverse": (jax.scipy.linalg.inv, M),
    "MatrixDeterminant": (jnp.linalg.det, M),
    "LogMatrixDeterminant": (jnp.linalg.slogdet, M),
    "MatrixSolve": (jax.scipy.linalg.solve, M, M),
    "MatrixTriangularSolve": (jax.scipy.linalg.solve_triangular, M, M),
    "TridiagonalSolve": (lambda d, b: lax.linalg.tridiagonal_solve(d, d, d, b), V, V[:, None]),
    "Qr": (jnp.linalg.qr, M),
    "Svd": (jnp.linalg.svd, M),
    "SelfAdjointEigV2": (jnp.linalg.eigvalsh, M),
    "Eig": (jnp.linalg.eig, M),
    "Lu": (jax.scipy.linalg.lu, M),
    "MatrixExponential": (jax.scipy.linalg.expm, M),
    "FFT": (jnp.fft.fft, Z),
    "IFFT": (jnp.fft.ifft, Z),
    "FFT2D": (jnp.fft.fft2, B + 0j),
    "IFFT2D": (jnp.fft.ifft2, B + 0j),
    "FFT3D FFTND": (jnp.fft.fftn, B + 0j),
    "IFFT3D IFFTND": (jnp.fft.ifftn, B + 0j),
    "RFFT": (jnp.fft.rfft, V),
    "IRFFT": (jnp.fft.irfft, Z),
    "RFFT2D": (jnp.fft.rfft2, B),
    "IRFFT2D": (jnp.fft.irfft2, B + 0j),
    "RFFT3D RFFTND": (jnp.fft.rfftn, B),
    "IRFFT3D IRFFTND": (jnp.fft.irfftn, B + 0j),
    "Identity": (jnp.copy, V),
    "StopGradient": (lax.stop_gradient, V),
    "PyFunc EagerPyFunc PyFuncStateless": (on_host, V),
    "RandomGamma StatelessRandomGammaV2 StatelessRandomGammaV3": (
        lambda a: jax.random.gamma(jax.random.key(0), a),
        V,
    ),
    "CrossReplicaSum NcclAllReduce": (over_mesh(lambda x: lax.psum(x, "i")), V),
    "CollectivePermute": (over_mesh(lambda x: lax.ppermute(x, "i", [(0, 0)])), V),
    "AllToAll": (over_mesh(lambda x: lax.all_to_all(x, "i", 0, 0, tiled=True)), V),
}
CASES = {name: case for names, case in CASES.items() for name in names.split()}

# Spellings that bind another target of the type than the first one.
OTHER_SPELLINGS = {
    "prim:integer_pow": ("Pow", lambda x: x**2, V),
    "prim:clamp": ("ClipByValue", lambda x: lax.clamp(np.float32(0.3), x, np.float32(0.6)), V),
    "prim:dynamic_slice": ("Slice", lambda x, i: lax.dynamic_slice(x, (i,), (2,)), V, 1),
    "prim:dynamic_update_slice": (
        "TensorStridedSliceUpdate",
        lambda x, y: lax.dynamic_update_slice(x, y, (1,)),
        V,
        W[:2],
    ),
    "fn:jax.numpy.triu": ("MatrixBandPart", jnp.triu, M),
    "fn:jax.nn.identity": ("Identity", jax.nn.identity, V),
    "prim:psum": ("CrossReplicaSum", over_mesh(lambda x: lax.psum(x, "i"), check_vma=False), V),
    "prim:io_callback": (
        "PyFunc",
        lambda x: io_callback(np.sin, jax.ShapeDtypeStruct((3,), x.dtype), x),
        V,
    ),
}

# What each function should compute, by NumPy and SciPy.
REFERENCES = {
    "Neg": np.negative,
    "Rsqrt": lambda x: x**-0.5,
    "Angle": np.angle,
    "Erf": scipy.special.erf,
    "Erfc": scipy.special.erfc,
    "Erfinv": scipy.special.erfinv,
    "Lgamma": scipy.special.gammaln,
    "Digamma": scipy.special.digamma,
    "Polygamma": scipy.special.polygamma,
    "Zeta": scipy.special.zeta,
    "Igamma": scipy.special.gammainc,
    "Igammac": scipy.special.gammaincc,
    "BesselI0": scipy.special.i0,
    "BesselI0e": scipy.special.i0e,
    "BesselI1e": scipy.special.i1e,
    "Expint": scipy.special.expi,
    "Xlogy": scipy.special.xlogy,
    "Xlog1py": scipy.special.xlog1py,
    "Add AddV2 BiasAdd BiasAddV1": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div RealDiv": np.divide,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Mod TruncateMod": np.fmod,
    "Pow": np.power,
    "ClipByValue": np.clip,
    "Complex": lambda x, y: x + 1j * y,
    "Select SelectV2": np.where,
    "Relu": lambda x: x * (x > 0),
    "Relu6": lambda x: np.minimum(x * (x > 0), 6),
    "Elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    # scale and alpha: Klambauer et al. 2017, arXiv:1706.02515, equation 14
    "Selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "LeakyRelu": lambda x: np.where(x > 0, x, 0.01 * x),
    "Sigmoid": scipy.special.expit,
    "Softplus": lambda x: np.log(1 + np.exp(x)),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "LogSoftmax": scipy.special.log_softmax,
    "Cholesky": np.linalg.cholesky,
    "MatrixInverse": np.linalg.inv,
    "MatrixDeterminant": np.linalg.det,
    "LogMatrixDeterminant": np.linalg.slogdet,
    "MatrixSolve": np.linalg.solve,
    "SelfAdjointEigV2": np.linalg.eigh,
    "MatrixExponential": scipy.linalg.expm,
    "FFT": np.fft.fft,
    "IFFT": np.fft.ifft,
    "FFT2D": np.fft.fft2,
    "IFFT2D": np.fft.ifft2,
    "Abs ComplexAbs": np.abs,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atan": np.arctan,
    "Asinh": np.arcsinh,
    "Acosh": np.arccosh,
    "Atanh": np.arctanh,
    "Atan2": np.arctan2,
    "Identity StopGradient": np.copy,
}
REFERENCES = {name: f for names, f in REFERENCES.items() for name in names.split()}
SAME_NAME_IN_NUMPY = (
    "Sign Floor Ceil Round Rint Square Sqrt Exp Expm1 Log Log1p Sin Cos Tan Sinh Cosh Tanh "
    "Real Imag Conj Maximum Minimum Cross"
)
REFERENCES |= {name: getattr(np, name.lower()) for name in re.findall(r"\w+", SAME_NAME_IN_NUMPY)}

# Spellings of types that cannot be keys; what the advice names is found in their traces.
COMPOSITES = {
    "AddN": (lambda x, y: sum([x, y]), V, W),
    "SquaredDifference": (lambda x, y: jnp.square(x - y), V, W),
    "Reciprocal": (jnp.reciprocal, V),
    "DivNoNan": (lambda x, y: jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y)), V, W),
    "L2Loss": (lambda x: jnp.sum(jnp.square(x)) / 2, V),
    "Mean": (jnp.mean, V),
    "AvgPool": (lambda x: pool(x, 0.0, lax.add) / 4, IMAGE),
    "Softmax": (jax.nn.softmax, V),
    "FusedBatchNormV3": (lambda x: (x - x.mean()) * lax.rsqrt(x.var() + 1e-5), V),
    "FresnelSin": (jax.scipy.special.fresnel, V),
    "ConjugateTranspose": (lambda x: x.conj().T, B[0] + 0j),
    "Diag": (jnp.diag, V),
    "MatrixSetDiag": (lambda x, y: jnp.fill_diagonal(x, y, inplace=False), M, V[:2]),
    "MirrorPad": (lambda x: jnp.pad(x, 1, mode="reflect"), V),
    "Roll": (lambda x: jnp.roll(x, 1), V),
    "SpaceToDepth": (lambda x: x.reshape(1, 2, 1, 2).transpose(0, 2, 1, 3).reshape(1, 1, 4), M),
    "ExtractImagePatches": (
        lambda x: lax.conv_general_dilated_patches(x, (2, 2), (1, 1), "VALID"),
        IMAGE,
    ),
    "Conv2DBackpropInput": (
        lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME"),
        IMAGE,
        np.ones((3, 3, 2, 4), np.float32),
    ),
    "NthElement": (lambda x: jnp.partition(x, 1), V),
    "MatrixSolveLs": (lambda a, b: jnp.linalg.lstsq(a, b)[0], M, V[:2]),
    "ResizeBilinear": (lambda x: jax.image.resize(x, (1, 3, 3, 2), "linear"), IMAGE),
    "ResizeNearestNeighbor": (lambda x: jax.image.resize(x, (1, 3, 3, 2), "nearest"), IMAGE),
    "StatelessParameterizedTruncatedNormal": (
        lambda a: jax.random.truncated_normal(jax.random.key(0), a, 2.0, a.shape),
        V,
    ),
}

# Every name in a `RegisterGradient` of TensorFlow 2.21's sources, examples in docstrings left out.
REGISTERED_IN_TENSORFLOW = """
Abs AccumulateNV2 Acos Acosh Add AddN AddV2 AllToAll Angle ApproxTopK ArgMax ArgMin Asin Asinh
Atan Atan2 Atanh AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BandedTriangularSolve BatchMatMul
BatchMatMulV2 BatchMatMulV3 BatchNormWithGlobalNormalization BatchToSpace BatchToSpaceND
BesselI0 BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e
BesselY0 BesselY1 Betainc BiasAdd BiasAddGrad BiasAddV1 BlockLSTM BlockLSTMV2 BroadcastTo
CSRSparseMatrixToDense CSRSparseMatrixToSparseTensor CTCLoss CTCLossV2 Case Cast Ceil
CheckNumerics CheckNumericsV2 Cholesky ClipByValue CollectivePermute Complex ComplexAbs
CompositeTensorVariantFromComponents CompositeTensorVariantToComponents Concat ConcatV2 Conj
ConjugateTranspose Conv2D Conv2DBackpropFilter Conv2DBackpropInput Conv3D Conv3DBackpropFilterV2
Conv3DBackpropInputV2 Cos Cosh CropAndResize Cross CrossReplicaSum CudnnRNN CudnnRNNV2
CudnnRNNV3 Cumprod Cumsum CumulativeLogsumexp Dawsn DebugGradientIdentity
DebugGradientRefIdentity DebugIdentityV2 DenseToCSRSparseMatrix DepthToSpace
DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput
Diag DiagPart Digamma Dilation2D Div DivNoNan DynamicPartition DynamicStitch EagerPyFunc Eig
Einsum Elu EluGrad EnsureShape Enter Erf Erfc Erfinv EuclideanNorm Exit Exp ExpandDims Expint
Expm1 ExtractImagePatches ExtractVolumePatches FFT FFT2D FFT3D FakeQuantWithMinMaxArgs
FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod
FractionalAvgPool FractionalMaxPool FresnelCos FresnelSin FusedBatchNorm FusedBatchNormGrad
FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd
GatherV2 IFFT IFFT2D IFFT3D IRFFT IRFFT2D Identity IdentityN If Igamma Igammac Imag
ImageProjectiveTransformV2 ImageProjectiveTransformV3 Inv InvGrad IsotonicRegression L2Loss LRN
LeakyRelu LeakyReluGrad Lgamma Log Log1p LogMatrixDeterminant LogSoftmax LoopCond MatMul
MatrixBandPart MatrixDeterminant MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
MatrixDiagV2 MatrixDiagV3 MatrixInverse MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3
MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Max MaxPool MaxPool3D
MaxPool3DGrad MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad MaxPoolGradV2 MaxPoolV2
MaxPoolWithArgmax Maximum Mean Merge Min Minimum MirrorPad MirrorPadGrad Mul MulNoNan
NcclAllReduce NcclBroadcast NcclReduce Ndtri Neg NextAfter NextIteration NthElement
OptionalFromValue OptionalGetValue Pack Pad PadV2 ParallelDynamicStitch PlaceholderWithDefault
Polygamma Pow PreventGradient Print Prod Qr QuantizeAndDequantize QuantizeAndDequantizeV2
QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeAndDequantizeV4Grad RFFT RFFT2D RGBToHSV
RaggedFillEmptyRows RaggedGather RaggedTensorFromVariant RaggedTensorToSparse
RaggedTensorToTensor RaggedTensorToVariant RandomGamma ReadVariableOp Real RealDiv Reciprocal
ReciprocalGrad RefEnter RefExit RefIdentity RefMerge RefNextIteration RefSwitch Relu Relu6
Relu6Grad ReluGrad Reshape ResizeBicubic ResizeBilinear ResizeNearestNeighbor ResourceGather
ResourceGatherNd Reverse ReverseSequence ReverseV2 Rint Roll Round Rsqrt RsqrtGrad
ScaleAndTranslate ScatterNd ScatterNdNonAliasingAdd SegmentMax SegmentMean SegmentMin
SegmentProd SegmentSum Select SelectV2 SelfAdjointEigV2 Selu SeluGrad Sigmoid SigmoidGrad Sign
Sin Sinh Slice Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SpaceToBatch
SpaceToBatchND SpaceToDepth SparseAdd SparseDenseCwiseAdd SparseDenseCwiseDiv
SparseDenseCwiseMul SparseFillEmptyRows SparseMatMul SparseMatrixAdd SparseMatrixMatMul
SparseMatrixMul SparseMatrixSoftmax SparseMatrixSparseMatMul SparseMatrixTranspose
SparseReduceSum SparseReorder SparseSegmentMean SparseSegmentMeanWithNumSegments
SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments SparseSegmentSum
SparseSegmentSumWithNumSegments SparseSlice SparseSoftmax SparseSoftmaxCrossEntropyWithLogits
SparseSparseMaximum SparseSparseMinimum SparseTensorDenseAdd SparseTensorDenseMatMul
SparseTensorToCSRSparseMatrix SparseToDense Spence Split SplitV Sqrt SqrtGrad Square
SquaredDifference Squeeze StatelessCase StatelessIf StatelessParameterizedTruncatedNormal
StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessWhile StridedSlice StridedSliceGrad Sub
Sum Svd Switch TPUEmbeddingActivations Tan Tanh TanhGrad TensorArrayConcat TensorArrayConcatV2
TensorArrayConcatV3 TensorArrayGather TensorArrayGatherV2 TensorArrayGatherV3 TensorArrayRead
TensorArrayReadV2 TensorArrayReadV3 TensorArrayScatter TensorArrayScatterV2 TensorArrayScatterV3
TensorArraySplit TensorArraySplitV2 TensorArraySplitV3 TensorArrayWrite TensorArrayWriteV2
TensorArrayWriteV3 TensorListConcat TensorListConcatV2 TensorListFromTensor TensorListGather
TensorListGetItem TensorListPopBack TensorListPushBack TensorListResize TensorListScatter
TensorListScatterIntoExistingList TensorListScatterV2 TensorListSetItem TensorListSplit
TensorListStack TensorMapErase TensorMapInsert TensorMapLookup TensorScatterAdd TensorScatterMax
TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TopK TopKV2
Transpose TridiagonalMatMul TridiagonalSolve TruncateDiv Unpack UnsortedSegmentMax
UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum While Xdivy XlaEinsum Xlog1py Xlogy
Zeta _EagerConst
"""


def version():
    return tuple(int(part) for part in jax.__version__.split(".")[:3])


def all_primitive_names():
    """Names of what has a derivative, a transpose or a place in `jax.extend`."""
    exported = [p for p in vars(primitives).values() if isinstance(p, Primitive)]
    return {p.name for p in (*ad.primitive_jvps, *ad.primitive_transposes, *exported)}


def resolve(path):
    """The object at a dotted path such as `jax.nn.relu`."""
    _, _, inside = path.partition(".")
    import_module(path.rpartition(".")[0])
    return attrgetter(inside)(jax)


def is_jitted(f):
    return hasattr(f, "lower") and hasattr(f, "__wrapped__")


def exists(target):
    kind, name = target.split(":", 1)
    if kind == "prim":
        return name in all_primitive_names()
    try:
        resolve(name)
    except AttributeError:
        return False
    return True


def is_available(name):
    return any(exists(target) for target in TENSORFLOW_TYPES[name].targets)


def subjaxprs(value):
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from subjaxprs(item)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield from subjaxprs(value.jaxpr)


def found_in(jaxpr):
    """Keys of everything in a jaxpr; a function is known by its name, file and line."""
    for eqn in jaxpr.eqns:
        yield f"prim:{eqn.primitive.name}"
        for inner in subjaxprs(list(eqn.params.values())):
            if eqn.primitive.name in ("jit", "pjit", "custom_jvp_call"):
                yield f"fn:{inner.debug_info.func_src_info}"
            yield from found_in(inner)


def is_in_trace(target, f, *args):
    kind, name = target.split(":", 1)
    if kind == "fn":
        code = inspect.unwrap(resolve(name)).__code__
        target = f"fn:{code.co_name} at {code.co_filename}:{code.co_firstlineno}"
    return target in set(found_in(jax.make_jaxpr(f)(*args).jaxpr))


def keys_in(text):
    """What an advice or a note puts between quotation marks, attributes of `op` left out."""
    return re.findall(r'"([^"]+)"', re.sub(r"op\.attrs\[[^]]*\]", "", text))


def targets_of(key):
    return (key,) if ":" in key else TENSORFLOW_TYPES[key].targets


ALL_TARGETS = sorted({t for row in TENSORFLOW_TYPES.values() for t in row.targets})


def test_every_type_has_a_case():
    assert CASES.keys() == TENSORFLOW_TYPES.keys()
    assert REFERENCES.keys() == {n for n, row in TENSORFLOW_TYPES.items() if row.function}


def test_every_type_that_tensorflow_differentiates_is_in_exactly_one_table():
    assert not TENSORFLOW_TYPES.keys() & NOT_MAPPED.keys()
    missing = set(REGISTERED_IN_TENSORFLOW.split()) - TENSORFLOW_TYPES.keys() - NOT_MAPPED.keys()
    assert not missing


def test_no_type_stands_twice_in_a_table():
    assert sum(len(rows) for rows in _FAMILIES.values()) == len(TENSORFLOW_TYPES)
    assert sum(len(names.split()) for names, _ in _ADVICE) == len(NOT_MAPPED)


def test_only_the_newest_operations_lack_a_target_here():
    unavailable = {name for name in TENSORFLOW_TYPES if not is_available(name)}
    assert unavailable == {name for name, since in SINCE.items() if version() < since}


@pytest.mark.parametrize("target", ALL_TARGETS)
def test_target_is_public_and_of_a_known_kind(target):
    assert re.fullmatch(r"prim:[a-z0-9_-]+|fn:jax(\.[a-z][a-z0-9_]*)+", target)


@pytest.mark.parametrize("target", [t for t in ALL_TARGETS if t.startswith("prim:")])
def test_primitive_exists_or_is_younger_than_this_jax(target):
    rows = [row for row in TENSORFLOW_TYPES.values() if target in row.targets]
    young = {"prim:unstack": SINCE["Pack"]}
    young |= {target: since for name, since in SINCE.items() for target in targets_of(name)}
    expected = version() >= young.get(target, (0, 0, 0))
    assert exists(target) is expected, [row.name for row in rows]


@pytest.mark.parametrize("target", [t for t in ALL_TARGETS if t.startswith("fn:")])
def test_function_is_an_object_that_leaves_a_trace(target):
    f = resolve(target.removeprefix("fn:"))
    assert isinstance(f, (jax.custom_jvp, jax.custom_vjp)) or is_jitted(f)


@pytest.mark.parametrize("name", [name for name in TENSORFLOW_TYPES if is_available(name)])
def test_usual_spelling_is_matched(name):
    f, *args = CASES[name]
    targets = [target for target in TENSORFLOW_TYPES[name].targets if exists(target)]
    assert any(is_in_trace(target, f, *args) for target in targets)


@pytest.mark.parametrize("target", OTHER_SPELLINGS)
def test_other_spelling_is_matched(target):
    name, f, *args = OTHER_SPELLINGS[target]
    assert target in TENSORFLOW_TYPES[name].targets
    assert is_in_trace(target, f, *args)


def test_a_type_with_several_targets_has_a_spelling_for_each():
    several = {t for row in TENSORFLOW_TYPES.values() if len(row.targets) > 1 for t in row.targets}
    matched = set(OTHER_SPELLINGS)
    for name, row in TENSORFLOW_TYPES.items():
        f, *args = CASES[name]
        matched |= {
            t for t in row.targets if t in several and exists(t) and is_in_trace(t, f, *args)
        }
    # Where `unstack` is a primitive, the function is inlined.
    inlined = {"fn:jax.numpy.unstack"} if exists("prim:unstack") else set()
    assert {t for t in several - matched if exists(t)} == inlined


@pytest.mark.parametrize(
    ("target", "f"),
    [
        ("prim:logistic", jnp.tanh),
        ("fn:jax.nn.relu", jax.nn.relu6),
        ("fn:jax.nn.elu", jax.nn.celu),
        ("prim:square", lambda x: x * x),
        ("fn:jax.nn.softplus", lambda x: jnp.logaddexp(x, 0)),
    ],
)
def test_a_spelling_of_something_else_is_not_matched(target, f):
    assert not is_in_trace(target, f, V)


@pytest.mark.parametrize("name", [name for name, row in TENSORFLOW_TYPES.items() if row.function])
def test_function_of_a_type_computes_its_values_and_has_a_derivative(name):
    path = TENSORFLOW_TYPES[name].function
    assert not any(part.startswith("_") for part in path.split("."))
    _, *args = CASES[name]
    if name.startswith("BiasAdd"):
        args = np.broadcast_arrays(*args)
    got, _ = jax.vjp(resolve(path), *map(jnp.asarray, args))
    expected = REFERENCES[name](*args)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_keys_in_notes_and_advice_exist():
    texts = {row.note for row in TENSORFLOW_TYPES.values()} | set(NOT_MAPPED.values())
    keys = {key for text in texts for key in keys_in(text)} - SINCE.keys()
    assert len(keys) > 30
    assert not {key for key in keys if not any(exists(target) for target in targets_of(key))}


@pytest.mark.parametrize("name", COMPOSITES)
def test_advice_names_what_the_composite_binds(name):
    f, *args = COMPOSITES[name]
    targets = [target for key in keys_in(NOT_MAPPED[name]) for target in targets_of(key)]
    assert any(is_in_trace(target, f, *args) for target in targets)


def test_undefined_triangle_is_why_cholesky_is_a_function():
    """The primitive returns what it was given above the diagonal."""
    assert primitives.cholesky_p.bind(jnp.asarray(M))[0, 1] != 0
    assert jnp.linalg.cholesky(M)[0, 1] == 0


def test_page_is_generated_from_the_table():
    page = Path(__file__).parents[1] / "docs" / "tensorflow-op-types.md"
    assert page.read_text(encoding="utf-8") == as_markdown()
