"""Fixtures that several unit tests share."""

import threading
from collections.abc import Iterator

import pytest

from tests.unit.servers import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.awake.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def utterances(tmp_path_factory):
    """Two tiny corpora of tones: high ones are angry, low ones sad."""
    import numpy as np
    import pandas as pd
    import soundfile

    from clepdg.config.schema import ShardConfig
    from clepdg.dataset.shard_writer import write_shards
    from clepdg.dataset.shards import read_offsets

    root = tmp_path_factory.mktemp("tones")
    rows = []
    for corpus in ("one", "two"):
        for n in range(12):
            emotion = ("angry", "sad")[n % 2]
            time = np.arange(16000) / 16000
            wave = 0.3 * np.sin(2 * np.pi * (900 if n % 2 == 0 else 150) * (1 + 0.02 * n) * time)
            soundfile.write(root / f"{corpus}{n}.wav", wave, 16000)
            split = "validation" if n >= 8 else "train"
            rows.append((f"{corpus}/{n}", corpus, emotion, split, f"{corpus}{n}.wav", emotion))
    table = pd.DataFrame(rows, columns=["utterance_id", "corpus", "emotion", "split", "path", "raw_label"])
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, root, table, ShardConfig())
    offsets = read_offsets(folder).drop(columns=["split", "raw_label"])
    return table.merge(offsets, on="utterance_id").assign(folder=str(folder))
