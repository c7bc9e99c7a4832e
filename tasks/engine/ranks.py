"""One stage on several ranks of this machine, started and watched by torchrun (torch.distributed.launcher).

Ranks are processes of the child that computes the stage, so that torchrun has a main thread to be asked to stop in, and
all of them die with it. They meet in a file and talk over the loopback interface: no port is open to others.
"""

import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError
from tasks.engine.node import Computed, Work
from tasks.engine.worker import SPAWN, killed, leave_with, portable

SECONDS_TO_BE_SEEN: Final = 1.0


def on_ranks(function: Callable[[Work], Computed], work: Work, ranks: int) -> Computed:
    """Call a stage's function on every rank and return what the first one returns; it alone reports.

    Raises:
        ClepError: what a rank raised, or that a rank was killed; the other ranks are ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch").setLevel(logging.CRITICAL)  # what fails is said once, by us
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # torchrun's own would listen on every interface
    meeting = work.folder / f"ranks-{uuid.uuid4().hex}"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=meeting.name,
        rdzv_backend="c10d",
        rdzv_configs={"store_type": "file"},
        rdzv_endpoint=f"{meeting}.torchrun",
        local_addr="127.0.0.1",
        max_restarts=0,  # the same command goes on from the last checkpoint
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    complaints = [SPAWN.Pipe(duplex=False) for _ in range(ranks)]
    try:
        outcomes = elastic_launch(config, _on_rank)(function, work, meeting, [c for _, c in complaints], os.getpid())
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        raise _cause([c for c, _ in complaints], rank, failure.exitcode) from None
    except SignalException as asked:  # the ranks are ended; so is this process
        raise SystemExit(128 + asked.sigval) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for path in work.folder.glob(f"{meeting.name}*"):
            path.unlink(missing_ok=True)
    computed: Computed = outcomes[0]
    return computed


def _cause(complaints: Sequence[Connection], first: int, exit_code: int) -> BaseException:
    """Return why the ranks failed: what one of them raised, or how the first that ended was killed."""
    errors: dict[int, BaseException] = {rank: c.recv() for rank, c in enumerate(complaints) if c.poll()}
    ours = [error for error in errors.values() if isinstance(error, ClepError)]
    if ours:
        return ours[0]
    if exit_code < 0:
        return killed(-exit_code, "one of the ranks that share the batch")
    return errors.get(first) or ClepError("A rank ended without a result.", got=f"rank {first}, exit code {exit_code}")


def _on_rank(
    function: Callable[[Work], Computed], work: Work, meeting: Path, complaints: Sequence[Connection], parent: int
) -> Computed | None:
    """Join the other ranks and call the function; say why before failing."""
    leave_with(parent)
    from clepdg.training import distributed

    rank = int(os.environ["RANK"])
    device = work.devices[rank % len(work.devices)]
    try:
        distributed.start(rank, int(os.environ["WORLD_SIZE"]), device, meeting)
        computed = function(replace(work, device=device, reporting=work.reporting if rank == 0 else Reporting()))
        distributed.stop()
    except Exception as error:
        complaints[rank].send(portable(error))
        if not isinstance(error, ClepError):
            time.sleep(SECONDS_TO_BE_SEEN)  # if it only lost another rank, that one's end is to be seen first
        raise
    return computed if rank == 0 else None
