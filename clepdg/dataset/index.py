"""Index a corpus: one row per utterance, and a quarantine of faulty files.

A file's fault is an error (it is quarantined, with a reason) or a note (it is kept and counted): stereo, odd rate,
clipped, misnamed, duplicate, unusual length, peak or spectrum. Nothing is skipped silently: every audio file of the
tree is an utterance, a row of the quarantine, or excluded by the card.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from clepdg.audio.formats import POINTER
from clepdg.config.manifests import find
from clepdg.config.schema import IndexConfig
from clepdg.corpora import parse
from clepdg.corpora.cards import SPLITS, Card, published
from clepdg.corpora.parsing import Finding, Utterance
from clepdg.dataset import emobox
from clepdg.dataset.duplicates import Fingerprint, find_duplicates
from clepdg.dataset.outliers import find_alterations, find_outliers
from clepdg.dataset.probe import Probe, probe_file
from clepdg.dataset.tables import (
    COLUMNS,
    QUARANTINE_COLUMNS,
    Row,
    build_frame,
    digests,
    read_quarantine,
    read_utterances,
    write_index,
)
from clepdg.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["build_index", "digests", "read_quarantine", "read_utterances", "write_index"]

REASONS_SHOWN: Final = 5

Progress = Callable[[int, int], None]


def build_index(
    root: Path,
    sha256: Mapping[str, str],
    card: Card,
    config: IndexConfig,
    *,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> "tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]":
    """Index a corpus: parse file names, decode all files, find faults.

    1. Names: the parser of the card's grammar reads each one; names outside the grammar are quarantined.
    2. Exclusions and labels: the card's exclusions are left out, labels missing in its map are quarantined.
    3. Audio: every file is decoded, in `workers` threads.
    4. Duplicates: where their labels differ, all are quarantined; where they agree, those in a later part of the split
       (they would test on training data) are quarantined and the others noted.
    5. Outliers: files unlike the others are noted; what alters the whole corpus is counted in the figures.

    Args:
        root: folder that the corpus's paths are relative to.
        sha256: relative path -> sha256 of the file, of stage source; other files are hashed here.
        progress: called with (files done, files in all).

    Returns:
        Utterances (`COLUMNS`) sorted by utterance_id, quarantine (path, utterance_id or None, reason) sorted by path,
        and figures: what was `found` (utterances, speakers and raw labels of the names, usable or not) and what is
        kept.
    """
    items = parse(card.grammar, root)
    spoken = {f"{card.name}/{item.name}": item for item in items if isinstance(item, Utterance)}
    unlisted = set[str]()
    if card.split.emobox:
        place = emobox.folder_of(card.name, card.split.emobox)
        parts = emobox.parts_of((item.name for item in spoken.values()), emobox.read_fold(place), place)
        unlisted = {key for key, item in spoken.items() if item.name not in parts}
        spoken = {key: replace(item, part=parts.get(item.name)) for key, item in spoken.items()}
    if card.split.parts and spoken and not any(item.part for item in spoken.values()):
        raise CorpusError(
            f"No utterance of {card.name} says its part of the split.",
            got='unit = "official" in the card, and no column split',
            expected=f"a column split with {', '.join(card.split.parts)}",
            where=find(f"{card.name}.toml"),
            do='add the column to the table, or set unit = "speaker", validation and test under [split] in the card',
        )
    excluded = {key for key, item in spoken.items() if {key, f"{card.name}/{item.speaker}"} & set(card.exclude)}
    excluded |= {key for key, item in spoken.items() if card.split.parts.get(item.part or "") == ""}  # left out
    excluded |= unlisted
    wanted = {key: item for key, item in sorted(spoken.items()) if key not in excluded}

    errors: dict[str, str] = {}
    probes: dict[str, Probe] = {}
    probe = partial(_probe, root=root, sha256=sha256, card=card, config=config)
    with ThreadPoolExecutor(workers) as pool:  # decoding and hashing release the GIL
        try:
            for done, (key, result) in enumerate(zip(wanted, pool.map(probe, wanted.values()), strict=True), start=1):
                if isinstance(result, Probe):
                    probes[key] = result
                else:
                    errors[key] = result
                progress(done, len(wanted))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # a stopped run does not wait for all files
            raise

    refused, duplicates = find_duplicates({key: _fingerprint(each, wanted[key], card) for key, each in probes.items()})
    errors |= refused
    kept = {key: probe for key, probe in probes.items() if key not in refused}
    usual = _usual_rate(kept.values())
    measures = {key: probe.measures for key, probe in kept.items()}
    notes = {
        key: [*([duplicates[key]] if key in duplicates else []), *own] for key, own in find_outliers(measures).items()
    }
    utterances = [_row(key, wanted[key], probe, card, usual, notes[key]) for key, probe in kept.items()]
    quarantine = [_quarantined(item.path, None, item.reason) for item in items if isinstance(item, Finding)]
    quarantine += [_quarantined(wanted[key].path, key, reason) for key, reason in errors.items()]
    quarantine.sort(key=lambda row: str(row["path"]))
    figures = _figures(utterances, quarantine, spoken, len(excluded), usual)
    speakers = {item.speaker for item in spoken.values()}
    known = {*spoken, *(f"{card.name}/{speaker}" for speaker in speakers)}
    figures["unmatched"] = [entry for entry in card.exclude if entry not in known]
    figures["absent"] = sorted({*card.split.validation, *card.split.test} - speakers)
    figures["alterations"] = find_alterations(measures)
    figures["published"] = _published(spoken.values(), sha256, card)
    return build_frame(utterances, COLUMNS), build_frame(quarantine, QUARANTINE_COLUMNS), figures


def _probe(spoken: Utterance, *, root: Path, sha256: Mapping[str, str], card: Card, config: IndexConfig) -> Probe | str:
    if spoken.raw_label not in card.labels:
        return f"the card's label map does not know the raw label {spoken.raw_label}"
    if card.split.parts and (spoken.part or "") not in card.split.parts:
        known = ", ".join(card.split.parts)
        return (
            f"the card's split does not know the part {spoken.part}, only {known}"
            if spoken.part
            else f"no part of the split ({known})"
        )
    return probe_file(root / spoken.path, sha256.get(spoken.path), config)


def _quarantined(path: str, utterance_id: str | None, reason: str) -> Row:
    return {"path": path, "utterance_id": utterance_id, "reason": reason}


def _fingerprint(probe: Probe, spoken: Utterance, card: Card) -> Fingerprint:
    part = SPLITS.index(_split(spoken, card))
    return Fingerprint(sha256=probe.sha256, audio=probe.sound, raw_label=spoken.raw_label, part=part)


def _split(spoken: Utterance, card: Card) -> str:
    part = card.split.part(spoken.speaker, spoken.text, spoken.part)
    assert part is not None, "excluded utterances are left out before"
    return part


def _crossing(utterances: Iterable[Row]) -> list[str]:
    """Return the speakers that are in more than one part of the split."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for row in utterances:
        parts[row["speaker"]].add(row["split"])
    return sorted(speaker for speaker, own in parts.items() if len(own) > 1)


def _published(spoken: Iterable[Utterance], sha256: Mapping[str, str], card: Card) -> dict[str, int]:
    """Count files that the card's sha256 table lists, and those that differ."""
    sums = published(card)
    listed = [(sha256[item.path], sums.get(PurePosixPath(item.path).name)) for item in spoken if item.path in sha256]
    return {
        "listed": sum(wanted is not None for _, wanted in listed),
        "altered": sum(w not in (None, g) for g, w in listed),
    }


def _usual_rate(probes: Iterable[Probe]) -> int | None:
    counts = Counter(probe.sample_rate for probe in probes)
    return max(counts, key=lambda rate: (counts[rate], -rate), default=None)


def _row(key: str, spoken: Utterance, probe: Probe, card: Card, usual: int | None, notes: list[str]) -> Row:
    odd = ["odd rate"] if probe.sample_rate != usual else []
    return {
        "utterance_id": key,
        "corpus": card.name,
        "speaker": f"{card.name}/{spoken.speaker}",
        "gender": spoken.gender,
        "language": spoken.language or card.language,
        "raw_label": spoken.raw_label,
        "emotion": card.labels[spoken.raw_label] or None,
        "split": _split(spoken, card),
        "cluster": f"{card.name}/{spoken.cluster or spoken.speaker}",
        "path": spoken.path,
        "sample_rate": probe.sample_rate,
        "num_samples": probe.num_samples,
        "rms_db": probe.rms_db,
        "sha256": probe.sha256,
        "text": spoken.text,
        "transcript": spoken.transcript,
        "notes": [*spoken.notes, *probe.notes, *odd, *notes],
    }


def _figures(
    utterances: list[Row], quarantine: list[Row], spoken: Mapping[str, Utterance], excluded: int, usual: int | None
) -> dict[str, Any]:
    def count(column: str) -> dict[str, int]:
        return dict(sorted(Counter(row[column] or "none" for row in utterances).items()))

    notes = Counter(re.split(" as |: ", note)[0] for row in utterances for note in row["notes"])
    return {
        "found": {
            "utterances": len(spoken),
            "speakers": len({item.speaker for item in spoken.values()}),
            "raw_labels": dict(sorted(Counter(item.raw_label for item in spoken.values()).items())),
        },
        "utterances": len(utterances),
        "quarantined": len(quarantine),
        "excluded": excluded,
        "splits": {split: 0 for split in SPLITS} | count("split"),
        "emotions": count("emotion"),
        "raw_labels": count("raw_label"),
        "speakers": len({row["speaker"] for row in utterances}),
        "crossing": _crossing(utterances),
        "sample_rate": usual,
        "seconds": round(sum(row["num_samples"] / row["sample_rate"] for row in utterances), 3),
        "notes": dict(sorted(notes.items())),
        "pointers": sum(row["reason"] == POINTER for row in quarantine),
        "reasons": [f"{row['path']}: {row['reason']}" for row in quarantine[:REASONS_SHOWN]],
    }
