"""Protects what a person is told about how far a stage is: a slow stage never seems to stand."""

import pytest

from flows.progress import describe


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
    assert describe(stage, "c", done, total, seconds) == expected
