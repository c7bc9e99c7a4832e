"""Protects the loader: batches of seed and step alone, several ahead, few in memory, clear errors, no thread left."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg.audio import io, pieces
from clepdg.audio.corruptions import augment
from clepdg.audio.frontend import LAION_FRONT_END, crop, cut, log_mel, mel_filters
from clepdg.audio.noise import RATE
from clepdg.audio.precision import float32_only, tf32
from clepdg.config.schema import ClepConfig, ComputeConfig
from clepdg.dataset import shards
from clepdg.dataset.shards import UtteranceReader
from clepdg.errors import ShardError
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.training.batches import AHEAD, Prefetch, map_ahead
from clepdg.training.devices import uses_bf16


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Utterances of two rates in a plain file, as a table, and their samples."""
    folder, rng = tmp_path_factory.mktemp("tars"), np.random.default_rng(0)
    rows, samples, data = [], [], b""
    for number, seconds in enumerate((0.3, 1.1, 11.0, 2.0, 0.7, 0.9)):
        rate = 16000 if number != 3 else 22050
        pcm = io.to_pcm((rng.normal(0, 0.1, int(seconds * rate))).astype(np.float32))
        flac = io.encode_flac(pcm, rate)
        rows.append({"corpus": "one", "folder": str(folder), "tar": "a.tar", "offset": len(data), "bytes": len(flac)})
        samples.append((pcm, rate))
        data += flac
    (folder / "a.tar").write_bytes(data)
    return pd.DataFrame(rows), samples


@pytest.mark.parametrize("most_bytes", [0, 40_000, 1 << 30])
def test_a_reader_gives_the_stored_samples_from_any_thread_within_its_bound(stored, most_bytes):
    table, samples = stored
    reader = UtteranceReader(table, most_bytes)
    for _ in range(2):
        for (waveform, rate), (pcm, own) in zip(map_ahead(reader.waveform, range(6), 3), samples, strict=True):
            assert rate == own and np.array_equal(waveform, pcm / np.float32(32768)) and waveform.dtype == np.float32
        assert all(np.array_equal(reader.pcm(n)[0], pcm) for n, (pcm, _) in enumerate(samples))
    kept = sum(pcm.nbytes for pcm, _ in reader._kept.values())
    assert kept <= most_bytes and (kept > 0) == (most_bytes > 0)


def test_threads_that_open_the_same_tar_at_once_do_not_close_it_for_each_other(stored, monkeypatch):
    table, samples = stored
    plain = shards._OpenFile.__init__
    monkeypatch.setattr(shards._OpenFile, "__init__", lambda self, path: (time.sleep(0.01), plain(self, path))[1])
    for _ in range(5):
        reader = UtteranceReader(table, open_files=1)
        assert len(list(map_ahead(reader.waveform, range(6), 6))) == len(samples)


def test_a_reader_says_which_tar_is_missing_and_holds_few_files(stored, tmp_path):
    table, _ = stored
    tars = [f"{n}.tar" for n in range(6)]
    for tar in tars:
        (tmp_path / tar).write_bytes((shards.Path(table.folder[0]) / "a.tar").read_bytes())
    reader = UtteranceReader(table.assign(folder=str(tmp_path), tar=tars), open_files=2)
    before = len(list(shards.Path("/proc/self/fd").iterdir()))
    assert [len(reader.waveform(n)[0]) for n in range(6)]
    assert len(list(shards.Path("/proc/self/fd").iterdir())) <= before + 2
    (tmp_path / "0.tar").unlink()
    with pytest.raises(ShardError, match=r"(?s)can't be read.*0\.tar"):
        reader.waveform(0)


def batches(clap, stored, config, threads, first=0):
    audio = BatchAudio(clap, stored[0], config, 7, ())
    drawn = np.random.default_rng(1).integers(6, size=(6, 3))
    with Prefetch(lambda step: audio.load(step, drawn[step]), 6, threads) as load:
        return [load(step) for step in range(first, 6)]


@pytest.mark.parametrize("augmented", [False, True])
def test_batches_are_the_same_for_any_number_of_threads_and_after_a_resumption(stored, augmented):
    from tests.clap import build_small_clap

    clap, config = build_small_clap(), ClepConfig(augment=augmented)
    expected = batches(clap, stored, config, 1)
    for threads, first in ((1, 4), (3, 0)):
        for found, own in zip(batches(clap, stored, config, threads, first), expected[first:], strict=True):
            assert torch.equal(found.samples, own.samples)
            assert (found.lengths, found.rates) == (own.lengths, own.rates)


def test_a_piece_is_that_of_the_waveform_and_an_augmented_one_too(stored):
    from tests.clap import build_small_clap

    clap, (table, samples) = build_small_clap(), stored
    draw, front_end = np.random.default_rng([7, 5, 2]).random(1)[0], clap.front_end
    for place, augmented in ((2, False), (1, True)):
        pcm, rate = samples[place]
        waveform = pcm / np.float32(32768)
        if augmented:
            waveform, rate = augment(waveform, rate, np.random.default_rng([7, 5, 3, 0])), RATE
        [piece] = (
            BatchAudio(clap, table, ClepConfig(augment=augmented), 7, ())
            .load(5, np.array([place]))
            .at(front_end.sample_rate, torch.device("cpu"))
        )
        window = pieces.fill_windows([piece[: front_end.samples]], front_end)[0]
        np.testing.assert_array_equal(window, crop(waveform, rate, front_end, draw))


@pytest.mark.parametrize("threads", [1, 6])
def test_several_batches_wait_and_never_more(threads):
    begun, most = [], max(AHEAD, threads)
    with Prefetch(lambda step: begun.append(step) or step, 40, threads) as load:
        assert load(0) == 0
        while len(begun) < 1 + most:
            time.sleep(0.001)
        for step in range(1, 40):
            assert load(step) == step
            assert max(begun) <= step + most
    assert sorted(begun) == list(range(40))


def test_the_error_of_a_batch_is_that_of_its_step_and_no_thread_is_left():
    def load(step):
        if step == 2:
            raise ShardError("A shard can't be read.", where="x")
        return step

    with pytest.raises(ShardError, match="can't be read"), Prefetch(load, 1000, 2) as ready:
        assert [ready(0), ready(1)] == [0, 1]
        ready(2)
    assert not [thread for thread in threading.enumerate() if "loader" in thread.name]


def test_a_map_ahead_keeps_the_order_takes_few_items_and_stops_when_it_is_left():
    taken = []
    mapped = map_ahead(lambda n: n * n, (taken.append(n) or n for n in range(1000)), 2)
    assert [next(mapped) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + AHEAD * 2 + 1
    mapped.close()
    assert len(taken) < 20 and list(map_ahead(str, range(25), 3)) == [str(n) for n in range(25)]


def test_a_gpus_resampling_is_soxrs(tone):
    """The code that a GPU runs, here on the CPU; bands that end below 7.2 kHz, and the mean of all."""
    front_end, pcm = LAION_FRONT_END, io.to_pcm(tone(2.5, 16000))
    packed = pieces.pack([(pcm, 16000), (pcm[:9000], 16000), (pcm[: 44100 // 2], 44100)])
    assert packed.samples.dtype == torch.int16
    found = packed.at(48000, torch.device("cpu"))
    bank = mel_filters(front_end.n_fft, front_end.low_hz, front_end.high_hz, front_end.mels, front_end.sample_rate)
    low = torch.tensor([int(bank[:, band].nonzero()[-1]) * 48000 / 1024 < 7200 for band in range(front_end.mels)])
    for piece, length, rate in zip(found, packed.lengths, packed.rates, strict=True):
        expected = torch.from_numpy(io.resample(pcm[:length] / np.float32(32768), rate, 48000))
        assert len(piece) == len(expected)
        both = [log_mel(pieces.fill_windows([x], front_end), front_end, [length])[0, 0] for x in (piece, expected)]
        difference = (both[0] - both[1]).abs()
        assert float(difference[:, low].max()) < 0.15 and float(difference.mean()) < 0.1  # dB


def test_a_piece_is_cut_before_it_is_resampled():
    pcm = np.arange(16000 * 30, dtype=np.int32)
    part = cut(pcm, 16000, LAION_FRONT_END, 0.5)
    assert len(part) == 160001 and part[0] == (len(pcm) - 160001) // 2
    assert len(cut(pcm[:5], 16000, LAION_FRONT_END, 0.9)) == 5


def test_the_front_end_turns_tf32_off_and_leaves_it_as_it_was():
    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    with tf32(True):
        with float32_only("cpu"):
            assert flags() == (False, False)
        assert flags() == (True, True)
    assert flags() == before


def test_auto_is_bf16_on_a_gpu_and_fp32_elsewhere():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    found = {name: [uses_bf16(ComputeConfig(precision=name), where) for where in (gpu, cpu)]
             for name in ("auto", "fp32", "bf16")}  # fmt: skip
    assert found == {"auto": [True, False], "fp32": [False, False], "bf16": [True, True]}
