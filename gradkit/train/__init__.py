"""Training with optax: custom losses, custom gradients and overrides on the fast path."""

from gradkit.train._callbacks import Callback, Moment
from gradkit.train._fit import fit
from gradkit.train._history import History
from gradkit.train._initialize import initialize
from gradkit.train._learning_rate import LearningRates, find_learning_rate
from gradkit.train._profile import Profile
from gradkit.train._result import Result
from gradkit.train._tensorboard import TensorBoard

__all__ = [
    "Callback",
    "History",
    "LearningRates",
    "Moment",
    "Profile",
    "Result",
    "TensorBoard",
    "find_learning_rate",
    "fit",
    "initialize",
]
