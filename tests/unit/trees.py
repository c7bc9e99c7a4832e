"""Trees of the licensed and large corpora in their real layout, in small, with the faults that are known of them."""

import csv
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

APPLE_DOUBLE = b"\x00\x05\x16\x07\xb0\xff not utf-8"


def noise(seed: str, seconds: float, rate: int) -> NDArray[np.float32]:
    """Return noise (T,) that belongs to a name."""
    generator = np.random.default_rng(list(seed.encode()))
    return (0.1 * generator.standard_normal(int(seconds * rate))).astype(np.float32)


def put(path: Path, rate: int, *, seconds: float = 0.4, sounds_like: str | None = None) -> Path:
    """Write a sound file, of its own noise or of another name's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = noise(sounds_like or str(path.name), seconds, rate)
    if path.suffix == ".mp4":
        return _put_mp4(path, samples, rate)
    soundfile.write(path, samples, rate)
    return path


def _put_mp4(path: Path, samples: NDArray[np.float32], rate: int) -> Path:
    """Write a clip with a picture and an AAC track, as those of a video corpus are."""
    import av

    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=rate)
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate = rate
        for stream, frame in ((video, picture), (audio, sound)):
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def text(path: Path, content: str | bytes) -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def table(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file."""
    rows = list(rows)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text(path, buffer.getvalue())


def savee(root: Path) -> Path:
    """Four speakers' folders with two utterances of each code; AudioData holds the text that lies beside them."""
    for speaker in ("DC", "JE", "JK", "KL"):
        for code in ("a", "d", "f", "h", "n", "sa", "su"):
            for number in ("01", "02"):
                put(root / "AudioData" / speaker / f"{code}{number}.wav", 44100, sounds_like=f"{speaker}{code}{number}")
    text(root / "Info.txt", "about")
    put(root / "AudioData" / "XX" / "a01.wav", 44100)  # no such speaker
    put(root / "AudioData" / "DC" / "a16.wav", 44100)  # no such sentence
    return root


EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
CHINESE = ("中立", "生气", "快乐", "伤心", "惊喜")


def esd(root: Path) -> Path:
    """Six speakers, one utterance per emotion; text files in four encodings, one copy with evaluation folders."""
    encodings = {
        "0005": "gb18030",
        "0007": "utf-16",
        "0002": "utf-8",
        "0012": "utf-8-sig",
        "0013": "utf-8",
        "0016": "ascii",
    }
    for speaker, encoding in encodings.items():
        lines = []
        for number, emotion in enumerate(EMOTIONS):
            name = f"{speaker}_{350 * number + 7:06d}"
            below = ("evaluation",) if speaker == "0013" else ()
            put(root.joinpath(speaker, emotion, *below, f"{name}.wav"), 16000)
            word = CHINESE[number] if int(speaker) <= 10 else emotion
            said = "打远一看，它们的确很是美丽，" if int(speaker) <= 10 else "The nine the eggs, I keep."
            lines.append(f"{name}\t{said}\t{word}")
        text(root / speaker / f"{speaker}.txt", ("\n".join(lines) + "\n").encode(encoding))
    put(root / "0002" / "Happy" / "0002_000008.wav", 16000)  # not in the text file
    put(root / "0012" / "Sad" / "0012_000357.wav", 16000, sounds_like="another")  # a copy of Angry's, among the sad
    put(root / "0016" / "Angry" / "0016_001751.wav", 16000)  # no such number
    return root


def iemocap(root: Path) -> Path:
    """Five sessions below IEMOCAP_full_release, two dialogues each, with what lies beside turns and labels."""
    codes = ("neu", "ang", "sad", "hap", "exc", "fru", "xxx", "oth")
    for session in range(1, 6):
        folder = root / "IEMOCAP_full_release" / f"Session{session}"
        for wearer, scenario in (("F", "impro01"), ("M", "script01_1b")):
            dialogue = f"Ses0{session}{wearer}_{scenario}"
            labels = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
            words = []
            for number, code in enumerate(codes):
                turn = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
                put(folder / "sentences" / "wav" / dialogue / f"{turn}.wav", 16000, seconds=0.7)
                labels.append(f"[{number}.2901 - {number}.9357]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]")
                labels += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
                words.append(f"{turn} [00{number}.2901-00{number}.9357]: Excuse me.")
            text(folder / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", "\n".join(labels))
            text(folder / "dialog" / "transcriptions" / f"{dialogue}.txt", "\n".join(words))
            text(folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialogue}_e2_cat.txt", "x :Neutral; ()")
            put(folder / "dialog" / "wav" / f"{dialogue}.wav", 16000)  # the whole dialogue: not read
            text(folder / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt", APPLE_DOUBLE)
            text(folder / "sentences" / "wav" / dialogue / f"._{dialogue}_F000.wav", APPLE_DOUBLE)
    first = root / "IEMOCAP_full_release" / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    put(first / "Ses01F_impro01_F099.wav", 16000)  # no label
    (first / "Ses01F_impro01_F002.wav").unlink()  # a label without audio
    return root


def msp_podcast(root: Path, *, older: bool = False) -> Path:
    """A release with all parts and labels; `older` spells two names as releases before 1.12 do."""
    audio = root / ("Audio" if older else "Audios")
    rows, partition = [], []
    parts = {"Train": 6, "Development": 4, "Test1": 4, "Test2": 2, "Test3": 2}
    for podcast, (part, count) in enumerate(parts.items(), start=1):
        for turn in range(count * 2):
            name = f"MSP-PODCAST_{podcast:04d}_{turn:04d}.wav"
            put(audio / name, 16000)
            partition.append(f"{part}; {name}")
            unknown = part == "Train" and turn == 0
            row = {
                "FileName": name,
                "EmoClass": "ASHUFDCNOX"[turn % 10],
                "EmoAct": 4.0,
                "EmoVal": 3.5,
                "EmoDom": 4.2,
                "SpkrID": "Unknown" if unknown else 100 * podcast + turn % 2,
                "Gender": "Unknown" if unknown else ("Female", "Male")[turn % 2],
                "Split_Set": part,
            }
            if part != "Test3":
                rows.append(row)
    table(root / "Labels" / f"labels_con{'c' if older else 's'}ensus.csv", rows)
    text(root / "Partition.txt", "\n".join(partition) + "\n")
    text(root / "Transcripts" / "MSP-PODCAST_0001_0003.txt", "so that is that\n")
    put(audio / "MSP-PODCAST_0009_0001.wav", 16000)  # in no table
    (audio / "MSP-PODCAST_0002_0001.wav").unlink()
    return root


MELD_FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}


def meld(root: Path) -> Path:
    """The unpacked MELD.Raw: three parts whose names repeat, with missing, broken, unlabelled and overlong clips."""
    emotions = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
    for part, folder in MELD_FOLDERS.items():
        clips = root / "MELD.Raw" / folder
        rows = []
        for number, emotion in enumerate(emotions):
            put(clips / f"dia0_utt{number}.mp4", 48000, sounds_like=f"{part}{number}")
            rows.append(_meld_row(number, 0, number, ("Joey", "Ross ")[number % 2], emotion))
        if part == "train":
            text(clips / "dia125_utt3.mp4", b"\x00\x00\x00\x1cftypisom broken")
            rows.append(_meld_row(7, 125, 3, "The Waitress", "joy"))
            put(clips / "dia1_utt0.mp4", 48000, seconds=0.06)
            rows.append(_meld_row(8, 1, 0, "Chandler", "anger"))
            put(clips / "dia309_utt0.mp4", 48000)
            rows.append(_meld_row(9, 309, 0, "Monica", "joy"))  # withdrawn by the card, as the two of test are
        if part == "dev":
            rows.append(_meld_row(7, 110, 7, "Phoebe", "joy"))  # no clip
            put(clips / "dia66_utt9.mp4", 48000)  # no label
            text(clips / "._dia0_utt0.mp4", APPLE_DOUBLE)
        if part == "test":
            for number, (dialogue, utterance) in enumerate(((38, 4), (220, 0)), start=7):
                put(clips / f"dia{dialogue}_utt{utterance}.mp4", 48000)
                rows.append(_meld_row(number, dialogue, utterance, "Rachel", "fear"))
            put(clips / "final_videos_testdia101_utt0.mp4", 48000)
        below = root / "MELD.Raw" / folder if part == "train" else root / "MELD.Raw"
        table(below / f"{part}_sent_emo.csv", rows)
    return root


def _meld_row(number: int, dialogue: int, utterance: int, speaker: str, emotion: str) -> dict[str, object]:
    return {
        "Sr No.": number + 1,
        "Utterance": "Oh my God, he\u0092s lost it.",
        "Speaker": speaker,
        "Emotion": emotion,
        "Sentiment": "neutral",
        "Dialogue_ID": dialogue,
        "Utterance_ID": utterance,
        "Season": 4,
        "Episode": 7,
        "StartTime": "00:20:57,256",
        "EndTime": "00:21:00,049",
    }


def meld_archive(tree: Path, path: Path) -> Path:
    """Pack an unpacked MELD.Raw as it is published: a tar.gz of one tar.gz per part and two tables."""
    top = tree / "MELD.Raw"
    with tarfile.open(path, "w:gz") as outer:
        for part, folder in MELD_FOLDERS.items():
            inner = path.with_name(f"{part}.tar.gz")
            with tarfile.open(inner, "w:gz") as tar:
                tar.add(top / folder, folder)
            outer.add(inner, f"MELD.Raw/{inner.name}")
        for name in _names(top, "*.csv"):
            outer.add(top / name, f"MELD.Raw/{name}")
    return path


def _names(folder: Path, pattern: str) -> Iterator[str]:
    return (path.name for path in sorted(folder.glob(pattern)))


def any_corpus(root: Path) -> Path:
    """A folder with a table: three speakers by split, and lines that can't be used."""
    rows = []
    for speaker, split in (("ann", "train"), ("bob", "validation"), ("eve", "test")):
        for number, label in enumerate(("cross", "glad", "cross", "glad")):
            path = f"{speaker}/take.{number}.wav"
            put(root / path, 22050, sounds_like=path)
            rows.append({"path": path, "speaker": speaker, "label": label, "split": split, "gender": "female"})
    rows.append({"path": "ann/gone.wav", "speaker": "ann", "label": "glad", "split": "train", "gender": ""})
    rows.append({"path": "../secret.wav", "speaker": "ann", "label": "glad", "split": "train", "gender": ""})
    rows.append({"path": "ann/take.0.wav", "speaker": "", "label": "glad", "split": "train", "gender": ""})
    put(root / "stray.wav", 22050)
    table(root / "utterances.csv", rows)
    return root


def crema_d(root: Path) -> Path:
    """Two actors of each part of the split, with all faults that are known of the corpus's copies."""
    for actor in (1001, 1002, 1049, 1050, 1063, 1068):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            put(root / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav", 16000)
    for one, other in (
        ("1006_TIE_HAP", "1006_TIE_NEU"),
        ("1013_WSI_DIS", "1013_WSI_SAD"),
        ("1017_IWW_ANG", "1017_IWW_FEA"),
    ):
        for name in (one, other):
            put(root / "AudioWAV" / f"{name}_XX.wav", 16000, sounds_like=one)
    soundfile.write(root / "AudioWAV" / "1076_MTI_SAD_XX.wav", np.zeros(41093, np.float32), 16000)  # 2.57 s of nothing
    put(root / "AudioWAV" / "1040_ITH_SAD_X.wav", 16000)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:c6f94b25\nsize 72862\n"
    text(root / "AudioWAV" / "1003_DFA_ANG_XX.wav", pointer)
    for name in ("1076_MTI_NEU_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD"):  # only their mp3 are broken
        put(root / "AudioWAV" / f"{name}.wav", 16000)
        text(root / "AudioMP3" / f"{name}.mp3", b"ID3\x03 and no duration")
    put(root / "AudioMP3" / "1001_DFA_ANG_XX.wav", 16000)  # repeats AudioWAV
    return root


def ravdess(root: Path) -> Path:
    """Five actors, with the stereo, the quiet and the identical files, one of a song, and all of it once more below."""
    stems = [f"03-01-{e:02d}-01-01-01-{a:02d}" for a in (1, 2, 5, 9, 20) for e in range(1, 9)]
    stereo = {f"{stem}-{actor}": actor for actor, names in RAVDESS_STEREO.items() for stem in names}
    for stem in {*stems, *stereo, "03-01-03-01-02-01-07", "03-01-03-01-02-02-07", "03-01-04-01-02-01-09"}:
        samples = noise("03-01-03-01-02-01-07" if stem.endswith("-07") else stem, 0.4, 48000)
        if stem == "03-01-04-01-02-01-09":
            samples *= 6.5e-4 / samples.std()
        path = root / f"Actor_{stem[-2:]}" / f"{stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.stack([samples, samples], 1) if stem in stereo else samples, 48000)
    for path in sorted(root.glob("Actor_*/*.wav")):
        again = root / "audio_speech_actors_01-24" / path.relative_to(root)
        again.parent.mkdir(parents=True, exist_ok=True)
        again.write_bytes(path.read_bytes())
    put(root / "Actor_01" / "03-02-04-01-01-01-01.wav", 48000)
    return root


RAVDESS_STEREO = {
    "01": ("03-01-02-01-01-02", "03-01-08-01-02-02"),
    "05": ("03-01-02-01-02-02",),
    "20": ("03-01-03-01-02-01", "03-01-06-01-01-02"),
}


def tess(root: Path) -> Path:
    """Both actresses, with a mirror's folder names, the misnamed and the odd file, and a second copy of the tree."""
    for speaker, folders in (("OAF", ("Fear", "Sad", "angry")), ("YAF", ("fear", "sad", "angry"))):
        for folder in folders:
            for word in ("back", "bar", "base", "bath", "bean", "beg", "bite", "boat", "bone", "book"):
                put(root / f"{speaker}_{folder}" / f"{speaker}_{word}_{folder.lower()}.wav", 24414)
    put(root / "OAF_neutral" / "OA_bite_neutral.wav", 24414)
    put(root / "OAF_Pleasant_surprise" / "OAF_bite_ps.wav", 24414)
    put(root / "YAF_pleasant_surprised" / "YAF_bite_ps.wav", 24414)
    put(root / "OAF_Fear" / "OAF_food_fear.wav", 96000)
    put(root / "again" / "OAF_Sad" / "OAF_back_sad.wav", 24414)
    return root
