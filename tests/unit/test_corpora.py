"""Protects the reading of file names: every audio file of a tree becomes the right utterance or a finding."""

import csv
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

from clepdg.corpora import CORPORA, crema_d
from clepdg.corpora.cards import load_card
from clepdg.corpora.parsing import Finding, Utterance

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def read(grammar: str, root: Path, *paths: str) -> list[Utterance | Finding]:
    return list(CORPORA[grammar](touch(root, *paths)))


EXAMPLES = {
    "ravdess": Utterance(
        path="Actor_12/03-01-06-02-02-01-12.wav",
        name="03-01-06-02-02-01-12",
        speaker="12",
        gender="female",
        language="en",
        raw_label="fearful",
        text="02",
        transcript="Dogs are sitting by the door",
    ),
    "tess": Utterance(
        path="YAF_angry/YAF_mop_ps.wav",  # the folder is wrong: the file decides
        name="YAF_mop_ps",
        speaker="YAF",
        gender="female",
        language="en",
        raw_label="ps",
        text="mop",
        transcript="Say the word mop",
    ),
    "emodb": Utterance(
        path="wav/10b03Ta.wav",
        name="10b03Ta",
        speaker="10",
        gender="male",
        language="de",
        raw_label="sadness",
        text="b03",
        transcript="An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    ),
    "savee": Utterance(
        path="AudioData/KL/su15.wav",
        name="KL_su15",
        speaker="KL",
        gender="male",
        language="en",
        raw_label="surprise",
        text="su15",
        transcript=None,
    ),
    "esd": Utterance(
        path="0003/Sad/0003_001053.wav",
        name="0003_001053",
        speaker="0003",
        gender=None,
        language="zh",
        raw_label="sad",
        text="zh003",
        transcript=None,
        notes=("no line in the speaker's text file",),
    ),
    "crema-d": Utterance(
        path="AudioWAV/1091_IEO_DIS_LO.wav",
        name="1091_IEO_DIS_LO",
        speaker="1091",
        gender="female",
        language="en",
        raw_label="DIS",
        text="IEO",
        transcript="It's eleven o'clock",
    ),
}


@pytest.mark.parametrize("grammar", EXAMPLES)  # the others read tables as well: test_trees.py
def test_a_file_name_gives_its_utterance(grammar: str, tmp_path: Path) -> None:
    assert read(grammar, tmp_path, EXAMPLES[grammar].path) == [EXAMPLES[grammar]]


@pytest.mark.parametrize(
    ("grammar", "path"),
    [
        ("ravdess", "03-01-09-01-01-01-01.wav"),  # no such emotion
        ("ravdess", "03-01-05-01-01-01-25.wav"),  # no such actor
        ("ravdess", "03-01-05-01-01-01-01 (copy).wav"),
        ("ravdess", "03-01-05-01-01-01-00.flac"),
        ("tess", "OAF_back_surprised.wav"),
        ("tess", "XAF_back_sad.wav"),
        ("emodb", "04a01Fa.wav"),  # no such speaker
        ("emodb", "03a03Fa.wav"),  # no such text
        ("emodb", "03a01Xa.wav"),  # no such emotion
        ("savee", "DC/s01.wav"),  # neither sadness nor surprise
        ("savee", "DC/n31.wav"),
        ("esd", "0021/Sad/0021_001053.wav"),
        ("esd", "0011/Neutral/0011_000000.wav"),
        ("crema-d", "1092_IEO_ANG_LO.wav"),
        ("crema-d", "1000_IEO_ANG_LO.wav"),
        ("crema-d", "1001_IEO_SUR_LO.wav"),
    ],
)
def test_a_name_outside_the_grammar_is_a_finding(grammar: str, path: str, tmp_path: Path) -> None:
    (finding,) = read(grammar, tmp_path, path)
    assert isinstance(finding, Finding)
    assert finding.path == path
    assert "grammar" in finding.reason


def test_song_and_video_of_ravdess_are_findings_that_say_so(tmp_path: Path) -> None:
    song, video = read("ravdess", tmp_path, "a/03-02-05-01-01-01-01.wav", "b/01-01-05-01-01-01-01.wav")
    assert isinstance(song, Finding) and "song" in song.reason
    assert isinstance(video, Finding) and "modality 01" in video.reason


def test_misnamed_files_keep_their_speaker_and_are_noted(tmp_path: Path) -> None:
    (tess,) = read("tess", tmp_path / "tess", "OAF_neutral/OA_bite_neutral.wav")
    (crema,) = read("crema-d", tmp_path / "crema-d", "1040_ITH_SAD_X.wav")
    assert isinstance(tess, Utterance) and (tess.speaker, tess.notes) == ("OAF", ("misnamed",))
    assert isinstance(crema, Utterance) and (crema.speaker, crema.notes) == ("1040", ("misnamed",))


def test_of_a_doubled_tree_the_second_copy_is_found(tmp_path: Path) -> None:
    first, second = read(
        "ravdess", tmp_path, "Actor_01/03-01-05-01-01-01-01.wav", "again/Actor_01/03-01-05-01-01-01-01.wav"
    )
    assert isinstance(first, Utterance)
    assert isinstance(second, Finding)
    assert second.path.startswith("again/") and first.path in second.reason


def test_only_what_is_no_audio_is_passed_over(tmp_path: Path) -> None:
    items = read(
        "crema-d",
        tmp_path,
        "AudioWAV/1001_DFA_ANG_XX.WAV",
        "AudioWAV/._1001_DFA_ANG_XX.wav",  # AppleDouble
        "__MACOSX/AudioWAV/1001_DFA_ANG_XX.wav",
        ".cache/1001_DFA_ANG_XX.wav",
        "AudioMP3/1001_DFA_ANG_XX.mp3",  # the same recordings once more
        "README.md",
        "stray.mp3",
    )
    assert [item.path for item in items] == ["AudioWAV/1001_DFA_ANG_XX.WAV", "stray.mp3"]
    assert isinstance(items[0], Utterance) and isinstance(items[1], Finding)


def test_utterances_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    paths = ["wav/16b10Wb.wav", "wav/03a01Fa.wav", "a/08a01Na.wav", "wav/03a01Nc.wav"]
    assert [item.path for item in read("emodb", tmp_path, *paths)] == sorted(paths)


def test_all_names_of_crema_d_are_read_and_give_the_counts_of_its_card() -> None:
    listing = SHARED / "crema_d_sha256.csv"
    if not listing.exists():
        pytest.skip(f"{listing} is not here")
    with listing.open() as file:
        items = [crema_d.parse(row["filename"]) for row in csv.DictReader(file)]
    spoken = [item for item in items if isinstance(item, Utterance)]
    card = load_card("crema-d")
    genders = Counter({item.speaker: item.gender for item in spoken}.values())
    assert len(spoken) == len(items) == card.expected.utterances
    assert Counter(item.raw_label for item in spoken) == card.expected.emotions
    assert genders == {"male": 48, "female": 43}
    parts = Counter({item.speaker: card.split.part(item.speaker, item.text) for item in spoken}.values())
    assert parts == {"train": 56, "validation": 17, "test": 18}


@pytest.mark.parametrize(
    ("archive", "grammar", "utterances", "speakers"),
    [
        ("ravdess_actors_01-06.zip", "ravdess", 360, 6),
        ("tess_36_words.zip", "tess", 503, 2),
        ("emodb_resampled_5_speakers.zip", "emodb", 243, 5),
    ],
)
def test_all_names_of_real_archives_are_read(
    archive: str, grammar: str, utterances: int, speakers: int, tmp_path: Path
) -> None:
    if not (SHARED / archive).exists():
        pytest.skip(f"{SHARED / archive} is not here")
    names = [name for name in zipfile.ZipFile(SHARED / archive).namelist() if not name.endswith("/")]
    spoken = [item for item in read(grammar, tmp_path, *names) if isinstance(item, Utterance)]
    assert len(spoken) == utterances
    assert len({item.speaker for item in spoken}) == speakers


STRAYS = {
    "ravdess": ("Actor_01/03-01-05-01-01-01-02.wav", "Actor_02/03-01-05-01-01-01-02.wav", "actor 02"),
    "tess": ("OAF_angry/YAF_back_angry.wav", "YAF_angry/YAF_back_angry.wav", "speaker YAF"),
    "savee": ("DC/JE_a01.wav", "JE/JE_a01.wav", "speaker JE"),
    "esd": ("0011/Sad/0012_001053.wav", "0012/Sad/0012_001053.wav", "speaker 0012"),
}


@pytest.mark.parametrize("grammar", STRAYS)
@pytest.mark.parametrize("alone", [False, True])
def test_a_file_in_another_speakers_folder_displaces_none(grammar: str, alone: bool, tmp_path: Path) -> None:
    stray, genuine, called = STRAYS[grammar]
    items = {item.path: item for item in read(grammar, tmp_path, stray, *([] if alone else [genuine]))}
    folder = PurePosixPath(stray).parts[0]
    assert items.pop(stray) == Finding(path=stray, reason=f"lies in {folder}, is named {called}")
    assert alone or isinstance(items[genuine], Utterance)


@pytest.mark.parametrize(
    ("grammar", "kept", "other"),
    [
        ("ravdess", "Actor_02/03-01-05-01-01-01-02.wav", "AAA/03-01-05-01-01-01-02.wav"),
        ("ravdess", "Actor_02/03-01-05-01-01-01-02.wav", "Actor_02/03-01-05-01-01-01-02.flac"),
        ("ravdess", "z/Actor_02/03-01-05-01-01-01-02.wav", "03-01-05-01-01-01-02.wav"),
        ("ravdess", "Actor_02/03-01-05-01-01-01-02.flac", "03-01-05-01-01-01-02.wav"),
        ("crema-d", "AudioWAV/1001_IEO_DIS_LO.wav", "A/b/1001_IEO_DIS_LO.wav"),
        ("emodb", "wav/03a01Fa.wav", "wav/03a01Fa.mp4"),
        ("savee", "DC/a01.wav", "ALL/DC_a01.wav"),
    ],
)
def test_of_files_with_one_name_the_one_in_its_place_is_kept(
    grammar: str, kept: str, other: str, tmp_path: Path
) -> None:
    items = {item.path: item for item in read(grammar, tmp_path, kept, other)}
    finding = items[other]
    assert isinstance(items[kept], Utterance) and isinstance(finding, Finding)
    assert finding.reason.startswith(f"the same name as {kept}")


def test_a_name_in_another_case_is_a_finding_that_says_so(tmp_path: Path) -> None:
    (finding,) = read("tess", tmp_path, "oaf_back_SAD.wav")
    assert isinstance(finding, Finding) and "upper and lower case" in finding.reason
