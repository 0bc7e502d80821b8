"""What was measured on the way."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradkit._errors import did_you_mean


@dataclass
class History(Mapping[str, np.ndarray]):
    """Loss and metrics of every step, by name: `history["loss"]` is float32[steps].

    Attributes:
        evaluations: One dict an evaluation: `step`, `loss` and the metrics.
    """

    evaluations: list[dict[str, float]] = field(default_factory=list)
    _pieces: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._pieces:
            message = f"nothing named {name!r} was logged{did_you_mean(name, self._pieces)}"
            raise KeyError(message)
        pieces = self._pieces[name]
        if len(pieces) > 1:
            pieces[:] = [np.concatenate(pieces)]
        return pieces[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, logs: Mapping[str, np.ndarray]) -> None:
        """Append the numbers of further steps."""
        for name, values in logs.items():
            self._pieces.setdefault(name, []).append(np.asarray(values))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict a step, counted from one."""
        columns = {name: self[name] for name in self}
        for i in range(max(map(len, columns.values()), default=0)):
            yield {"step": i + 1, **{name: float(column[i]) for name, column in columns.items()}}

    def to_csv(self, path: str | Path) -> None:
        """Write one line a step."""
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *self])
            writer.writeheader()
            writer.writerows(self.rows())

    def to_jsonl(self, path: str | Path) -> None:
        """Write one JSON object a step, and one an evaluation."""
        with Path(path).open("w") as file:
            for row in self.rows():
                file.write(json.dumps(row) + "\n")
            for row in self.evaluations:
                file.write(json.dumps({"evaluation": row}) + "\n")
