"""Training with optax: custom losses, custom gradients and overrides on the fast path."""

from gradkit.train._callbacks import Callback, Moment
from gradkit.train._fit import fit
from gradkit.train._history import History
from gradkit.train._result import Result

__all__ = ["Callback", "History", "Moment", "Result", "fit"]
