"""Stages' functions for tests of child processes and ranks: a child imports them by their name."""

import errno
import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path

from clepdg.errors import ConfigError
from tasks.ranks import on_ranks
from tasks.stages import Computed, Work


def talk(work: Work) -> Computed:
    """Report in every way there is."""
    work.reporting.log_metrics({"loss": 1.5}, 3)
    for done in range(1, 4):
        work.reporting.progress(done, 3)
    logging.getLogger("clepdg").info("an info of the library")
    logging.getLogger("elsewhere").warning("a warning of %s", "another")
    print("a printed line")  # noqa: T201
    os.write(2, b"bytes of a library in C, without an end of line")
    os.write(2, b"\n")
    warnings.warn("a warning of Python", stacklevel=1)
    return Computed(digests={"content": work.config["content"]}, figures={"pid": os.getpid(), "device": work.device})


def refuse(work: Work) -> Computed:
    """Fail as a user's mistake does."""
    raise ConfigError("This is refused.", got=work.config["content"], do="nothing")


def stumble(work: Work) -> Computed:
    """Fail as a bug does."""
    return Computed(digests={"content": str(1 // (len(work.config["content"]) - 1))})


def fill(work: Work) -> Computed:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device", "a file")


class Unpicklable(Exception):
    """An error that another process can't build."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(work: Work) -> Computed:
    """Fail by an error that can't be sent."""
    raise Unpicklable(1, 2)


def die(work: Work) -> Computed:
    """Be killed."""
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def leave(work: Work) -> Computed:
    """End without a word."""
    os._exit(3)


def sleep(work: Work) -> Computed:
    """Hang; say who hangs, by a file."""
    (work.folder / f"pid-{os.getpid()}").touch()
    work.reporting.progress(1, 2)
    time.sleep(600)
    raise AssertionError


def ignore_and_sleep(work: Work) -> Computed:
    """Hang, and do not listen either."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep(work)


def _rank_pids(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("pid-*"))


def on_two(work: Work) -> Computed:
    """Do on two ranks what config says."""
    return on_ranks({"meet": meet, "quarrel": quarrel, "lose": lose, "sleep": sleep}[work.config["what"]], work, 2)


def meet(work: Work) -> Computed:
    """Gather, report, and say what listens where."""
    import psutil
    import torch

    from clepdg import distributed

    own = torch.full((2, 3), float(distributed.rank() + 1))
    gathered = distributed.gather(own)
    work.reporting.progress(distributed.rank(), 2)  # of the first rank alone
    agent = psutil.Process(os.getppid())
    listening = {c.laddr.ip for p in [agent, psutil.Process()] for c in p.net_connections() if c.status == "LISTEN"}
    return Computed(
        digests={"content": str(distributed.joined([distributed.rank()] * (1 + distributed.rank())))},
        figures={"gathered": gathered[:, 0].tolist(), "listening": sorted(listening), "sid": os.getsid(0)},
    )


def quarrel(work: Work) -> Computed:
    """Let the second rank fail while the first waits for it."""
    from clepdg import distributed

    (work.folder / f"pid-{os.getpid()}").touch()
    if distributed.rank() == 1:
        raise ConfigError("The second rank refuses.")
    distributed.wait()
    raise AssertionError


def lose(work: Work) -> Computed:
    """Let the second rank be killed while the first waits for it."""
    from clepdg import distributed

    (work.folder / f"pid-{os.getpid()}").touch()
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.wait()
    raise AssertionError
