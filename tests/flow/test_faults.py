"""Protects what is done against kills at random moments: the short version of `make soak`."""

import random
import time

from tests.soak.storm import Storm, uninterrupted


def test_a_few_kills_at_random_moments(tmp_path):
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")  # noqa: T201 # pytest shows it when the test fails
    expected, span = uninterrupted(tmp_path)
    storm = Storm(tmp_path, expected, span, random.Random(seed))
    storm.blow(2)
    assert storm.kills.total() >= 2
