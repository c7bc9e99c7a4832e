"""Set the stage of a rehearsal: stand-ins for the hub and the publishers, and a machine that knows only them."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from clepdg.config.schema import BackboneConfig
from clepdg.models.files import sha256
from clepdg_tasks.host.settings import PROJECT
from tests.rehearsal.clap import make_clap
from tests.rehearsal.hub import Hub, Repository
from tests.rehearsal.publishers import Publishers

BIN = Path(sys.executable).parent
DEFAULT = BackboneConfig()


@dataclass
class Machine:
    """An empty machine whose publishers and hub are stand-ins.

    Attributes:
        checkout: a copy of this checkout, so that its own servers and prefect.toml stay untouched.
        home: where all state goes.
    """

    checkout: Path
    home: Path
    environment: dict[str, str]
    publishers: Publishers
    hub: Hub
    peak: dict[str, int] = field(default_factory=dict)  # kind of process -> most resident bytes seen

    def run(self, *command: str, timeout: float = 3600, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in the checkout, as a user does."""
        with self._watched():
            done = subprocess.run(
                [str(BIN / command[0]), *command[1:]],
                cwd=self.checkout,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def last_run(self) -> dict[str, Any]:
        """Return what the newest run left."""
        newest = max((self.home / "store" / "runs").glob("*.json"))
        said: dict[str, Any] = json.loads(newest.read_text())
        return said

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note the most memory that a process of this home has while a command runs."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1.0):
                for process in psutil.process_iter(["cmdline", "memory_info", "environ"]):
                    if (process.info["environ"] or {}).get("CLEPDG_HOME") == str(self.home):
                        kind = _kind(process.info["cmdline"] or [])
                        self.peak[kind] = max(self.peak.get(kind, 0), process.info["memory_info"].rss)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _kind(command: Sequence[str]) -> str:
    text = " ".join(command)
    kinds = {"prefect.engine": "flow run", "flow_run": "flow run", "clep-dg": "clep-dg", "mlflow": "MLflow"}
    return next((kind for part, kind in kinds.items() if part in text), "other")


@contextmanager
def machine(folder: Path, *, tiny: bool, corpora: tuple[str, ...], per_class: int = 2) -> Iterator[Machine]:
    """Give a machine with an empty home, whose hub has the default backbone at its pinned commit as a .bin alone.

    Args:
        tiny: a small CLAP; False: the true architecture, with random weights.
    """
    clap, cards = make_clap(folder / "clap", tiny=tiny), folder / "cards"
    repositories = [
        Repository.of_folder(DEFAULT.name, clap, revisions={"main": str(DEFAULT.revision)}),
        Repository.of_folder("laion/gated", clap, gated=True),
    ]
    with Hub(repositories) as hub, Publishers(folder / "publishers", corpora=corpora, per_class=per_class) as there:
        there.write_cards(cards)
        weights = clap / "pytorch_model.bin"
        row = f"{DEFAULT.name},{DEFAULT.revision},{weights.name},{weights.stat().st_size},{sha256(weights)}"
        (cards / "models.csv").write_text(f"repository,revision,file,bytes,sha256\n{row}\n")
        checkout, home = _copy(folder / "a checkout"), folder / "a home"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CLEPDG_", "HF_"))
        }
        environment = kept | {
            "CLEPDG_HOME": str(home),
            "CLEPDG_DEVICE": "cpu",
            "CLEPDG_CARDS": str(cards),
            "CLEPDG_MIRRORS": ",".join(f"{address}={mirror}" for address, mirror in there.mirrors.items()),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "huggingface"),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(checkout),
        }
        yield Machine(checkout, home, environment, there, hub)


def _copy(folder: Path) -> Path:
    """Copy the files of this checkout that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    return folder


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)
