"""Random kills and torn writes, and what must hold after each of them."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock

from clepdg.hashing import digest_file
from clepdg.store.record import STORE, Record
from clepdg.store.store import Store
from tests.soak import pipeline

SIGNALS = (*[signal.SIGKILL] * 8, signal.SIGTERM, signal.SIGINT)


@dataclass
class Storm:
    """Kills runs of one home at random moments.

    Attributes:
        expected: outputs of an uninterrupted run.
        span: seconds that a whole run takes.
        hits: what was under way -> kills.
    """

    folder: Path
    expected: dict[str, object]
    span: float
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    whole: int = 0  # runs that came to their end
    torn: set[Path] = field(default_factory=set)  # outputs that were damaged and are not redone yet
    tears: int = 0

    @property
    def home(self) -> Path:
        """All state of the runs, below a name with a space and letters that are not ASCII."""
        return self.folder / "ein Höme"

    def blow(self, count: int) -> None:
        """Kill runs until there were so many kills; then let one end."""
        while self.kills.total() < count:
            if self.run(self.random.uniform(0, self.span)) and self.random.random() < 0.8:
                shutil.rmtree(self.home)  # begin anew, so that every stage has its turn
                self.torn.clear()
            elif self.random.random() < 0.25:
                self.tear()
        while not self.run(600):
            pass

    def run(self, seconds: float) -> bool:
        """Start the same run again, and kill it unless it ends before; return whether it ended."""
        token = f"{self.random.random()}"
        process = pipeline.start(self.home, token=token, processes=self.random.random() < 0.15)
        process.join(seconds)
        ended = process.exitcode is not None
        if not ended:
            chosen = self.random.choice(SIGNALS)
            self.hits.update(self.under_way() or ["nothing"])
            os.kill(process.pid, chosen)
            process.join(30)
            if process.exitcode == 0:  # it was done before the signal came
                ended = True
            else:
                assert process.exitcode in (-chosen, 1), f"exit code {process.exitcode} after {chosen.name}"
                self.kills[chosen.name] += 1
        else:
            assert process.exitcode == 0, "a run after a kill failed"
        self.check(token)
        if ended:
            self.whole += 1
            self.torn.clear()
            found = pipeline.outputs(self.home)
            changed = {
                name: (found.get(name), self.expected.get(name))
                for name in {*found, *self.expected}
                if found.get(name) != self.expected.get(name)
            }
            assert not changed, f"other results than those of an uninterrupted run: {changed}"
            assert not list((self.home / "store").glob("*/*.partial"))
        return ended

    def under_way(self) -> list[str]:
        """Return the stages that have a working folder."""
        return sorted({path.parent.name for path in (self.home / "store").glob("*/*.partial")})

    def check(self, token: str) -> None:
        """Raise where a process outlives the run, a lock is held, or an output that counts as done is not whole."""
        deadline = time.monotonic() + 10
        while left := [process.pid for process in psutil.process_iter() if of_run(process, token)]:
            assert time.monotonic() < deadline, f"processes outlive their run: {left}"
            time.sleep(0.1)
        root = self.home / "store"
        for path in [*root.glob("locks/*"), *root.glob("runs/*.lock")]:
            with FileLock(path, timeout=0):
                pass
        corrupt = [path for path in root.glob("*/*/stage.json") if not self.is_right(path.parent)]
        assert not corrupt, f"corrupt outputs: {corrupt}"

    def is_right(self, output: Path) -> bool:
        """Tell whether an output is what its record says, or is not taken for done."""
        if not output.name.isalnum():  # a working folder, or one that was put aside
            return True
        record = Store(self.home / "store").lookup(output.parent.name, output.name)
        if not isinstance(record, Record):
            return output in self.torn
        return all(digest_file(output / name) == sha256 for name, (_, sha256) in record.files.items())

    def tear(self) -> None:
        """Cut a file of the store short, as a power cut can."""
        root = self.home / "store"
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
        files = [path for path in files if path.suffix != ".lock" and path.parent.name != "locks"]
        files = [path for path in files if path != root / STORE]  # a damaged one is refused by a sentence
        if files:
            path = self.random.choice(files)
            os.truncate(path, self.random.randrange(path.stat().st_size))
            self.torn.add(root.joinpath(*path.relative_to(root).parts[:2]))
            self.tears += 1


def of_run(process: psutil.Process, token: str) -> bool:
    """Tell whether a run started this process."""
    try:
        return process.environ().get(pipeline.TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def uninterrupted(folder: Path) -> tuple[dict[str, object], float]:
    """Return the outputs of a run that nobody disturbs, and the seconds it took."""
    pipeline.start(folder / "first", token="first").join()  # so that what is imported once is not in the span
    started = time.monotonic()
    process = pipeline.start(folder / "whole", token="whole")
    process.join(600)
    assert process.exitcode == 0
    assert pipeline.outputs(folder / "whole") == pipeline.outputs(folder / "first")
    return pipeline.outputs(folder / "whole"), time.monotonic() - started
