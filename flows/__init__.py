"""Run the pipeline: the graph of stages, the flow and the command line."""

import os

# Before torch is imported, here and in child processes: its threads then sleep while they wait. Spinning ones take the
# cores from other work: a training step beside another process took 50 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
