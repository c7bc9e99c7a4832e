"""Compute a stage on several ranks of this machine with torchrun.

Ranks are children of the worker process that computes the stage: torchrun needs a main thread for its signal handlers,
and all ranks die with the worker. They rendezvous through a file and the loopback interface: no port is open to others.
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
from clepdg.processes import exit_with_parent
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.engine.worker import SPAWN, killed_error
from clepdg_tasks.engine.worker_main import picklable

FIRST_FAILURE_SECONDS: Final = 1.0


def on_ranks(function: Callable[[Work], Computed], work: Work, ranks: int) -> Computed:
    """Call a stage's function on every rank and return the first one's result.

    The first rank alone reports metrics and progress.

    Raises:
        ClepError: a rank raised it, or was killed; the other ranks are ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch").setLevel(logging.CRITICAL)  # we report failures ourselves
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
        max_restarts=0,  # the same command continues from the last checkpoint
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    errors = [SPAWN.Pipe(duplex=False) for _ in range(ranks)]
    try:
        outcomes = elastic_launch(config, _on_rank)(function, work, meeting, [sender for _, sender in errors])
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        raise _cause([receiver for receiver, _ in errors], rank, failure.exitcode) from None
    except SignalException as error:  # the ranks are ended; so is this process
        raise SystemExit(128 + error.sigval) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for path in work.folder.glob(f"{meeting.name}*"):
            path.unlink(missing_ok=True)
    computed: Computed = outcomes[0]
    return computed


def _cause(receivers: Sequence[Connection], first: int, exit_code: int) -> BaseException:
    """Return the error that made the ranks fail.

    Args:
        receivers: one per rank, for the error that it raised.
        first: the rank that failed first.
        exit_code: its exit code; negative where a signal killed it.
    """
    errors: dict[int, BaseException] = {rank: c.recv() for rank, c in enumerate(receivers) if c.poll()}
    known = [error for error in errors.values() if isinstance(error, ClepError)]
    if known:
        return known[0]
    if exit_code < 0:
        return killed_error(-exit_code, "one of the ranks that share the batch")
    return errors.get(first) or ClepError("A rank ended without a result.", got=f"rank {first}, exit code {exit_code}")


def _on_rank(
    function: Callable[[Work], Computed], work: Work, meeting: Path, senders: Sequence[Connection]
) -> Computed | None:
    """Join the other ranks, call the function, and send its error if it fails."""
    exit_with_parent()
    from clepdg.training import distributed

    rank = int(os.environ["RANK"])
    device = work.devices[rank % len(work.devices)]
    try:
        distributed.start(rank, int(os.environ["WORLD_SIZE"]), device, meeting)
        computed = function(replace(work, device=device, reporting=work.reporting if rank == 0 else Reporting()))
        distributed.stop()
    except Exception as error:
        senders[rank].send(picklable(error))
        if not isinstance(error, ClepError):
            time.sleep(FIRST_FAILURE_SECONDS)  # it may fail since another rank did: torchrun must see that one first
        raise
    return computed if rank == 0 else None
