"""The script that measures a GPU runs with PyTorch, transformers and NumPy alone: a dry run on the CPU."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("torch", "torchaudio", "transformers", "numpy", "safetensors")
ABSENT = {"pydantic", "pydantic-core", "typing-inspection"}  # newer typer requires it, of transformers


def link_needed(folder: Path) -> None:
    """Link what these distributions require, and nothing else."""
    waiting, seen = list(NEEDED), set(ABSENT)
    while waiting:
        name = waiting.pop().lower()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        if name in seen:
            continue
        seen.add(name)
        wanted = [Requirement(one) for one in found.requires or ()]
        waiting += [one.name for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})]
        for top in {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    assert not {"pandas", "pyarrow", "soundfile", "soxr", "scipy", "prefect", "mlflow"} & seen


def test_a_dry_run_needs_little_and_finds_every_line_correct(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    link_needed(site)
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-S", str(ROOT / "tests" / "gpu" / "measure.py"), "--cpu", "--out", str(out)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["failed"] == {} and found["missed"] == []
    assert found["values"]["resumed CLEP against an uninterrupted one, weights"] == 0
    assert found["values"]["audio embeddings"] > 0
