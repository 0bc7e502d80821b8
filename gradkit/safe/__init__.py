"""Functions with derivatives where those of JAX are NaN, or infinite without need.

Values are those of the plain function. At a kink the derivative is the smallest-norm subgradient;
at the end of a domain, where slopes are infinite, it is zero. Both modes and every order exist.
"""

from gradkit.safe._angles import acosh, arccos, arcsin, arctan2, atanh
from gradkit.safe._apply import safe_apply
from gradkit.safe._cholesky import cholesky
from gradkit.safe._logs import log, log1p, xlogx, xlogy
from gradkit.safe._powers import divide, power
from gradkit.safe._qr import qr
from gradkit.safe._reductions import log_softmax, logaddexp, logsumexp, softmax
from gradkit.safe._roots import cosine_similarity, norm, normalize, sqrt
from gradkit.safe._rotations import quaternion_log, rotation_log
from gradkit.safe._spectra import eigh, svd
from gradkit.safe._sqrtm import sqrtm

__all__ = [
    "acosh",
    "arccos",
    "arcsin",
    "arctan2",
    "atanh",
    "cholesky",
    "cosine_similarity",
    "divide",
    "eigh",
    "log",
    "log1p",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "norm",
    "normalize",
    "power",
    "qr",
    "quaternion_log",
    "rotation_log",
    "safe_apply",
    "softmax",
    "sqrt",
    "sqrtm",
    "svd",
    "xlogx",
    "xlogy",
]
