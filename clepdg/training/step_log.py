"""Metrics of training steps, read from the device every tenth step.

Reading a number waits for a GPU, which then idles while the next step is prepared.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError
from clepdg.training.curve import Curve

EVERY: Final = 10  # steps
Metrics = Mapping[str, Tensor | float]


@dataclass
class StepLog:
    """Metrics of steps that were not read yet.

    Attributes:
        curve: gets every step's metrics.
        reporting: gets those of every tenth step and of the last one.
        steps: number of steps of the training.
        last: the last step that was added.
        waiting: steps that were not read yet, with their metrics.
    """

    curve: Curve
    reporting: Reporting
    steps: int
    last: int = 0
    waiting: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)

    def add(self, step: int, metrics: Metrics) -> None:
        """Keep a step's metrics (scalars); read them every tenth step.

        Raises:
            ClepError: the loss of one of the steps read is not finite.
        """
        self.last = step
        self.waiting.append((step, {name: torch.as_tensor(value).detach() for name, value in metrics.items()}))
        if step % EVERY == 0 or step + 1 == self.steps:
            self.read()

    def read(self) -> None:
        """Read all waiting metrics at once, check and report them.

        Raises:
            ClepError: a loss is not finite.
        """
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        scalars = [scalar.double() for _, kept in waiting for scalar in kept.values()]
        device = waiting[0][1]["loss"].device
        numbers = iter(torch.stack([scalar.to(device) for scalar in scalars]).tolist())
        for step, kept in waiting:
            metrics = {name: next(numbers) for name in kept}
            if not math.isfinite(metrics["loss"]):
                raise diverged(f"loss {metrics['loss']} at step {step}")
            self.curve.add(step, self.steps, metrics)
            if step % EVERY == 0 or step + 1 == self.steps:
                self.reporting.log_metrics(metrics, step)

    def check(self, tensors: Iterable[Tensor]) -> None:
        """Read all waiting metrics, and check the tensors too.

        Raises:
            ClepError: a loss or a tensor is not finite; it must not be saved.
        """
        self.read()
        if not torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():
            raise diverged("weights that are not finite" + f" after step {self.last}")


def diverged(got: str) -> ClepError:
    """Return the error of a training that diverged."""
    return ClepError("Training diverged.", got=got, do="lower the learning rate")
