"""Protects the cores from spinning threads: those of torch sleep while they wait, and results keep their bytes."""

import os
import subprocess
import sys

import pytest

STEP = """
import hashlib, sys, torch
torch.set_num_threads(2)
torch.manual_seed(0)
layer, x = torch.nn.Conv1d(64, 96, 5, padding=2), torch.randn(16, 64, 256)
torch.nn.functional.gelu(layer(x)).square().mean().backward()
print(hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in layer.parameters())).hexdigest())
"""


def run(code: str, **variables: str) -> str:
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | variables
    return subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("given", ["", "ACTIVE"])
def test_waiting_threads_sleep_unless_the_user_wants_otherwise(given):
    code = "import clepdg_flows, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    policy, loaded = run(code, **({"OMP_WAIT_POLICY": given} if given else {})).split()
    assert (policy, loaded) == (given or "PASSIVE", "False")


def test_the_command_line_starts_there():
    code = "import clepdg_flows.cli.main, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    assert run(code).split() == ["PASSIVE", "False"]


def test_gradients_keep_their_bytes():
    assert run(STEP, OMP_WAIT_POLICY="ACTIVE") == run(STEP, OMP_WAIT_POLICY="PASSIVE")
