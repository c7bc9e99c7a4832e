"""Protects a machine that loses power in the middle of a deployed run: `make up`, and the same deployment goes on.

It takes minutes, since Prefect keeps the lost run's slot for five of them.
"""

import time

import psutil
import pytest

from clepdg_tasks.admin import services
from tests.flow.conftest import project
from tests.flow.test_worker import Deployed, deployed, wait

__all__ = ["deployed", "project"]


@pytest.mark.timeout(1200)
def test_power_cut(deployed: Deployed) -> None:
    since, first = time.time(), deployed.start()
    wait(lambda: deployed.checkpoint(since), 180)
    everything = [psutil.Process(service.pid) for service in deployed.running.values()]
    everything += [child for process in everything for child in process.children(recursive=True)]
    for process in everything:
        process.suspend()  # at once: none of them sees another one die
    for process in everything:
        process.kill()
    psutil.wait_procs(everything, timeout=30)
    deployed.check_intact()

    deployed.running = services.up()
    started, second = time.monotonic(), deployed.start()
    wait(lambda: deployed.state(second) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 900)
    print(f"\nthe same deployment ended {time.monotonic() - started:.0f} s after the power cut; the first run is")
    print(f"{deployed.state(first)}")
    assert deployed.state(second) == "COMPLETED"
    deployed.check_intact()
    assert deployed.statuses() == {"FINISHED", "KILLED"}  # those of the first run are known to be over
