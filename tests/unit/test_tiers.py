"""Protects the table of long tests: what it names exists, and CI runs each of them when its code changes."""

from pathlib import Path

from tests.conftest import SERVER_FILES
from tests.tiers import QUICK, SLOW, TOUCHED, is_slow, touched

PROJECT = Path(__file__).resolve().parents[2]


def test_every_test_that_is_named_exists() -> None:
    for name in (*SLOW, *QUICK):
        path, _, test = name.partition("::")
        assert (PROJECT / path).exists(), name
        assert not test or f"def {test.partition('[')[0]}" in (PROJECT / path).read_text(), name
    assert all(is_slow(name) for name in SLOW) and not any(is_slow(name) for name in QUICK)


def test_every_long_test_is_run_when_its_code_changes() -> None:
    held = {path for paths in TOUCHED.values() for path in paths}
    assert {name.partition("::")[0].rstrip("/") for name in SLOW} <= held
    assert all((PROJECT / path).exists() for path in (*held, *TOUCHED))
    assert "tests/unit/test_maintenance.py" in held  # which marks its own: all that is remote
    assert set(touched(["flows/run/run.py"])) == set(TOUCHED["flows/"])
    assert touched(["tests/unit/test_tiers.py"]) == ["tests/unit/test_tiers.py"]


def test_files_that_need_prefects_server_share_a_worker() -> None:
    needing = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "tests" / "flow").glob("test_*.py")
        if 'usefixtures("prefect_server"' in path.read_text()
    }
    assert {file for file in needing if not is_slow(file)} == set(SERVER_FILES)
