"""The course of a training: means of its metrics over equal parts of its steps."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

CURVE: Final = "training.json"
POINTS: Final = 50  # at most, of a curve


@dataclass
class Curve:
    """Means of metrics over equal parts of a training, at most 50.

    Attributes:
        counts: number of steps of each part so far.
        sums: metric -> its sum over the steps of each part.
    """

    counts: list[int] = field(default_factory=list)
    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step; `steps` is the number of all."""
        part = step // -(-steps // POINTS)
        self.counts += [0] * (part + 1 - len(self.counts))
        self.counts[part] += 1
        for name, value in metrics.items():
            own = self.sums.setdefault(name, [])
            own += [0.0] * (part + 1 - len(own))
            own[part] += value

    @classmethod
    def resumed(cls, facts: Any) -> "Curve":
        """Return the curve of a checkpoint, empty where it holds none."""
        with contextlib.suppress(TypeError, KeyError, ValueError):
            sums = {str(name): [*map(float, own)] for name, own in facts["sums"].items()}
            return cls([*map(int, facts["counts"])], sums)
        return cls()

    def write(self, folder: Path) -> None:
        """Write training.json: metric -> [[steps done, mean], ...]."""
        found = {
            name: [
                [sum(self.counts[: part + 1]), round(value / count, 6)]
                for part, (value, count) in enumerate(zip(own, self.counts, strict=False))
                if count
            ]
            for name, own in sorted(self.sums.items())
        }
        (folder / CURVE).write_text(json.dumps(found))
