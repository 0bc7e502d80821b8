"""The table of all safe functions, which `gradkit rules` shows."""

from __future__ import annotations

from gradkit._entry import Entry
from gradkit.safe import _angles as angles
from gradkit.safe import _logs as logs
from gradkit.safe import _powers as powers
from gradkit.safe import _reductions as reductions
from gradkit.safe import _roots as roots
from gradkit.safe import _rotations as rotations
from gradkit.safe import _spectra as spectra
from gradkit.safe._apply import safe_apply
from gradkit.safe._cholesky import cholesky
from gradkit.safe._qr import qr
from gradkit.safe._sqrtm import sqrtm

CATALOGUE: tuple[Entry, ...] = (
    Entry(roots.sqrt, "sqrt(x)", "x_dot / (2 y); 0 at 0 and below"),
    Entry(
        roots.norm, "|x|", "<x, x_dot> / y; 0 at the origin", "Rockafellar 1970, Convex Analysis"
    ),
    Entry(roots.normalize, "x / |x|", "(x_dot - y <y, x_dot>) / |x|; 0 at the origin"),
    Entry(roots.cosine_similarity, "<x, y> / (|x| |y|)", "natural; 0 for a zero vector"),
    Entry(powers.divide, "x / y; fill where y = 0", "(x_dot - q y_dot) / y; 0 where y = 0"),
    Entry(
        powers.power, "x ** y",
        "y x**(y - 1) x_dot + z log(x) y_dot; the limit at x = 0, else 0",
    ),
    Entry(logs.log, "log(x)", "x_dot / x; 0 at 0 and below"),
    Entry(logs.log1p, "log(1 + x)", "x_dot / (1 + x); 0 at -1 and below"),
    Entry(logs.xlogx, "x log(x); 0 at 0", "(1 + log(x)) x_dot; 0 at 0 and below"),
    Entry(
        logs.xlogy, "x log(y); 0 where x = 0",
        "log(y) x_dot + (x / y) y_dot; 0 at y = 0 and below",
    ),
    Entry(angles.arccos, "arccos(x)", "-x_dot / sqrt(1 - x**2); 0 at the ends"),
    Entry(angles.arcsin, "arcsin(x)", "x_dot / sqrt(1 - x**2); 0 at the ends"),
    Entry(
        angles.arctan2, "angle of (x, y)",
        "(x y_dot - y x_dot) / (x**2 + y**2); 0 at the origin",
    ),
    Entry(angles.acosh, "arcosh(x)", "x_dot / sqrt(x**2 - 1); 0 at 1 and below"),
    Entry(angles.atanh, "artanh(x)", "x_dot / (1 - x**2); 0 at the ends"),
    Entry(reductions.softmax, "softmax(x) where mask", "p (x_dot - <p, x_dot>); 0 of nothing"),
    Entry(reductions.log_softmax, "log(softmax(x)) where mask", "x_dot - <p, x_dot>; 0 if masked"),
    Entry(reductions.logsumexp, "log(sum(exp(x))) where mask", "<p, x_dot>; 0 of nothing"),
    Entry(
        reductions.logaddexp, "log(exp(x) + exp(y))", "p x_dot + (1 - p) y_dot, p = sigmoid(x - y)"
    ),
    Entry(
        rotations.quaternion_log, "rotation vector of a quaternion",
        "natural; the limit at the identity",
        "Sola, Deray & Atchuthan 2018, arXiv:1812.01537",
    ),
    Entry(
        rotations.rotation_log, "rotation vector of a matrix",
        "natural; the limit at the identity", "Shepperd 1978",
    ),
    Entry(
        spectra.eigh, "w, v: a = v diag(w) v*", "natural, without the terms between equal values",
        "Giles 2008",
    ),
    Entry(
        spectra.svd, "u, s, v*: a = u diag(s) v*",
        "natural, without the terms between equal values", "Townsend 2016",
    ),
    Entry(
        qr, "q, r: a = q r", "natural; dependent columns hold their direction",
        "Walter & Lehmann 2010",
    ),
    Entry(
        cholesky, "l: a = l l*", "l tril(l^-1 a_dot l^-*); columns of zero pivots held",
        "Murray 2016, arXiv:1602.07527",
    ),
    Entry(
        sqrtm, "s: a = s s", "s_dot of s s_dot + s_dot s = a_dot",
        "Higham 2008, Functions of Matrices",
    ),
    Entry(safe_apply, "fn(x) where mask, else fill", "that of fn where mask, else fill's"),
)  # fmt: skip
