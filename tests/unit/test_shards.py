"""Protects the shards: equal bytes however made, readable by offset, stream and tar, and no silent loss."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile

from clepdg.config.schema import ShardConfig
from clepdg.dataset import shard_writer, shards
from clepdg.errors import ShardError

CONFIG = ShardConfig(max_megabytes=0.2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """120 utterances at three rates, mono and stereo, some of them long."""
    root = tmp_path_factory.mktemp("a corpus")
    rng = np.random.default_rng(0)
    rows = []
    for n in range(120):
        rate = (48000, 24414, 16000)[n % 3]
        samples = rng.normal(0, 0.1, (int(rate * (0.2 + 0.01 * n)), 1 + n % 2))
        soundfile.write(root / f"{n}.wav", samples, rate)
        rows.append((f"c/{n:03d}", ("train", "validation", "test")[n % 3], f"{n}.wav", "A"))
    return root, pd.DataFrame(rows, columns=["utterance_id", "split", "path", "raw_label"])


@pytest.fixture(scope="module")
def written(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    figures = shard_writer.write_shards(folder, *corpus, CONFIG)
    return folder, figures


def test_bytes_do_not_depend_on_processes_order_or_leftovers(corpus, written, tmp_path, monkeypatch):
    root, utterances = corpus
    (tmp_path / "train-000000.tar").write_bytes(b"half")
    (tmp_path / "train-000099.tar").write_bytes(b"of a killed run")
    monkeypatch.setattr(shard_writer, "FEW", 1)
    shard_writer.write_shards(tmp_path, root, utterances.sample(frac=1, random_state=1), CONFIG, workers=2)
    for path in sorted(written[0].iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert len(list(tmp_path.iterdir())) == len(list(written[0].iterdir()))
    assert shards.digests(tmp_path) == shards.digests(written[0])


def test_a_process_that_is_killed_is_one_clear_error(corpus, written, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "FEW", 1)

    before = {child.pid for child in psutil.Process().children()}
    killed = []

    def kill_one(done, total):
        if not killed:  # what was encoded before is still written, and this called again
            workers = [child for child in psutil.Process().children() if child.pid not in before]
            killed.append(next(child for child in workers if "spawn_main" in " ".join(child.cmdline())))
            killed[0].kill()

    with pytest.raises(ShardError, match="was killed"):
        shard_writer.write_shards(tmp_path, *corpus, CONFIG, workers=2, progress=kill_one)
    shard_writer.write_shards(tmp_path, *corpus, CONFIG, workers=2)
    assert shards.digests(tmp_path) == shards.digests(written[0])


PARENT = """
import sys
from pathlib import Path
import pandas as pd
from clepdg.config.schema import ShardConfig
from clepdg.dataset import shard_writer

def main():
    shard_writer.FEW = 1
    utterances = pd.read_json(sys.argv[3])
    shard_writer.write_shards(Path(sys.argv[1]), Path(sys.argv[2]), utterances, ShardConfig(), workers=2,
                              progress=lambda done, total: (print(done, flush=True), sys.stdin.read()))

if __name__ == "__main__":
    main()
"""


def test_no_process_outlives_a_parent_that_is_killed(corpus, tmp_path):
    root, utterances = corpus
    utterances.to_json(tmp_path / "utterances.json")
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), str(root), str(tmp_path / "utterances.json")]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline()
        children = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()
        parent.wait(30)
    assert len(children) >= 2
    assert not psutil.wait_procs(children, timeout=30)[1]


def test_figures_and_several_tars(written):
    folder, figures = written
    assert figures["utterances"] == 120
    assert figures["tars"] == len(list(folder.glob("*.tar"))) > 3
    assert figures["seconds"] == pytest.approx(sum(0.2 + 0.01 * n for n in range(120)), abs=0.01)


def test_offsets_lead_to_the_audio(corpus, written):
    root, utterances = corpus
    offsets = shards.read_offsets(written[0])
    assert set(offsets.utterance_id) == set(utterances.utterance_id)
    for row in offsets.itertuples():
        waveform, rate = shards.read_waveform(written[0], row.tar, row.offset, row.bytes)
        assert rate == row.sample_rate == 16000
        assert len(waveform) == row.num_samples
    original, _ = soundfile.read(root / "2.wav", dtype="float32")  # 16 kHz, mono: stored as it is
    row = offsets[offsets.utterance_id == "c/002"].iloc[0]
    waveform, _ = shards.read_waveform(written[0], row.tar, row.offset, row.bytes)
    assert np.abs(waveform - original).max() <= 1 / 65536


def test_stream_and_plain_tar_give_the_same(written):
    offsets = shards.read_offsets(written[0]).set_index("utterance_id")
    streamed = {name: waveform for name, waveform, _ in shards.stream(written[0])}
    assert set(streamed) == set(offsets.index)
    for path in written[0].glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.mtime == 0
                data = tar.extractfile(member).read()
                name, _, kind = member.name.rpartition(".")
                if kind == "json":
                    assert json.loads(data)["pcm_sha256"] == offsets.loc[name].pcm_sha256
                else:
                    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
                    assert rate == 16000
                    np.testing.assert_array_equal(samples, streamed[name])


def test_native_rate_where_not_band_limited(corpus, tmp_path):
    shard_writer.write_shards(tmp_path, *corpus, replace(CONFIG, band_limit_hz=None))
    assert set(shards.read_offsets(tmp_path).sample_rate) == {48000, 24414, 16000}


def test_a_truncated_tar_is_an_error_not_a_smaller_epoch(corpus, tmp_path):
    shard_writer.write_shards(tmp_path, *corpus, CONFIG)
    tar = sorted(tmp_path.glob("*.tar"))[0]
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        last = opened.getmembers()[-1]
    for size in (len(whole) // 2, last.offset, 1536):
        tar.write_bytes(whole[:size])
        with pytest.raises(ShardError):
            list(shards.stream(tmp_path))


def test_a_missing_tar_is_one_clear_error(corpus, tmp_path):
    shard_writer.write_shards(tmp_path, *corpus, CONFIG)
    row = shards.read_offsets(tmp_path).iloc[0]
    (tmp_path / row.tar).rename(tmp_path / "elsewhere")
    with pytest.raises(ShardError, match=rf"(?s)can't be read.*No such file.*{row.tar}"):
        shards.read_waveform(tmp_path, row.tar, row.offset, row.bytes)
    with pytest.raises(ShardError, match=rf"(?s)points to missing data.*{row.tar}"):
        list(shards.stream(tmp_path))


def test_an_offset_to_the_wrong_place_is_an_error(written):
    row = shards.read_offsets(written[0]).iloc[0]
    with pytest.raises(ShardError, match="does not hold"):
        shards.read_waveform(written[0], row.tar, row.offset + 7, row.bytes)


def test_a_file_that_vanished_is_named(corpus, tmp_path):
    root, utterances = corpus
    with pytest.raises(ShardError, match=r"gone\.wav"):
        shard_writer.write_shards(tmp_path, root, utterances.assign(path="gone.wav"), CONFIG)


def test_a_name_that_no_tar_takes_is_one_clear_error_that_says_whose(corpus, tmp_path):
    root, utterances = corpus
    with pytest.raises(ShardError, match=r"(?s)does not fit into a tar.*where: c/"):
        shard_writer.write_shards(tmp_path, root, utterances.assign(utterance_id=f"c/{'n' * 96}"), CONFIG)


def test_learning_digest_ignores_the_test_part(corpus, tmp_path):
    root, utterances = corpus
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    changed = utterances.copy()
    changed.loc[changed.utterance_id == "c/002", "raw_label"] = "B"  # a test utterance
    relearnt = utterances.copy()
    relearnt.loc[relearnt.utterance_id == "c/000", "raw_label"] = "B"  # a training utterance
    for folder, table in zip(folders, (utterances, changed, relearnt), strict=True):
        folder.mkdir()
        shard_writer.write_shards(folder, root, table, CONFIG)
    a, b, c = (shards.digests(folder) for folder in folders)
    assert a["learning"] == b["learning"] != c["learning"]
    assert len({a["content"], b["content"], c["content"]}) == 3


@pytest.mark.parametrize(
    "name", ["with space", "[lab]", "exp#3", "take?", "{a,b}", "a::b", "pipe:cat", "e%20f'g", "s3:"]
)
def test_the_name_of_a_folder_is_no_pattern_and_no_address(written, tmp_path, monkeypatch, name):
    folder = tmp_path / name
    shutil.copytree(written[0], folder)
    monkeypatch.chdir(tmp_path)
    expected = shards.read_offsets(written[0]).utterance_id.tolist()
    assert sorted(each for each, _, _ in shards.stream(folder)) == sorted(expected)
