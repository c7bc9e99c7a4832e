"""Parse MSP-Podcast.

Turns of real podcasts with a Creative Commons licence, rated by a crowd: 207,136 turns in release 1.12, 324 hours, 16
kHz, mono. Mostly American English. Its own partition: Train, Development, Test1, Test2 (other podcasts) and Test3
(labels hidden). Speakers overlap between the test parts, and a part of Train has unknown ones.

Address:  https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html (signed agreement; no open address)
Licence:  academic licence
Citation: Lotfian R, Busso C (2019). Building naturalistic emotionally balanced speech corpus by retrieving emotional
          speech from existing podcast recordings. IEEE Transactions on Affective Computing 10(4): 471-483.

Tree: Audios/MSP-PODCAST_0001_0008.wav (older releases: Audio/), Labels/labels_consensus.csv (labels_concensus.csv),
      Partition.txt, Transcripts/<turn>.txt
Labels: A angry, S sad, H happy, U surprise, F fear, D disgust, C contempt, N neutral, O other, X no agreement
A turn that only Partition.txt names, as those of Test3, has the raw label "hidden".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import (
    Finding,
    Utterance,
    add_unlisted,
    audio_files,
    find_nearest,
    read_rows,
    read_text,
    relative,
)

NAME: Final = re.compile(r"MSP-PODCAST_([0-9]+)_[0-9]+(?:_[0-9]+)?")
PARTITION: Final = re.compile(r".*?\b(Train|Development|Test[1-9])\b.*?(MSP-PODCAST_[0-9_]+)(?:\.wav)?.*")
COLUMNS: Final = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
HIDDEN: Final = "hidden"


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of an MSP-Podcast tree.

    Raises:
        CorpusError: there is no table of labels, or it lacks a column.
    """
    table, *_ = find_nearest(
        root, "Labels/labels_consensus.csv", "Labels/labels_concensus.csv", "labels_con[sc]ensus.csv",
        needed_by="MSP-Podcast",
    )  # fmt: skip
    top = table.parents[1] if table.parent.name == "Labels" else table.parent
    folder = next((top / name for name in ("Audios", "Audio") if (top / name).is_dir()), top / "Audios")
    audio = {Path(path).stem: relative(root, folder / path) for path in audio_files(folder)}
    rows = read_rows(table, COLUMNS)
    named = {Path(row["FileName"]).stem for row in rows}
    rows += [
        {"FileName": name, "EmoClass": HIDDEN, "SpkrID": "Unknown", "Gender": "Unknown", "Split_Set": part}
        for name, part in _partition(top).items()
        if name not in named and name in audio
    ]
    words = top / "Transcripts"
    listed = (_turn(row, audio, relative(root, folder), words if words.is_dir() else None) for row in rows)
    yield from add_unlisted(listed, audio.values())


def _partition(top: Path) -> dict[str, str]:
    """Return {turn: part} of Partition.txt, or {} where there is none."""
    tables = [path for name in ("Partition.txt", "Partitions.txt") if (path := top / name).exists()]
    found = (PARTITION.fullmatch(line) for path in tables for line in read_text(path).splitlines())
    return {match[2]: match[1] for match in found if match}


def _turn(row: dict[str, str], audio: dict[str, str], folder: str, words: Path | None) -> Utterance | Finding:
    name = Path(row["FileName"]).stem
    path = audio.get(name) or f"{folder}/{name}.wav"
    match = NAME.fullmatch(name)
    if match is None:
        return Finding(path=path, reason=f"its name is not of the corpus's grammar {NAME.pattern}")
    transcript = words / f"{name}.txt" if words else None
    return Utterance(
        path=path,
        name=name,
        speaker=row["SpkrID"] or "Unknown",
        gender={"Female": "female", "Male": "male"}.get(row["Gender"]),
        language="en",
        raw_label=row["EmoClass"] or HIDDEN,
        text=match[1],  # the podcast
        transcript=read_text(transcript, "utf-8-sig", "latin-1").strip()
        if transcript and transcript.exists()
        else None,
        part=row["Split_Set"],
    )
