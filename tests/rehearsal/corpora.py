"""Write small trees of the five open corpora under real names.

Recordings are real where ../shared/corpora has them, else generated.
"""

import csv
import io
import random
import zipfile
from collections.abc import Callable
from functools import cache
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import soundfile
from numpy.typing import NDArray

from clepdg.corpora import crema_d, emodb, ravdess, tess
from clepdg.corpora.parsing import Utterance
from clepdg.corpora.voice import synthesize
from tests.conftest import CORPORA
from tests.unit import trees

ROOT = Path(__file__).resolve().parents[2]
LIKE = {  # raw label -> emotion that the generated voice has
    **{label: "angry" for label in ("angry", "anger", "ANG", "disgust", "DIS")},
    **{label: "happy" for label in ("happy", "happiness", "joy", "HAP", "surprised", "surprise", "ps")},
    **{label: "neutral" for label in ("neutral", "NEU", "calm", "boredom")},
    **{label: "sad" for label in ("sad", "sadness", "SAD", "fearful", "fear", "FEA")},
}
RAVDESS_ACTORS = ("01", "02", "03", "04", "05", "06", "15")  # test 03 05, validation 02 15
CREMA_D_ACTORS = ("1001", "1002", "1003", "1049", "1053", "1063", "1068")  # validation 1049 1053, test 1063 1068
EMODB_SPEAKERS = ("03", "08", "09", "10", "11", "14", "16")  # validation 11 16, test 09 10 14
# gas, late, goal, kick, check and south are of the validation part
TESS_WORDS = (
    "bite gas beg late moon rose goal pad dime kick hush jug third red check sail luck lid south dab fat".split()
)
MELD_SPEAKERS = {"train": ("Joey", "Rachel", "Monica"), "dev": ("Rachel",), "test": ("Joey",)}
MELD_WOMEN = ("Rachel", "Monica", "Phoebe")
MELD_LABELS = ("anger", "joy", "neutral", "sadness")
MELD_OTHERS = ("surprise", "disgust", "fear")


def build_ravdess(root: Path, per_class: int) -> None:
    """Write Actor_NN/ folders: 48 kHz, one of the stereo files among them."""
    real = _recordings("ravdess_actors_01-06.zip")
    takes = [(i, s, r) for r, i, s in product(("01", "02"), ("01", "02"), ("01", "02"))]
    codes = {label: code for code, label in ravdess.LABELS.items()}
    for actor in RAVDESS_ACTORS:
        for label in ("angry", "happy", "neutral", "sad"):
            usable = [take for take in takes if label != "neutral" or take[0] == "01"]
            for intensity, statement, repetition in usable[:per_class]:
                name = f"03-01-{codes[label]}-{intensity}-{statement}-{repetition}-{actor}.wav"
                _put(root, f"Actor_{actor}/{name}", ravdess.parse, "ravdess", 48000, real)
    for name in ("02-01-01-02-01", "06-01-01-01-02", "07-01-01-01-03", "08-01-01-01-04"):
        _put(root, f"Actor_{name[-2:]}/03-01-{name}.wav", ravdess.parse, "ravdess", 48000, real)


def build_crema_d(root: Path, per_class: int) -> None:
    """Write AudioWAV/ with names of the corpus's table, 16 kHz, generated."""
    with (ROOT / "data_manifests" / "crema-d.files.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    wanted = [(actor, emotion, per_class) for actor in CREMA_D_ACTORS for emotion in ("ANG", "HAP", "NEU", "SAD")]
    wanted += [("1001", "DIS", 1), ("1002", "FEA", 1)]
    for actor, emotion, count in wanted:
        spoken = [name for name in names if name.startswith(actor) and f"_{emotion}_" in name]
        for name in spoken[:count]:
            _put(root, f"AudioWAV/{name}", crema_d.parse, "crema-d", 16000, {})


def build_tess(root: Path, per_class: int) -> None:
    """Write all files in one folder: 24,414 Hz, one of them 96 kHz."""
    real = _recordings("tess_36_words.zip")
    words = TESS_WORDS[: 3 * per_class]
    wanted = [*product(("OAF", "YAF"), ("angry", "happy", "neutral", "sad"), words)]
    wanted += [("OAF", "fear", "food"), ("OAF", "disgust", "beg"), ("OAF", "ps", "beg")]
    wanted += [("YAF", "fear", "beg"), ("YAF", "disgust", "beg"), ("YAF", "ps", "beg")]
    for speaker, label, word in wanted:
        written = "OA" if (speaker, word, label) == ("OAF", "bite", "neutral") else speaker  # misnamed in the corpus
        rate = 96000 if (speaker, word, label) == ("OAF", "food", "fear") else 24414
        _put(root, f"{written}_{word}_{label}.wav", tess.parse, "tess", rate, real)


def build_emodb(root: Path, per_class: int) -> None:
    """Write wav/, the table erkennung.txt and a text: 16 kHz."""
    real = _recordings("emodb_4_emotions.zip")
    names = list[str]()
    for speaker, code in product(EMODB_SPEAKERS, "WFNT"):
        known = sorted(name for name in real if name.startswith(speaker) and name[5] == code)
        made = (f"{speaker}{text}{code}{take}.wav" for take, text in product(ascii_lowercase, emodb.TEXTS))
        names += islice([*known, *(name for name in made if name not in real)], per_class)
    names += ["03a01Ea.wav", "08a01Aa.wav", "03a02La.wav"]
    for name in names:
        _put(root, f"wav/{name}", emodb.parse, "emodb", 16000, real)
    lines = [f"{name}\t100,00\t{random.Random(name).randint(80, 100)},00" for name in sorted(names)]
    trees.text(root / "erkennung.txt", "\r\n".join(["Satz\terkannt\tnatürlich", *lines, ""]).encode("latin-1"))
    trees.text(root / "erklaerung.txt", "Benennung der Dateien\r\n".encode("latin-1"))


def build_meld(root: Path, per_class: int) -> None:
    """Write an unpacked MELD.Raw: mp4 clips and one table per part."""
    for part, folder in trees.MELD_FOLDERS.items():
        wanted = [*product(MELD_SPEAKERS[part], MELD_LABELS, range(per_class))]
        wanted += [("Phoebe", label, 0) for label in MELD_OTHERS] if part == "train" else []
        rows = []
        for number, (speaker, label, _) in enumerate(wanted):
            dialogue, utterance = divmod(number, 5)
            clip = root / "MELD.Raw" / folder / f"dia{dialogue}_utt{utterance}.mp4"
            clip.parent.mkdir(parents=True, exist_ok=True)
            _put_clip(clip, _spoken(f"{part}_{clip.stem}", speaker, label))
            rows.append(_meld_row(number, dialogue, utterance, speaker, label))
        below = root / "MELD.Raw" / folder if part == "train" else root / "MELD.Raw"
        trees.table(below / f"{part}_sent_emo.csv", rows)


BUILDERS: dict[str, Callable[[Path, int], None]] = {
    "ravdess": build_ravdess,
    "crema-d": build_crema_d,
    "tess": build_tess,
    "emodb": build_emodb,
    "meld": build_meld,
}


@cache
def _recordings(archive: str) -> dict[str, bytes]:
    """Return {file name: content} of an archive, {} if it is absent."""
    path = CORPORA / archive
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as file:
        return {Path(name).name: file.read(name) for name in file.namelist() if name.endswith(".wav")}


def _put(root: Path, path: str, parse: Callable[[str], object], corpus: str, rate: int, real: dict[str, bytes]) -> None:
    """Write the real recording of this name, or generated speech."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.name in real:
        target.write_bytes(real[target.name])
        return
    spoken = parse(path)
    if not isinstance(spoken, Utterance):
        raise ValueError(f"{path} is not of the grammar of {corpus}")
    buffer = io.BytesIO()
    soundfile.write(buffer, _voice(spoken, corpus, rate), rate, format="WAV", subtype="PCM_16")
    target.write_bytes(buffer.getvalue())


def _voice(spoken: Utterance, corpus: str, rate: int) -> NDArray[np.float32]:
    """Return generated speech (T,) with a noise floor."""
    speech = synthesize(spoken, LIKE[spoken.raw_label], corpus, rate, 0)
    floor = np.random.default_rng(list(spoken.name.encode())).normal(0, 10 ** (-60 / 20), len(speech))
    return np.clip(speech + floor, -0.95, 0.95).astype(np.float32)


def _spoken(name: str, speaker: str, label: str) -> Utterance:
    gender = "female" if speaker in MELD_WOMEN else "male"
    return Utterance(
        path=f"{name}.mp4", name=name, speaker=speaker, gender=gender, language="en", raw_label=label, text=name,
        transcript=None,
    )  # fmt: skip


def _put_clip(path: Path, spoken: Utterance) -> None:
    """Write a clip with a picture and an AAC track."""
    import av

    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=48000)
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        sound = av.AudioFrame.from_ndarray(_voice(spoken, "meld", 48000)[None], format="fltp", layout="mono")
        sound.sample_rate = 48000
        for packets in (video.encode(picture), video.encode(), audio.encode(sound), audio.encode()):
            container.mux(packets)


def _meld_row(number: int, dialogue: int, utterance: int, speaker: str, label: str) -> dict[str, object]:
    sentiments = {"joy": "positive", "neutral": "neutral", "surprise": "positive"}
    return {
        "Sr No.": number + 1,
        "Utterance": "Oh my God, he\u0092s lost it.",
        "Speaker": speaker,
        "Emotion": label,
        "Sentiment": sentiments.get(label, "negative"),
        "Dialogue_ID": dialogue,
        "Utterance_ID": utterance,
        "Season": 4,
        "Episode": 7,
        "StartTime": "00:20:57,256",
        "EndTime": "00:21:00,049",
    }
