"""Protects what a person is told about how far a stage is: a slow stage never seems to stand."""

import time

import pytest

from clepdg_flows.run.progress import describe, since_first


@pytest.mark.parametrize(
    ("stage", "done", "total", "seconds", "expected"),
    [
        ("index", 620, 2800, 2.0, "index c: 620 of 2800, 310/s"),
        ("clep", 30, 100, 8.0, "clep c: 30 of 100, 3.8/s"),
        ("clep", 3, 100, 36.0, "clep c: 3 of 100, 12 s each"),
        ("clep", 1, 100, 600.0, "clep c: 1 of 100, 10 min each"),
        ("clep", 0, 100, 5.0, "clep c: 0 of 100"),
        ("clep", 5, 0, 0.5, "clep c: 5, 10/s"),
        ("source", 12_300_000, 224_000_000, 8.2, "source c: 12.3 MB of 224.0 MB, 1.5 MB/s"),
    ],
)
def test_how_far(stage, done, total, seconds, expected):
    assert describe(stage, "c", done, total, done, seconds) == expected


def test_what_goes_on_has_the_rate_of_what_it_does_now(monkeypatch):
    """Of 250 steps 105 were done before a kill: they took none of this minute."""
    clock = iter([1000.0, 1060.0, 1061.0, 1065.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    since = since_first()
    assert describe("clep", "c", 105, 250, *since(105)) == "clep c: 105 of 250"
    assert describe("clep", "c", 135, 250, *since(135)) == "clep c: 135 of 250, 2 s each"
    assert describe("clep", "c", 10, 250, *since(10)) == "clep c: 10 of 250"  # another part: its own rate
    assert describe("clep", "c", 90, 250, *since(90)) == "clep c: 90 of 250, 20/s"
