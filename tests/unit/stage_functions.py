"""Stage functions for tests of worker processes and ranks, which import them by name."""

import errno
import logging
import os
import signal
import sys
import time
import warnings

from clepdg.errors import ConfigError
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.engine.ranks import on_ranks


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


def on_two(work: Work) -> Computed:
    """Do on two ranks what config says."""
    functions = {
        "meet": meet,
        "quarrel": quarrel,
        "lose": lose,
        "stumble": stumble_second,
        "sleep": sleep,
        "train": train,
    }
    return on_ranks(functions[work.config["what"]], work, 2)


def meet(work: Work) -> Computed:
    """Gather, report, and say what listens where."""
    import psutil
    import torch

    from clepdg.training import distributed

    own = torch.full((2, 3), float(distributed.rank() + 1))
    gathered = distributed.gather(own)
    work.reporting.progress(distributed.rank(), 2)  # of the first rank alone
    agent = psutil.Process(os.getppid())
    listening = {c.laddr.ip for p in [agent, psutil.Process()] for c in p.net_connections() if c.status == "LISTEN"}
    return Computed(
        digests={"content": str(distributed.gather_lists([distributed.rank()] * (1 + distributed.rank())))},
        figures={"gathered": gathered[:, 0].tolist(), "listening": sorted(listening), "sid": os.getsid(0)},
    )


def quarrel(work: Work) -> Computed:
    """Let the second rank fail while the first waits for it."""
    from clepdg.training import distributed

    (work.folder / f"pid-{os.getpid()}").touch()
    if distributed.rank() == 1:
        raise ConfigError("The second rank refuses.")
    distributed.barrier()
    raise AssertionError


def lose(work: Work) -> Computed:
    """Let the second rank be killed while the first waits for it."""
    from clepdg.training import distributed

    (work.folder / f"pid-{os.getpid()}").touch()
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()
    raise AssertionError


def stumble_second(work: Work) -> Computed:
    """Let a bug show on the second rank alone."""
    from clepdg.training import distributed

    if distributed.rank() == 1:
        raise ZeroDivisionError("a bug of the second rank")
    distributed.barrier()
    raise AssertionError


def train(work: Work) -> Computed:
    """Train a micro CLEP for each configuration; leave each rank's first gradients and its weights' digests."""
    import torch

    from clepdg.config.schema import ComputeConfig
    from clepdg.method import clep
    from clepdg.models.micro import build_micro
    from clepdg.models.tensors import save_tensors
    from clepdg.training import distributed

    step, figures = torch.optim.AdamW.step, {}
    for name, (config, dropout) in work.config["trainings"].items():
        clap, first = build_micro(0), {}
        for module in clap.model.modules() if not dropout else ():
            for attribute in ("p", "attention_dropout", "dropout"):
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, 0.0)
        names = {id(parameter): name for name, parameter in clap.model.named_parameters()}

        def recording(self, *args, names=names, first=first, **kwargs):
            for group in self.param_groups if not first and len(self.param_groups) > 1 else ():  # CLEP's
                first.update({names[id(p)]: p.grad.clone() for p in group["params"]})
            return step(self, *args, **kwargs)

        torch.optim.AdamW.step = recording
        folder = work.folder / name
        folder.mkdir(exist_ok=True)
        try:
            figures[name] = clep.fit(
                clap,
                work.config["utterances"],
                ("angry", "sad"),
                config,
                ComputeConfig(threads=1),
                0,
                folder,
                work.reporting,
                work.checkpointing,
            )
        finally:
            torch.optim.AdamW.step = step
        save_tensors(folder / f"gradients-{distributed.rank()}.safetensors", first)
        (folder / f"digest-{distributed.rank()}").write_text(clap.digest())
    return Computed(digests={}, figures=figures)
