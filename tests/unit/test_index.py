"""Protects the index: every fault of a file is found, named and counted; digests change when they must."""

import io
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from clepdg.config.schema import IndexConfig
from clepdg.corpora.cards import Address, Card, Expected, load_card
from clepdg.dataset.index import build_index
from clepdg.dataset.tables import digests, read_quarantine, read_utterances, write_index
from clepdg.dataset.validate import check
from clepdg.errors import CorpusError
from clepdg.hashing import digest_file

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
RATE = 16000
CARD = load_card("ravdess")
Index = tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]


def noise(seed: int, seconds: float = 0.5) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def name(actor: int = 1, emotion: int = 5, repetition: int = 1) -> str:
    return f"Actor_{actor:02d}/03-01-{emotion:02d}-01-01-{repetition:02d}-{actor:02d}"


def put(root: Path, stem: str, samples: NDArray[np.float32] | bytes, rate: int = RATE, subtype: str = "PCM_16") -> None:
    path = root / f"{stem}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(samples, bytes):
        path.write_bytes(samples)
    else:
        soundfile.write(path, samples, rate, subtype=subtype)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a sound corpus: actors 01 (train), 02 (validation) and 03 (test), angry and sad, twice each."""
    for actor in (1, 2, 3):
        for emotion in (4, 5):
            for repetition in (1, 2):
                put(tmp_path, name(actor, emotion, repetition), noise(100 * actor + 10 * emotion + repetition))
    return tmp_path


CARD_OF_ROOT = replace(
    CARD,
    split=replace(CARD.split, validation=("02",), test=("03",)),
    expected=Expected(utterances=12, speakers=3, sample_rate=RATE, emotions={"angry": 6, "sad": 6}),
)


def build(root: Path, card: Card = CARD_OF_ROOT, **options: Any) -> Index:
    return build_index(root, {}, card, IndexConfig(), **options)


def noted(utterances: pd.DataFrame) -> dict[str, list[str]]:
    return {row.utterance_id: row.notes for row in utterances.itertuples() if row.notes}


def test_a_sound_corpus_gives_one_row_each_sorted_and_nothing_in_quarantine(root: Path) -> None:
    utterances, quarantine, figures = build(root)
    assert quarantine.empty and len(utterances) == 12
    assert list(utterances.utterance_id) == sorted(utterances.utterance_id)
    row = utterances.iloc[0].to_dict()
    assert row == {
        "utterance_id": "ravdess/03-01-04-01-01-01-01",
        "corpus": "ravdess",
        "speaker": "ravdess/01",
        "gender": "male",
        "language": "en",
        "raw_label": "sad",
        "emotion": "sad",
        "split": "train",
        "cluster": "ravdess/01",
        "rms_db": -20.01,
        "path": "Actor_01/03-01-04-01-01-01-01.wav",
        "sample_rate": RATE,
        "num_samples": RATE // 2,
        "sha256": digest_file(root / "Actor_01/03-01-04-01-01-01-01.wav"),
        "text": "01",
        "transcript": "Kids are talking by the door",
        "notes": [],
    }
    assert figures["splits"] == {"train": 4, "validation": 4, "test": 4}
    assert figures["seconds"] == pytest.approx(6.0)
    check(figures, CARD_OF_ROOT, allow_partial=False)


def halved(root: Path, stem: str, kind: str = "WAV") -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(1, 1.0), RATE, format=kind, subtype="PCM_16")
    put(root, stem, buffer.getvalue()[: len(buffer.getvalue()) // 2])


HEADER_ONLY = b"RIFF\x24\x00\x00\x00WAVEfmt "


def big_endian(samples: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="PCM_16", endian="BIG")
    assert buffer.getvalue().startswith(b"RIFX")
    return buffer.getvalue()


ERRORS: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "text": (lambda root, stem: put(root, stem, b"not audio at all"), "not readable as audio"),
    "header only": (lambda root, stem: put(root, stem, HEADER_ONLY), "not readable as audio"),
    "half a wav": (halved, "truncated: its header promises 32000 bytes of audio, 15978 are there"),
    "half a big-endian wav": (lambda root, stem: put(root, stem, big_endian(noise(1, 1.0))[:-2]), "truncated"),
    "half an aiff": (lambda root, stem: halved(root, stem, "AIFF"), "truncated"),
    "half a flac": (lambda root, stem: halved(root, stem, "FLAC"), "truncated or damaged"),
    "zero bytes": (lambda root, stem: put(root, stem, b""), "empty"),
    "no samples": (lambda root, stem: put(root, stem, np.zeros(0, np.float32)), "no samples"),
    "git lfs": (
        lambda root, stem: put(root, stem, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "git lfs pull",
    ),
    "nan": (
        lambda root, stem: put(root, stem, np.where(np.arange(8000) == 7, np.nan, noise(1)), subtype="FLOAT"),
        "not finite",
    ),
    "silent": (lambda root, stem: put(root, stem, np.zeros(8000, np.float32)), "silent"),
    "constant": (lambda root, stem: put(root, stem, np.full(8000, 0.1, np.float32)), "silent"),
    "opposite channels": (lambda root, stem: put(root, stem, np.stack([noise(1), -noise(1)], 1)), "silent"),
    "short": (lambda root, stem: put(root, stem, noise(1, 0.1)), "too short: 0.100 s"),
    "long": (lambda root, stem: put(root, stem, noise(1, 61)), "too long: 61.0 s"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_a_file_with_an_error_is_quarantined_with_its_reason_and_the_rest_kept(fault: str, root: Path) -> None:
    write, reason = ERRORS[fault]
    write(root, name(1, 5, 1))
    utterances, quarantine, figures = build(root)
    (row,) = quarantine.to_dict("records")
    assert row["utterance_id"] == "ravdess/03-01-05-01-01-01-01"
    assert row["path"] == "Actor_01/03-01-05-01-01-01-01.wav"
    assert reason in row["reason"]
    assert str(root) not in row["reason"]
    assert len(utterances) == 11 and figures["quarantined"] == 1
    assert figures["found"]["utterances"] == 12


def test_all_faults_are_found_in_one_pass(root: Path) -> None:
    for repetition, write in ((1, ERRORS["text"][0]), (2, ERRORS["silent"][0])):
        write(root, name(2, 4, repetition))
    put(root, "Actor_01/noname", noise(5))
    put(root, f"again/{name(3, 4, 1)}", noise(6))
    _, quarantine, figures = build(root)
    reasons = dict(zip(quarantine.path, quarantine.reason, strict=True))
    assert len(reasons) == figures["quarantined"] == 4
    assert "grammar" in reasons["Actor_01/noname.wav"]
    assert "the same name as Actor_03" in reasons[f"again/{name(3, 4, 1)}.wav"]
    assert quarantine.utterance_id.isna().sum() == 2
    assert quarantine.path.is_monotonic_increasing


def test_a_label_that_the_map_does_not_know_is_an_error_and_one_it_leaves_empty_is_kept(root: Path) -> None:
    card = replace(CARD_OF_ROOT, labels={"sad": ""})
    utterances, quarantine, figures = build(root, card)
    assert set(quarantine.reason) == {"the card's label map does not know the raw label angry"}
    assert list(utterances.emotion) == [None] * 6
    assert figures["emotions"] == {"none": 6}


def test_identical_files_with_different_labels_are_both_quarantined(root: Path) -> None:
    put(root, name(1, 4, 1), noise(1))
    put(root, name(1, 5, 1), noise(1))
    utterances, quarantine, _ = build(root)
    assert len(utterances) == 10
    assert list(quarantine.utterance_id) == ["ravdess/03-01-04-01-01-01-01", "ravdess/03-01-05-01-01-01-01"]
    assert quarantine.reason[0] == ("the same bytes as ravdess/03-01-05-01-01-01-01, which is labelled angry, not sad")


def test_identical_files_with_one_label_are_kept_and_noted_once(root: Path) -> None:
    put(root, name(1, 4, 1), noise(1))
    put(root, name(1, 4, 2), noise(1))
    utterances, quarantine, figures = build(root)
    assert quarantine.empty
    assert noted(utterances) == {"ravdess/03-01-04-01-01-02-01": ["the same bytes as ravdess/03-01-04-01-01-01-01"]}
    assert figures["notes"] == {"the same bytes": 1}


def test_files_of_other_bytes_that_sound_the_same_are_found(root: Path) -> None:
    put(root, name(1, 4, 1), np.stack([noise(1), noise(1)], 1))
    put(root, name(1, 4, 2), noise(1))
    put(root, name(2, 4, 1), noise(2))
    stored, _ = soundfile.read(root / f"{name(2, 4, 1)}.wav", dtype="float32")
    put(root, name(2, 5, 1), stored, subtype="FLOAT")
    utterances, quarantine, _ = build(root)
    assert utterances.set_index("utterance_id").notes["ravdess/03-01-04-01-01-02-01"] == [
        "the same audio as ravdess/03-01-04-01-01-01-01"
    ]
    assert list(quarantine.reason) == [
        "the same audio as ravdess/03-01-05-01-01-01-02, which is labelled angry, not sad",
        "the same audio as ravdess/03-01-04-01-01-01-02, which is labelled sad, not angry",
    ]


def test_a_copy_of_what_is_learnt_is_not_tested_on(root: Path) -> None:
    for actor in (1, 2, 3):  # train, validation, test
        put(root, name(actor, 4, 1), noise(1))
    utterances, quarantine, _ = build(root)
    assert "ravdess/03-01-04-01-01-01-01" in set(utterances.utterance_id)
    assert list(quarantine.utterance_id) == ["ravdess/03-01-04-01-01-01-02", "ravdess/03-01-04-01-01-01-03"]
    assert all("it would test what is learnt" in reason for reason in quarantine.reason)


def test_oddities_that_do_no_harm_are_notes(root: Path) -> None:
    put(root, name(1, 4, 1), np.stack([noise(1), noise(1)], 1))
    put(root, name(1, 4, 2), noise(2, 1.0), rate=2 * RATE)
    put(root, name(1, 5, 1), np.clip(20 * noise(3), -1, 1))
    utterances, quarantine, figures = build(root)
    assert quarantine.empty
    assert noted(utterances) == {
        "ravdess/03-01-04-01-01-01-01": ["stereo"],
        "ravdess/03-01-04-01-01-02-01": ["odd rate"],
        "ravdess/03-01-05-01-01-01-01": ["clipped"],
    }
    assert figures["notes"] == {"clipped": 1, "odd rate": 1, "stereo": 1}
    assert figures["sample_rate"] == RATE
    check(figures, CARD_OF_ROOT, allow_partial=False)


def test_a_peak_at_full_scale_is_not_clipping(root: Path) -> None:
    peaked = noise(4)
    put(root, name(1, 4, 1), peaked / np.abs(peaked).max())
    assert build(root)[2]["notes"] == {}


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_does_not_know_its_size_and_is_whole(size: int, root: Path) -> None:
    path = root / f"{name(1, 4, 1)}.wav"
    data = bytearray(path.read_bytes())
    data[4:8] = data[data.index(b"data") + 4 : data.index(b"data") + 8] = struct.pack("<I", size)
    path.write_bytes(data)
    utterances, quarantine, _ = build(root)
    assert quarantine.empty and set(utterances.num_samples) == {RATE // 2}


def test_bytes_behind_the_audio_are_no_fault(root: Path) -> None:
    path = root / f"{name(1, 4, 1)}.wav"
    path.write_bytes(path.read_bytes() + b"LIST\x40\0\0\0cut")
    assert build(root)[1].empty


@pytest.mark.parametrize(("kept", "notes"), [(0.5, {"nothing but zeros at its end": 1}), (0.7, {})])
def test_a_file_whose_end_was_never_written_is_noted(kept: float, notes: dict[str, int], root: Path) -> None:
    samples = noise(5)
    samples[int(kept * len(samples)) :] = 0
    put(root, name(1, 4, 1), samples)
    assert build(root)[2]["notes"] == notes


def test_excluded_speakers_and_utterances_are_left_out_and_counted(root: Path) -> None:
    card = replace(CARD_OF_ROOT, exclude=("ravdess/01", "ravdess/03-01-04-01-01-01-02"))
    utterances, quarantine, figures = build(root, card)
    assert quarantine.empty
    assert "ravdess/01" not in set(utterances.speaker) and len(utterances) == 7
    assert figures["excluded"] == 5
    assert figures["found"]["utterances"] == 12


def test_an_exclusion_that_excludes_nothing_is_refused_in_a_whole_copy_and_told_in_a_part(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = replace(CARD_OF_ROOT, exclude=("ravdess/03-01-04-01-01-01-01", "ravdess/1", "ravdess/03-01-04-01-01-01-99"))
    figures = build(root, card)[2]
    assert figures["excluded"] == 1
    message = refusal(figures, card, allow_partial=False)
    for entry in ("ravdess/1", "ravdess/03-01-04-01-01-01-99"):
        assert f"the card excludes {entry}, which is not there" in message
    assert card.exclude[0] not in message
    check(figures, card, allow_partial=True)
    assert "ravdess/03-01-04-01-01-01-99, which is not there" in caplog.text


def test_a_speaker_of_the_split_who_is_not_there_is_refused_in_a_whole_copy_and_told_in_a_part(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = replace(CARD_OF_ROOT, split=replace(CARD.split, validation=("02",), test=("03", "o1")))
    figures = build(root, card)[2]
    assert figures["absent"] == ["o1"]
    assert "split names speakers who are not there (check the spelling): o1" in refusal(
        figures, card, allow_partial=False
    )
    check(figures, card, allow_partial=True)
    assert "who are not there (check the spelling): o1" in caplog.text


def test_files_that_are_not_the_published_ones_are_refused_in_a_whole_copy(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("manifests")
    monkeypatch.setattr("clepdg.config.manifests.MANIFESTS", folder)
    sums = {path.relative_to(root).as_posix(): digest_file(path) for path in root.rglob("*.wav")}
    rows = [f"{Path(path).name},1,{value}" for path, value in sums.items()]
    (folder / "files.csv").write_text("\n".join(["path,bytes,sha256", *rows]))
    card = replace(CARD_OF_ROOT, sources=(Address(url="http://127.0.0.1:1/", files="files.csv"),))
    figures = build_index(root, sums, card, IndexConfig())[2]
    assert figures["published"] == {"listed": 12, "altered": 0}
    check(figures, card, allow_partial=False)
    altered = sums | dict.fromkeys(list(sums)[:5], "f" * 64)
    figures = build_index(root, altered, card, IndexConfig())[2]
    assert "5 of 12 files are not the published ones (sha256)" in refusal(figures, card, allow_partial=False)
    check(figures, card, allow_partial=True)


def test_a_label_that_the_card_lacks_is_answered_with_where_to_add_it(root: Path) -> None:
    for labels, missing in (({"sad": "sad"}, "angry"), ({"calm": "calm"}, "angry, sad")):
        card = replace(CARD_OF_ROOT, labels=labels)
        message = refusal(build(root, card)[2], card, allow_partial=False)
        assert re.search(rf"do: add {missing} to \[labels\] in .*ravdess.toml", message)


def test_git_lfs_pointers_are_counted_and_their_cure_is_the_advice(root: Path) -> None:
    paths = sorted(root.rglob("*.wav"))
    for path in paths[:7]:
        ERRORS["git lfs"][0](root, path.relative_to(root).with_suffix("").as_posix())
    message = refusal(build(root)[2], CARD_OF_ROOT, allow_partial=False)
    assert "7 of 12 files are git lfs pointers" in message and "do: run git lfs pull" in message
    for path in paths:
        ERRORS["git lfs"][0](root, path.relative_to(root).with_suffix("").as_posix())
    message = refusal(build(root)[2], CARD_OF_ROOT, allow_partial=False)
    assert "12 of 12 files are git lfs pointers" in message and "do: run git lfs pull" in message
    assert "--source" not in message


def test_a_refusal_says_where_all_faults_are(root: Path) -> None:
    ERRORS["silent"][0](root, name(1, 5, 1))
    with pytest.raises(CorpusError, match="every fault: /store/index/key/quarantine.parquet"):
        check(build(root)[2], CARD_OF_ROOT, allow_partial=False, place="/store/index/key")


def test_the_hash_of_the_source_is_taken_over(root: Path) -> None:
    path = f"{name(1, 4, 1)}.wav"
    utterances, _, _ = build_index(root, {path: "f" * 64}, CARD_OF_ROOT, IndexConfig())
    assert utterances.set_index("path").sha256[path] == "f" * 64


def test_threads_and_place_change_nothing_and_progress_ends(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ERRORS["text"][0](root, name(1, 5, 1))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    root.rename(elsewhere)
    seen: list[tuple[int, int]] = []
    one = build(elsewhere)
    elsewhere.rename(root)
    many = build(root, workers=3, progress=lambda done, total: seen.append((done, total)))
    assert digests(*one[:2]) == digests(*many[:2])
    assert one[2] == many[2]
    assert seen == [(n, 12) for n in range(1, 13)]


def test_tables_come_back_as_they_were_written_and_byte_for_byte(root: Path, tmp_path: Path) -> None:
    ERRORS["text"][0](root, name(1, 5, 1))
    put(root, "noname", noise(5))
    utterances, quarantine, _ = build(root, replace(CARD_OF_ROOT, labels={"sad": "", "angry": "angry"}))
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_index(folder, utterances, quarantine)
    pd.testing.assert_frame_equal(read_utterances(folders[0]), utterances)
    pd.testing.assert_frame_equal(read_quarantine(folders[0]), quarantine)
    assert digests(read_utterances(folders[0]), read_quarantine(folders[0])) == digests(utterances, quarantine)
    assert None in set(read_utterances(folders[0]).emotion)
    for file in ("utterances.parquet", "quarantine.parquet"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


def test_an_empty_index_can_be_written_and_read(tmp_path: Path) -> None:
    utterances, quarantine, figures = build(tmp_path)
    write_index(tmp_path, utterances, quarantine)
    assert read_utterances(tmp_path).empty and read_quarantine(tmp_path).empty
    assert figures["sample_rate"] is None


def changed(before: Index, after: Index) -> set[str]:
    old, new = digests(*before[:2]), digests(*after[:2])
    return {part for part in old if old[part] != new[part]}


def test_digests_change_when_and_only_when_what_they_stand_for_does(root: Path) -> None:
    before = build(root)
    assert changed(before, build(root)) == set()
    relabelled = replace(CARD_OF_ROOT, labels={**CARD.labels, "sad": "bored"})
    assert changed(before, build(root, relabelled)) == {"content", "learning"}
    resplit = replace(CARD_OF_ROOT, split=replace(CARD.split, validation=("01", "02")))
    assert changed(before, build(root, resplit)) == {"content", "audio", "learning"}
    put(root, name(3, 4, 1), noise(999))  # test audio
    assert changed(before, build(root)) == {"content", "audio"}


def refusal(figures: Mapping[str, Any], card: Card, *, allow_partial: bool) -> str:
    with pytest.raises(CorpusError) as caught:
        check(figures, card, allow_partial=allow_partial)
    return str(caught.value)


@pytest.mark.parametrize("allow_partial", [True, False])
def test_an_empty_corpus_is_always_refused(allow_partial: bool, tmp_path: Path) -> None:
    assert "no audio file" in refusal(build(tmp_path)[2], CARD, allow_partial=allow_partial)
    ERRORS["git lfs"][0](tmp_path, name())
    assert "git lfs pull" in refusal(build(tmp_path)[2], CARD, allow_partial=allow_partial)


@pytest.mark.parametrize("actor", [1, 2, 3])
def test_an_empty_part_is_always_refused_by_name(actor: int, root: Path) -> None:
    for path in (root / f"Actor_{actor:02d}").iterdir():
        path.unlink()
    part = {1: "train", 2: "validation", 3: "test"}[actor]
    for allow_partial in (False, True):
        message = refusal(build(root)[2], CARD_OF_ROOT, allow_partial=allow_partial)
        assert f"no utterance in {part}" in message and "[split]" in message
        assert "--allow-partial" not in message


def test_all_differences_stand_in_one_refusal_and_partial_accepts_them(root: Path) -> None:
    figures = build(root)[2]
    message = refusal(figures, CARD, allow_partial=False)
    for part in ("utterances: 12, not 1440", "speakers: 3, not 24", "usual rate in Hz: 16000, not 48000"):
        assert part in message
    assert "raw label sad: 6, not 192" in message and "raw label calm: 0, not 192" in message
    assert "--allow-partial" in message
    check(figures, CARD, allow_partial=True)


def test_more_errors_than_the_card_allows_are_refused_with_their_reasons(root: Path) -> None:
    ERRORS["silent"][0](root, name(1, 5, 1))
    figures = build(root)[2]
    message = refusal(figures, CARD_OF_ROOT, allow_partial=False)
    assert "1 of 12 files" in message and "silent" in message
    check(figures, CARD_OF_ROOT, allow_partial=True)
    check(figures, replace(CARD_OF_ROOT, allowed_errors=0.1), allow_partial=False)


def test_an_unnamed_file_is_no_utterance_of_the_count(root: Path) -> None:
    put(root, "noname", noise(5))
    check(build(root)[2], replace(CARD_OF_ROOT, allowed_errors=0.1), allow_partial=False)
    (root / f"{name(1, 5, 1)}.wav").unlink()
    assert "utterances: 11, not 12" in refusal(
        build(root)[2], replace(CARD_OF_ROOT, allowed_errors=0.1), allow_partial=False
    )


ALTERED = {"of one length, 2 s": 243, "with a peak at full scale": 150, "ending in more than 0.1 s of zeros": 54}


@pytest.mark.parametrize(
    ("archive", "corpus", "splits", "rate", "notes", "alterations"),
    [
        ("ravdess_actors_01-06", "ravdess", (180, 60, 120), 48000, {"stereo": 3, "unusual spectrum": 1}, {}),
        (
            "tess_36_words",
            "tess",
            (203, 49, 251),
            24414,
            {"clipped": 1, "misnamed": 1, "odd rate": 1, "unusual spectrum": 1},
            {},
        ),
        ("emodb_resampled_5_speakers", "emodb", (107, 55, 81), 22050, {}, ALTERED),
    ],
)
def test_real_speech_is_indexed(
    archive: str,
    corpus: str,
    splits: tuple[int, ...],
    rate: int,
    notes: dict[str, int],
    alterations: dict[str, int],
    tmp_path: Path,
) -> None:
    if not (SHARED / f"{archive}.zip").exists():
        pytest.skip(f"{SHARED / archive}.zip is not here")
    zipfile.ZipFile(SHARED / f"{archive}.zip").extractall(tmp_path)
    card = load_card(corpus)
    utterances, quarantine, figures = build_index(tmp_path, {}, card, IndexConfig(), workers=2)
    assert quarantine.empty
    assert tuple(figures["splits"].values()) == splits
    assert (figures["notes"], figures["alterations"]) == (notes, alterations)
    assert figures["sample_rate"] == rate
    assert set(figures["emotions"]) == set(card.emotions)
    check(figures, card, allow_partial=True)
    assert "utterances" in refusal(figures, card, allow_partial=False)


def test_importing_the_index_is_cheap() -> None:
    heavy = "{'pandas', 'pyarrow', 'soundfile', 'scipy', 'torch'}"
    code = f"import sys, clepdg.dataset.index; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
