"""Protects the reader of audio: bounded by the declared length, chosen by content, and no truncated file is whole."""

import base64
import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from clepdg.audio import io as audio_io
from clepdg.audio.inspection import read_audio, read_samples, read_usable
from clepdg.audio.io import decode
from clepdg.audio.noise import RATE, read_noises
from clepdg.audio.truncation import find_truncation
from clepdg.config.schema import IndexConfig
from clepdg.dataset.probe import probe_file
from clepdg.errors import IndexingError
from clepdg.method.emotion_classifier import EmotionClassifier
from clepdg.method.heads import Head


def noise(seconds: float = 3.0, rate: int = RATE) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))).astype(np.float32)


def written(kind: str, samples: NDArray[np.float32] | None = None, rate: int = RATE, **more: Any) -> bytes:
    """Return a file by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, noise() if samples is None else samples, rate, format=kind, **more)
    return buffer.getvalue()


def muxed(
    container: str, codec: str, folder: Path, samples: NDArray[np.float32] | None = None, rate: int = RATE, **more: str
) -> bytes:
    """Return a file by PyAV."""
    import av

    path = folder / "muxed"  # faststart opens it twice
    with av.open(str(path), "w", format=container, options=more) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        if "write_xing" in more:
            stream.options = {"flags": "+qscale", "global_quality": "590"}  # a variable bit rate
        pcm = (32767 * (noise(3.0, rate) if samples is None else samples)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return path.read_bytes()


def tagged(data: bytes, footer: bool = False) -> bytes:
    """Return a file behind an ID3 tag of 300 bytes."""
    size = bytes((0, 0, 300 >> 7, 300 & 127))
    return b"ID3\4\0" + bytes((16 * footer,)) + size + bytes(300) + (b"3DI\4\0\x10" + size) * footer + data


FILES: dict[str, Callable[[Path], bytes]] = {
    "wav": lambda folder: written("WAV"),
    "rf64": lambda folder: written("RF64"),
    "aiff": lambda folder: written("AIFF"),
    "au": lambda folder: written("AU"),
    "w64": lambda folder: written("W64"),
    "caf": lambda folder: written("CAF"),
    "caf of packets": lambda folder: written("CAF", subtype="ALAC_16"),
    "flac": lambda folder: written("FLAC"),
    "vorbis": lambda folder: written("OGG"),
    "opus": lambda folder: written("OGG", subtype="OPUS"),
    "mp3": lambda folder: written("MP3"),
    **{
        f"{kind} behind a tag": lambda folder, kind=kind: tagged(written(kind))  # type: ignore[misc]
        for kind in ("WAV", "AIFF", "AU", "W64", "CAF", "FLAC", "OGG", "MP3")
    },
    "mp3 without a header": lambda folder: muxed("mp3", "libmp3lame", folder, write_xing="0"),
    "aac": lambda folder: muxed("adts", "aac", folder),
    "mp4": lambda folder: muxed("mp4", "aac", folder),
    "mp4, its index first": lambda folder: muxed("mp4", "aac", folder, movflags="faststart"),
    "mp4 in fragments": lambda folder: muxed("mp4", "aac", folder, movflags="frag_keyframe+empty_moov"),
    "webm": lambda folder: muxed("webm", "libopus", folder, rate=48000),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_file_is_read_and_a_truncated_one_refused_whatever_it_is_called(kind: str, tmp_path: Path) -> None:
    data = FILES[kind](tmp_path)
    path = tmp_path / "speech.wav"
    for content in (data, data + b"TAG of a music player"):
        path.write_bytes(content)
        for source in (path, content):
            samples, rate = decode(source)
            assert samples.shape[0] / rate == pytest.approx(3.0, abs=0.2)  # codecs add silence
    for share in (0.3, 0.5, 0.66, 0.9, 0.999):
        path.write_bytes(data[: int(share * len(data)) - 3])
        with pytest.raises(IndexingError, match="^truncated"):
            decode(path)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64", "CAF", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("footer", [False, True])
def test_a_tag_in_front_of_a_file_changes_no_sample(kind: str, footer: bool, tmp_path: Path) -> None:
    data = written(kind)
    (tmp_path / "a.mp3").write_bytes(tagged(data, footer))
    for source in (tmp_path / "a.mp3", tagged(data, footer), tagged(tagged(data, footer))):
        np.testing.assert_allclose(decode(source)[0], decode(data)[0], atol=1e-5)  # MP3 has two decoders


@pytest.mark.parametrize(("kind", "place"), [("W64", slice(96, 104)), ("CAF", slice(4084, 4092))])
def test_chunks_of_unknown_size_promise_nothing(kind: str, place: slice) -> None:
    data = bytearray(written(kind))
    assert int.from_bytes(data[place], "little" if kind == "W64" else "big") > 96000
    data[place] = b"\xff" * 8
    assert find_truncation(io.BytesIO(data)) is None


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_streams_one_after_the_other_are_refused(subtype: str) -> None:
    first = written("OGG", subtype=subtype)
    with pytest.raises(IndexingError, match="^holds several streams one after the other"):
        decode(first + written("OGG", noise(1.0), subtype=subtype))


def without_length(flac: bytes) -> bytes:
    """Return a FLAC as it is written to a pipe."""
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_flac_of_unknown_length_is_whole_or_damaged() -> None:
    data = written("FLAC")
    expected, _ = decode(data)
    np.testing.assert_array_equal(decode(without_length(data))[0], expected)
    with pytest.raises(IndexingError, match="not readable"):
        decode(without_length(data)[:-100])


def flipped(flac: bytes) -> bytes:
    """Return a FLAC whose header promises 2^36 samples."""
    data = bytearray(flac)
    data[21:26] = bytes((data[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF))
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: written("FLAC", np.zeros(600 * RATE, np.float32)), "600.0"),
        (lambda folder: without_length(written("FLAC", np.zeros(600 * RATE, np.float32))), "more than 61.[0-9]"),
        (lambda folder: flipped(written("FLAC")), "4294967.3"),
        (lambda folder: muxed("mp4", "aac", folder, np.zeros(200 * RATE, np.float32)), "200.1"),
    ],
    ids=["flac", "flac of unknown length", "flipped bits", "mp4"],
)
def test_a_small_file_can_not_become_much_audio(make: Callable[[Path], bytes], said: str, tmp_path: Path) -> None:
    data = make(tmp_path)
    assert len(data) < 500_000
    tracemalloc.start()
    try:
        with pytest.raises(IndexingError, match=f"^too long: {said} s, at most 60.0 s"):
            read_audio(data)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_what_is_too_large_is_not_decoded() -> None:
    data = bytearray(written("FLAC", np.stack([noise()] * 2, axis=1), 48000))
    data[22:26] = (100_000_000).to_bytes(4, "big")  # samples: half an hour
    with pytest.raises(IndexingError, match="too large: 800000000 bytes once decoded, at most 536870912"):
        decode(bytes(data))


def test_an_mp3_of_variable_bit_rate_without_a_header_is_read_to_its_end(tmp_path: Path) -> None:
    silence_then_noise = np.concatenate([noise(3.0), np.zeros(3 * RATE, np.float32)])
    data = muxed("mp3", "libmp3lame", tmp_path, silence_then_noise, write_xing="0")
    assert len(decode(data)[0]) / RATE == pytest.approx(6.0, abs=0.2)


@pytest.mark.parametrize(
    ("peak", "reason"),
    [(1.37, None), (32767.0, "beyond full scale: its peak is 32767, at most 2.0"), (3.3, "beyond full scale")],
)
def test_a_codecs_overshoot_is_accepted_and_another_scale_refused(peak: float, reason: str | None) -> None:
    samples = noise()
    data = written("WAV", samples / np.abs(samples).max() * peak, subtype="FLOAT")
    if reason is None:
        assert np.abs(read_audio(data)[0]).max() == pytest.approx(peak)
    else:
        with pytest.raises(IndexingError, match=reason):
            read_audio(data)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"ffconcat version 1.0\nfile 'http://127.0.0.1:9/a.wav'\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n",
        bytes(5000),
    ],
)
def test_playlists_and_what_is_no_audio_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    for source in (tmp_path / "a.mp4", content):
        with pytest.raises(IndexingError, match="not readable as audio: its format is not recognised"):
            decode(source)


def test_a_name_is_never_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:/127.0.0.1:9/a.mp4", "tcp:/x", "concat:a|b", "a\0b"):
        with pytest.raises(IndexingError, match="no such file|not readable"):
            decode(Path(name))
    Path("http:/127.0.0.1:9").mkdir(parents=True)
    Path("http:/127.0.0.1:9/a.mp4").write_bytes(FILES["mp4"](tmp_path))
    assert len(decode(Path("http:/127.0.0.1:9/a.mp4"))[0])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    for path in (tmp_path / "a.wav", tmp_path):
        with pytest.raises(IndexingError, match="not readable: it is not a file"):
            decode(path)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("array is too big"), RuntimeError("x"), OSError(5, "x")])
def test_any_error_of_a_decoder_is_the_reason_of_its_file(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise error

    (tmp_path / "a.wav").write_bytes(written("WAV"))
    monkeypatch.setattr(audio_io, "decode_libsndfile", fail)
    assert str(probe_file(tmp_path / "a.wav", None, IndexConfig())).startswith("not readable")


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "short": (lambda: written("WAV", noise(0.1)), "too short: 0.100 s, at least 0.2 s"),
    "long": (lambda: written("FLAC", noise(61.0)), "too long: 61.0 s, at most 60.0 s"),
    "silent": (lambda: written("WAV", np.zeros(RATE, np.float32)), "silent: rms below 0.0001"),
    "nan": (lambda: written("WAV", np.full(RATE, np.nan, np.float32), subtype="FLOAT"), "not finite"),
    "half": (lambda: written("WAV")[:5000], "truncated: its header promises 96000 bytes of audio, 4956 are there"),
    "slow": (lambda: written("WAV", noise(), 1000), "rate too low: 1000 Hz, at least 8000 Hz"),
    "fast": (lambda: written("WAV", noise(), 400_000), "rate too high: 400000 Hz, at most 192000 Hz"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "empty": (lambda: b"", "the file is empty (0 bytes)"),
}


def test_index_prediction_and_command_line_refuse_in_the_same_words(micro: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.wav" for name in UNUSABLE]
    for path, (make, reason) in zip(paths, UNUSABLE.values(), strict=True):
        path.write_bytes(make())
        assert reason in str(probe_file(path, None, IndexConfig()))
    good = tmp_path / "good.wav"
    good.write_bytes(written("WAV"))
    expected = {str(path): str(probe_file(path, None, IndexConfig())) for path in paths}
    expected[str(tmp_path / "none.wav")] = "there is no such file"
    zeros = torch.zeros(128)
    head = Head(labels=("angry", "sad"), cosine=False, weight=torch.zeros(2, 128), bias=zeros[:2], mean=zeros)
    model = EmotionClassifier(micro, head)
    answers = dict(model.predict_each([good, *expected, good]))
    assert isinstance(answers.pop(str(good)), list)
    assert {path: answer.what for path, answer in answers.items() if isinstance(answer, IndexingError)} == expected
    with pytest.raises(IndexingError) as caught:
        model.predict([*expected, good])
    assert [child.what for child in caught.value.children] == [f"{path}: {why}" for path, why in expected.items()]


@pytest.mark.parametrize(
    ("values", "rate", "reason"),
    [
        (noise(), 0, "rate too low"),
        (noise(), 10**30, "rate too high"),
        (noise(), "fast", "not readable as audio"),
        (["a"], RATE, "not readable as audio"),
        ([[0.1, 0.2]], RATE, "samples of 2 dimensions"),
        ([], RATE, "holds no samples"),
        ([1e300] * RATE, RATE, "not finite"),
        ([1e38, -1e38] * RATE, RATE, "beyond full scale"),
        ([1.01, -1.0] * RATE, RATE, "beyond full scale: its peak is 1.01, at most 1.0"),
    ],
)
def test_given_samples_are_held_to_the_same_rules(values: Any, rate: Any, reason: str) -> None:
    assert read_samples(noise().tolist(), RATE)[0].shape == (3 * RATE, 1)
    with pytest.raises(IndexingError, match=reason):
        read_samples(values, rate)


def test_audio_is_read_when_it_is_needed_and_not_before() -> None:
    read: list[str] = []

    def reader(item: str) -> tuple[NDArray[np.float32], int]:
        read.append(item)
        return noise(0.5)[:, None], RATE

    usable = read_usable([(name, name) for name in "abc"], reader)
    next(usable)
    assert read == ["a"]
    assert len(list(usable)) == 2


def test_all_unusable_noises_are_named(tmp_path: Path) -> None:
    for name in ("half", "silent", "nan"):
        (tmp_path / f"{name}.wav").write_bytes(UNUSABLE[name][0]())
    soundfile.write(tmp_path / "minutes.flac", noise(90.0), RATE)
    with pytest.raises(IndexingError) as caught:
        read_noises(str(tmp_path))
    assert len(caught.value.children) == 3 and "half.wav: truncated" in str(caught.value)
    for name in ("half", "silent", "nan"):
        (tmp_path / f"{name}.wav").unlink()
    assert [len(each) for each in read_noises(str(tmp_path))] == [90 * RATE]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"path": "a.wav"}, None),
        ({"path": "../secret.wav"}, "its path lies outside of the folder"),
        ({"path": "/etc/passwd"}, "its path lies outside of the folder"),
        ({"path": "link.wav"}, "its path lies outside of the folder"),
        ({"path": "http:/127.0.0.1:9/a.mp4"}, "there is no such file"),
        ({"path": "a\0b"}, "its path can't be used"),
        ({"audio": base64.b64encode(written("WAV")).decode()}, None),
        ({"audio": base64.urlsafe_b64encode(written("WAV")).decode()}, None),
        ({"audio": base64.encodebytes(written("WAV")).decode()}, None),
        ({"audio": base64.b64encode(written("WAV")).decode()[:-1]}, "its audio is not base64"),
        ({"audio": "data:audio/wav;base64,UklGRg=="}, "its audio is not base64"),
        ({"audio": 5}, "its audio is not base64"),
        ({"audio": base64.b64encode(UNUSABLE["half"][0]()).decode()}, UNUSABLE["half"][1]),
        ({"samples": [0.1, -0.1] * RATE, "sample_rate": 1}, "rate too low: 1 Hz, at least 8000 Hz"),
        ({"samples": [0.1, -0.1] * RATE}, "has no audio"),
    ],
)
def test_a_request_is_read_as_a_file_is(
    row: dict[str, Any], reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clepdg_tasks.tracking import pyfunc_model

    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "a.wav").write_bytes(written("WAV"))
    (tmp_path / "secret.wav").write_bytes(written("WAV"))
    (tmp_path / "allowed" / "link.wav").symlink_to(tmp_path / "secret.wav")
    monkeypatch.setenv(pyfunc_model.FOLDER, str(tmp_path / "allowed"))
    if reason is None:
        np.testing.assert_array_equal(pyfunc_model._read(row)[0], decode(written("WAV"))[0])
    else:
        with pytest.raises(IndexingError, match=reason):
            pyfunc_model._read(row)
    monkeypatch.delenv(pyfunc_model.FOLDER)
    if "path" in row:
        with pytest.raises(IndexingError, match=f"`path` is not allowed.*{pyfunc_model.FOLDER}"):
            pyfunc_model._read(row)
