"""`optax.losses`: targets that are classes or signs are closed over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.points import HUGE, INF, SATURATED, ZEROS, X, Y, array, normal

LOGITS = normal(2, 3)
ONE_HOT = array([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
SOFT = array([0.2, 0.5, 0.3], [0.6, 0.1, 0.3])
LOG_SOFT = np.log(SOFT[::-1]).round(3)
CLASSES = np.array([1, 0])
SIGNS = array(1.0, -1.0, 1.0, -1.0)
BITS = array(0.0, 1.0, 1.0, 0.0)
CHANCES = array(0.2, 0.5, 0.9, 0.4)
EVEN = np.ones((2, 3))
MASK = np.array([[True, False, True], [True, True, False]])
NO_ROW = np.array([[True, True, True], [False] * 3])
ALONE = array([0.5, -INF, 1.0], [0.3, 0.2, -INF])  # logits of classes that are ruled out


def _to(targets, **keywords):
    """Call a loss whose targets are fixed."""
    targets = targets.astype(np.float32) if targets.dtype.kind == "f" else targets
    return lambda f, x: f(x, targets, **keywords)


def _with(**keywords):
    return lambda f, *xs: f(*xs, **keywords)


# Two sequences of four steps over three classes, of which class 0 is the blank.
STEPS = normal(2, 4, 3)
LABELS = np.array([[1, 2], [2, 1]])
NO_PADDING = np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32)
PADDING = (
    np.array([[0, 0, 0, 1], [0, 0, 0, 0]], np.float32),
    np.array([[0, 1], [0, 0]], np.float32),
)
ALL_PADDING = np.ones((2, 4), np.float32), np.ones((2, 2), np.float32)


def _ctc(padding, labels=LABELS, part=None):
    def call(f, x):
        loss = f(x, padding[0], labels, padding[1])
        return loss if part is None else loss[part]

    return call


CTC = [
    at(STEPS, call=_ctc(NO_PADDING)),
    at(STEPS, call=_ctc(PADDING), how="padding"),
    edge("no labels at all", STEPS, call=_ctc((NO_PADDING[0], ALL_PADDING[1]))),
    edge("repeated labels", STEPS, call=_ctc(NO_PADDING, np.array([[1, 1], [2, 2]]))),
    edge("more labels than steps", STEPS[:, :1], call=_ctc((NO_PADDING[0][:, :1], NO_PADDING[1]))),
]
KL = [
    at(LOG_SOFT, SOFT),
    at(LOG_SOFT, call=_to(SOFT, where=MASK), how="masked"),
    edge("equal", np.log(SOFT), SOFT),
    edge("targets of zero", LOG_SOFT, call=_to(ONE_HOT)),
]
COSINE = [
    at(LOGITS, LOGITS[::-1].copy()),
    at(LOGITS, LOGITS[::-1].copy(), call=_with(where=MASK), how="masked"),
    edge("equal", LOGITS, LOGITS),
    edge("opposite", LOGITS, -LOGITS),
    edge(
        "a zero vector", array([0.0, 0.0, 0.0], [1.0, 2.0, 0.5]), LOGITS, call=_with(epsilon=1e-3)
    ),
]
ERRORS = [at(X, Y), at(X, how="no targets"), edge("equal", X, X), edge("huge", HUGE, -HUGE)]
DICE = [
    at(normal(2, 4, 3), np.eye(3)[[[0, 1, 2, 0], [1, 1, 2, 2]]]),
    edge("a class that is missing", normal(2, 4, 3), np.eye(3)[[[0, 1, 1, 0], [1, 1, 0, 0]]]),
    edge("saturated", 90 * normal(2, 4, 3), np.eye(3)[[[0, 1, 2, 0], [1, 1, 2, 2]]]),
]
LABEL_PAIRS = np.array([0, 0, 1, 1])
EMBEDDINGS = normal(4, 3)

TABLE: Table = {
    "binary_dice_loss": [
        at(normal(2, 4), call=_to(array([0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]))),
        edge("no smoothing", normal(2, 4), call=_to(np.ones((2, 4)), smooth=0.0)),
    ],
    "convex_kl_divergence": KL[:1],
    "cosine_distance": [COSINE[0], COSINE[2]],
    "cosine_similarity": COSINE,
    "ctc_loss": CTC,
    "ctc_loss_with_forward_probs": [
        at(STEPS, call=_ctc(NO_PADDING, part=0)),
        at(STEPS, call=_ctc(PADDING, part=2), how="emissions"),
    ],
    "dice_loss": [
        *DICE,
        at(normal(2, 4, 1), call=_to(np.ones((2, 4, 1))), how="one channel"),
        at(*DICE[0].args, call=_with(reduction="none", ignore_background=True), how="classes"),
    ],
    "generalized_kl_divergence": [KL[0], KL[3]],
    "hinge_loss": [
        at(X, call=_to(SIGNS)),
        edge("margin", SIGNS.copy(), call=_to(SIGNS)),
    ],
    "huber_loss": [
        *ERRORS[:2],
        edge("delta", array(1.0, -1.0, 0.5)),
        edge("delta 0", X, call=_with(delta=0.0)),
        edge("zero", ZEROS),
    ],
    "kl_divergence": KL,
    "kl_divergence_with_log_targets": [
        at(LOG_SOFT, np.log(SOFT)),
        at(LOG_SOFT, np.log(SOFT), call=_with(where=MASK), how="masked"),
        edge("equal", np.log(SOFT), np.log(SOFT)),
    ],
    "l2_loss": ERRORS[:2],
    "log_cosh": [ERRORS[0], edge("saturated", SATURATED)],
    "make_fenchel_young_loss": [
        at(LOGITS, SOFT, call=lambda f, s, t: f(jax.nn.logsumexp)(s, t)),
        edge("ties of a maximum", EVEN, SOFT, call=lambda f, s, t: f(jnp.max)(s, t)),
        edge(
            "minus infinite",
            array(-INF, 0.5, 1.0),
            call=lambda f, s: f(jax.nn.logsumexp)(s[1:], np.array([1.0, 0.0], np.float32)),
        ),
    ],
    "multiclass_generalized_dice_loss": [DICE[0], DICE[1]],
    "multiclass_hinge_loss": [
        at(LOGITS, call=_to(CLASSES)),
        edge("margin", array([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]), call=_to(CLASSES)),
    ],
    "multiclass_perceptron_loss": [
        at(LOGITS, call=_to(CLASSES)),
        edge("ties", EVEN, call=_to(CLASSES)),
    ],
    "multiclass_sparsemax_loss": [
        at(LOGITS, call=_to(CLASSES)),
        edge("ties", EVEN, call=_to(CLASSES)),
        edge("next to the vertex", array([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]), call=_to(CLASSES)),
        edge("saturated", 50 * LOGITS, call=_to(CLASSES)),
    ],
    "ntxent": [
        at(EMBEDDINGS, call=_to(LABEL_PAIRS)),
        edge("one class alone", EMBEDDINGS, call=_to(np.zeros(4, int))),
        edge("one without a partner", EMBEDDINGS, call=_to(np.array([0, 0, 1, 2]))),
        edge("equal embeddings", np.ones((4, 3)), call=_to(LABEL_PAIRS)),
        edge("cold", EMBEDDINGS, call=_to(LABEL_PAIRS, temperature=1e-3)),
    ],
    "perceptron_loss": [
        at(X, call=_to(SIGNS)),
        edge("zero", np.zeros(4), call=_to(SIGNS)),
    ],
    "poly_loss_cross_entropy": [
        at(LOGITS, SOFT),
        edge("saturated", 90 * LOGITS, ONE_HOT),
    ],
    "ranking_softmax_loss": [
        at(LOGITS, SOFT),
        edge("masked", LOGITS, call=_to(SOFT, where=MASK)),
        edge("masked, by labels too", LOGITS, SOFT, call=_with(where=MASK)),
        edge("a list without items", LOGITS, call=_to(SOFT, where=NO_ROW)),
        edge("no items", LOGITS, call=_to(SOFT, where=np.zeros((2, 3), bool))),
    ],
    "safe_softmax_cross_entropy": [
        at(LOGITS, SOFT),
        edge("labels of zero", LOGITS, ONE_HOT),
        edge("a class ruled out", ALONE, call=_to(array([0.4, 0.0, 0.6], [0.3, 0.7, 0.0]))),
    ],
    "sigmoid_binary_cross_entropy": [
        at(X, CHANCES),
        edge("bits", X, BITS),
        edge("saturated", SATURATED, BITS),
        edge("zero", np.zeros(4), BITS),
    ],
    "sigmoid_focal_loss": [
        at(X, CHANCES),
        at(X, CHANCES, call=_with(alpha=0.25, gamma=1.5), how="alpha"),
        edge("bits", X, call=_to(BITS)),
        edge("bits, by labels too", X, BITS),
        edge("saturated", SATURATED, call=_to(BITS)),
        edge("saturated the wrong way", SATURATED, call=_to(1 - BITS)),
        edge("gamma 0", X, call=_to(BITS, gamma=0.0)),
        edge("gamma 1/2, saturated", SATURATED, call=_to(BITS, gamma=0.5)),
    ],
    "smooth_labels": [
        at(SOFT, 0.1),
        edge("alpha 0", ONE_HOT, 0.0),
    ],
    "softmax_cross_entropy": [
        at(LOGITS, SOFT),
        at(LOGITS, SOFT, call=_with(where=MASK), how="masked"),
        edge("saturated", 90 * LOGITS, ONE_HOT),
        edge("a row that is masked", LOGITS, SOFT, call=_with(where=NO_ROW)),
    ],
    "softmax_cross_entropy_with_integer_labels": [
        at(LOGITS, call=_to(CLASSES)),
        at(normal(2, 2, 2), call=_to(CLASSES, axis=(1, 2)), how="two axes"),
        at(LOGITS, call=_to(np.array([0, 1]), where=MASK), how="masked"),
        edge("ties", EVEN, call=_to(CLASSES)),
        edge("a class ruled out", ALONE, call=_to(np.array([0, 1]))),
        edge("a row that is masked", LOGITS, call=_to(CLASSES, where=NO_ROW)),
    ],
    "sparsemax_loss": [
        at(X, call=_to(BITS.astype(int))),
        edge("kinks", array(1.0, -1.0, 1.0, -1.0), call=_to(BITS.astype(int))),
    ],
    "squared_error": [ERRORS[0], ERRORS[2]],
    "triplet_margin_loss": [
        at(LOGITS, normal(2, 3, seed=1), normal(2, 3, seed=2)),
        edge("anchors equal positives", LOGITS, LOGITS, normal(2, 3, seed=2)),
        edge("all equal, no margin", LOGITS, LOGITS, LOGITS, call=_with(margin=0.0)),
        edge("degree 4", LOGITS, LOGITS, normal(2, 3, seed=2), call=_with(norm_degree=4)),
    ],
}
