"""Protects what is done against kills at random moments: `make soak`, or `make soak COUNT=50 SEED=7`."""

import os
import random
import time

import pytest

from tests.soak.storm import Storm, uninterrupted

COUNT = int(os.environ.get("COUNT") or 200)
SEED = int(os.environ.get("SEED") or time.time_ns() % 1_000_000)


@pytest.mark.timeout(4 * 3600)
def test_random_kills_leave_nothing_corrupt(tmp_path):
    started = time.monotonic()
    print(f"\nseed {SEED}, {COUNT} kills")
    expected, span = uninterrupted(tmp_path)
    print(f"an uninterrupted run takes {span:.1f} s")
    storm = Storm(tmp_path, expected, span, random.Random(SEED))
    while storm.kills.total() < COUNT:
        storm.blow(min(COUNT, storm.kills.total() + 10))
        print(f"{time.monotonic() - started:.0f} s: {dict(storm.kills)}, {storm.tears} torn files,", end=" ")
        print(f"{storm.whole} runs to the end, 0 corrupt outputs", flush=True)
    print(f"under way when killed: {dict(storm.hits.most_common())}")
