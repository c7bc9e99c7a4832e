"""Training loop: seeds, schedules, checkpoints.

Step s is a pure function of (seed, s) and the weights: the batch is drawn from (seed, s), and torch's generators are
seeded from (seed, s, rank) before each step. So a checkpoint is step, weights and optimiser state, and a resumed run
equals an uninterrupted one bit for bit.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.errors import ClepError, StoreError
from clepdg.models.tensors import load_tensors
from clepdg.training import distributed
from clepdg.training.curve import Curve
from clepdg.training.step_log import Metrics, StepLog

log = logging.getLogger("clepdg")

CHECKPOINT = "training.resume"  # the store removes *.resume when it commits


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the 63-bit seed of a step on a rank."""
    name = f"{seed}/{step}/{rank}" if rank else f"{seed}/{step}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def warmup_cosine(step: int, steps: int, warmup_share: float) -> float:
    """Return the learning-rate factor of linear warm-up, then cosine.

    It lies in (0, 1].
    """
    warmup = max(1, round(warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup + 0.5) / max(1, steps - warmup)))


@dataclass
class Training:
    """A training run.

    Attributes:
        tensors: name -> tensor that training changes, in the optimiser's order; saved in the checkpoint.
        loss: returns the loss and metrics of a step.
        steps: number of steps.
        folder: where checkpoints are saved.
        checkpointing: when to save and when to stop, by the first rank's clock.
        checkpoint_multiple: training saves and stops only after multiples of this number of steps.
        schedule: returns the learning-rate factor of a step.
        after_step: called after the optimiser's step, for example to clamp parameters.
        validate: called with the steps done and `memory` every `validate_every` steps; returns the new `memory`.
        memory: JSON that `validate` keeps between calls, saved in the checkpoint; "ended": training ends there.
        curve: course of the loss and of its metrics; saved in the checkpoint.
    """

    tensors: Mapping[str, Tensor]
    optimiser: torch.optim.Optimizer
    loss: Callable[[int], tuple[Tensor, Metrics]]
    steps: int
    seed: int
    folder: Path
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING
    checkpoint_multiple: int = 1
    schedule: Callable[[int], float] = lambda step: 1.0
    clip_norm: float | None = None
    after_step: Callable[[], None] = lambda: None
    validate: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda done, memory: memory
    validate_every: int = 1 << 62
    memory: dict[str, Any] = field(default_factory=dict)
    reporting: Reporting = field(default_factory=Reporting)
    curve: Curve = field(default_factory=Curve)

    def run(self) -> dict[str, Any]:
        """Train from the last checkpoint, or from the start; return `memory`.

        Raises:
            ClepError: a loss is not finite, seen at most nine steps later; a weight is not finite; or the time limit is
                reached (a checkpoint is saved before).
            StoreError: a checkpoint can't be written.
        """
        rates = [group["lr"] for group in self.optimiser.param_groups]
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        started = saved = self.checkpointing.clock()
        first, groups = self._resume(), self.optimiser.param_groups  # resuming replaces the groups
        steps = StepLog(self.curve, self.reporting, self.steps)
        for step in range(first, self.steps):
            torch.manual_seed(step_seed(self.seed, step, distributed.rank()))
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * self.schedule(step)
            loss, metrics = self.loss(step)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.average_gradients(parameters)
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
            self.optimiser.step()
            self.after_step()
            done = step + 1
            steps.add(step, {"loss": loss, **metrics})
            if (validates := done % self.validate_every == 0) or done == self.steps:
                steps.check(self.tensors.values())
            if validates:
                self.memory = self.validate(done, self.memory)
                if self.memory.get("ended"):
                    self.reporting.progress(self.steps, self.steps)
                    break
            if done < self.steps and done % self.checkpoint_multiple == 0 and distributed.rank() == 0:
                saved = self._save_if_due(done, started, saved, steps)
            self.reporting.progress(done, self.steps)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        return self.memory

    def _save_if_due(self, done: int, started: float, saved: float, steps: StepLog) -> float:
        """Save a checkpoint if one is due; return when the last one was saved.

        Raises:
            ClepError: the time limit is reached, or training diverged.
        """
        now, limit = self.checkpointing.clock(), self.checkpointing.limit_seconds
        over = limit is not None and now - started >= limit
        if over or now - saved >= self.checkpointing.checkpoint_seconds:
            steps.check(self.tensors.values())  # what is not finite is never saved
            self._save(done)
            saved = self.checkpointing.clock()
        if over:
            raise ClepError(
                "The training's time limit is reached.",
                got=f"{now - started:.0f} s, at step {done} of {self.steps}",
                expected=f"at most training_seconds, {limit:g} s",
                do="run the same command again, which resumes from this step; or raise training_seconds",
            )
        return saved

    def _save(self, done: int) -> None:
        tensors = {f"tensor.{name}": tensor for name, tensor in self.tensors.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            kept = {name: torch.as_tensor(value) for name, value in state.items() if value is not None}
            tensors |= {f"optimiser.{index}.{name}": value for name, value in kept.items()}
        facts = {"done": done, "steps": self.steps, "memory": self.memory, "curve": asdict(self.curve)}
        save_atomically(self.folder / CHECKPOINT, tensors, facts)

    def _resume(self) -> int:
        path = self.folder / CHECKPOINT
        complete = distributed.rank() == 0 and is_complete(path)
        if complete and not self._fits(load_tensors(path), read_checkpoint_facts(path)):
            log.warning("A checkpoint belongs to another training, so this one starts over: %s", path)
            path.unlink()
        distributed.barrier()  # the first rank removes a checkpoint that does not fit
        if not path.exists():
            return 0
        tensors, facts = load_tensors(path), read_checkpoint_facts(path)
        for name, tensor in self.tensors.items():
            tensor.detach().copy_(tensors[f"tensor.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.memory = facts["memory"]
        self.curve = Curve.resumed(facts.get("curve"))
        return int(facts["done"])

    def _fits(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bool:
        """Return whether a checkpoint has the right tensors and step."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        weights = {f"tensor.{name}": tensor.shape for name, tensor in self.tensors.items()}
        found = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith("optimiser.")}
        states = {(f"optimiser.{index}", shape) for index, p in enumerate(parameters) for shape in (p.shape, ())}
        done, memory = facts.get("done"), facts.get("memory")
        return (
            found == weights
            and all((name.rpartition(".")[0], tensors[name].shape) in states for name in tensors.keys() - found.keys())
            and type(done) is int
            and 0 < done < self.steps
            and isinstance(memory, dict)
        )


def save_atomically(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and metadata to one file, atomically.

    Args:
        facts: JSON values.

    Raises:
        StoreError: the disk is full or not writable.
    """
    from safetensors.torch import save

    aside = path.with_name(f"writing-{path.name}")
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())},
        metadata={"facts": json.dumps(facts, sort_keys=True)},
    )
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        do = "free disk space and run the same command again: training resumes from the previous checkpoint"
        raise StoreError("A checkpoint can't be written.", got=error, where=path, do=do) from error


def is_complete(path: Path) -> bool:
    """Return whether a checkpoint is readable; remove a damaged one."""
    if not path.exists():
        return False
    try:
        read_checkpoint_facts(path)
    except StoreError as error:  # after a power cut, for instance
        if isinstance(error.__cause__, OSError):
            raise
        log.warning("A checkpoint is damaged, so training starts over: %s: %s", path, error.__cause__)
        path.unlink(missing_ok=True)
        return False
    return True


def read_checkpoint_facts(path: Path) -> dict[str, Any]:
    """Read the facts of a file that `save_atomically` wrote.

    Raises:
        StoreError: the file can't be read or holds none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            return dict(facts)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError("A checkpoint can't be read.", got=error, where=path, do="delete it") from error
