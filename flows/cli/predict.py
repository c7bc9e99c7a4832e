"""The command clep-dg predict: emotions of audio files, and of the pieces of long recordings."""

import argparse
import contextlib
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.audio.formats import AUDIO_SUFFIXES
from clepdg.errors import ClepError, ConfigError, counted
from clepdg_flows.cli.parser import Commands, add_command
from clepdg_flows.cli.prediction_files import SUFFIXES, Predictions, Row, unwritable
from clepdg_flows.cli.registry import registry_settings

if TYPE_CHECKING:
    from clepdg.errors import IndexingError
    from clepdg.method.emotion_classifier import EmotionClassifier, Piece

WIDEST = 60  # letters of a path that are aligned


def add_predict_command(commands: Commands) -> None:
    """Add the command."""
    predict = add_command(
        commands,
        "predict",
        predict_command,
        "print emotion and probabilities of audio files",
        "clep-dg predict recordings/ --out predictions.csv",
    )
    predict.add_argument(
        "files", nargs="+", metavar="FILE", help="files, folders, patterns such as '**/*.wav', or - for paths on stdin"
    )
    predict.add_argument("--preset", default="open", help="demo: the classifier of the demo (default: open)")
    predict.add_argument("--version", help="number or alias of a registered version (default: champion)")
    predict.add_argument(
        "--out", type=Path, metavar="FILE", help=f"write a table ({', '.join(SUFFIXES)}); the same command continues it"
    )
    predict.add_argument("--json", action="store_true", help="print one JSON object a line")
    predict.add_argument("--segments", metavar="HOW", help="cut recordings into pieces: fixed:5s/2.5s, or vad")
    predict.add_argument("--emotions", metavar="A,B", help="other emotions, by their words alone: 'bored, sarcastic'")
    predict.add_argument("--plot", type=Path, metavar="FILE", help="draw the pieces of one recording (.png, .svg)")


def predict_command(options: argparse.Namespace) -> None:
    """Classify files one after the other; exit with 1 if some can't be used."""
    files = find_audio(options.files)
    _check_options(options, files)
    settings = registry_settings(options.preset)
    model, name = _load(options, settings)
    if options.preset == "demo":
        print("The demo learnt from synthetic speech alone: don't trust it on real speech.", file=sys.stderr)
    try:
        faults = _predict(model, name, files, options)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        do = "the same command continues from here" if options.out else None
        raise ClepError("The predictions can't be written.", got=error, where=options.out, do=do) from error
    if faults:
        print(f"{len(faults)} of {counted(len(files), 'file')} can't be used.", file=sys.stderr)
        if any(fault.startswith("too long") for fault in faults) and not options.segments:
            print("  do: cut long recordings into pieces: --segments vad, or --segments fixed:5s", file=sys.stderr)
        sys.exit(1)


def find_audio(words: Sequence[str]) -> list[str]:
    """Return the paths that words name, each once.

    Raises:
        ConfigError: a folder or a pattern holds none, or no path came on stdin.
    """
    found: dict[str, None] = {}
    for word in words:
        path = os.path.expanduser(word)
        if word == "-":
            data = os.fsdecode(sys.stdin.buffer.read())
            more = [line for line in (data.split("\0") if "\0" in data else data.splitlines()) if line]
        elif os.path.isdir(path):
            more = list(_below(path))
        elif os.path.lexists(path) or not glob.has_magic(path):
            more = [path]
        else:
            more = sorted(name for name in glob.iglob(path, recursive=True) if not os.path.isdir(name))
        if not more:
            kinds = f"audio files: {', '.join(sorted(AUDIO_SUFFIXES))}"
            if word == "-":
                raise ConfigError(
                    "There is no audio: no path came.", expected=f"a path a line, of {kinds}", where="stdin"
                )
            sought = "this folder and its folders hold none" if os.path.isdir(path) else "no file has such a name"
            raise ConfigError(f"There is no audio: {sought}.", got=word, expected=kinds)
        found |= dict.fromkeys(more)
    return list(found)


def _below(folder: str) -> Iterator[str]:
    """Yield the audio files of a folder and its folders, without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield os.path.join(place, name)


def _check_options(options: argparse.Namespace, files: Sequence[str]) -> None:
    for path, name, suffixes in ((options.out, "--out", SUFFIXES), (options.plot, "--plot", (".png", ".svg"))):
        if path and path.suffix not in suffixes:
            raise ConfigError(f"{name} can't be such a file.", got=path, expected=[f"FILE{each}" for each in suffixes])
        if path and not path.absolute().parent.is_dir():
            raise ConfigError("There is no such folder.", got=path.parent, where=name)
        if path and (fault := unwritable(path)):
            do = "name a file in a folder that you may write to"
            raise ConfigError("This place can't be written.", got=fault, where=f"{name} {path}", do=do)
    if options.segments:
        from clepdg.audio.segments import parse_segments

        parse_segments(options.segments)
    if options.emotions is not None:
        from clepdg.method.fold.new_words import check_words

        check_words(options.emotions.split(","))
    if options.plot and (not options.segments or len(files) != 1):
        got = f"{len(files)} files, --segments {options.segments or 'not given'}"
        raise ConfigError("--plot draws the pieces of one recording.", got=got, expected="one file, and --segments")


def _load(options: argparse.Namespace, settings: Any) -> "tuple[EmotionClassifier, str]":
    """Return the classifier and its name for the column `model`."""
    from clepdg_tasks.tracking.model_registry import CHAMPION, find_version, load_classifier, model_name

    found = find_version(settings, options.preset, options.version or CHAMPION)
    version = str(found.version)
    words = options.emotions.split(",") if options.emotions is not None else None
    model = load_classifier(settings, options.preset, version, audio_only=True, emotions=words)
    key = str(found.tags.get("stage_key", ""))[:8]  # another registry has other versions of the same number
    name = f"{model_name('classifier', options.preset)}/{version} {key}"
    return model, f"{name} {', '.join(model.head.labels)}" if words else name


def _predict(model: "EmotionClassifier", name: str, files: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Classify files, write their rows; return the faults of unusable ones."""
    from tqdm import tqdm

    from clepdg.audio.segments import parse_segments

    labels, same = model.head.labels, {"model": name}
    cut = parse_segments(options.segments) if options.segments else None
    pieces: tuple[str, ...] = ()
    if cut:
        same["segments"], pieces = options.segments, ("segments", "segment", "start", "end")
    columns = ("path", *pieces, "emotion", *labels, "error", "model")
    width = min(WIDEST, max(map(len, files)))
    faults, drawn = list[str](), list[Row]()
    with contextlib.ExitStack() as stack:
        out = Predictions(options.out, columns, same) if options.out else None
        if out:
            stack.callback(out.close)
        left = [path for path in files if not out or path not in out.done]
        bar = stack.enter_context(tqdm(total=len(files), initial=len(files) - len(left), unit="file", disable=None))
        for path, answer in model.predict_each(left, cut):
            rows = [{**row, **same} for row in _rows(path, answer, labels, pieces)]
            faults += [rows[0]["error"]] if "error" in rows[0] else []
            if out:
                out.add(rows)
            if options.json or not out:
                for row in rows:
                    line = json.dumps(row) if options.json else _text(row, labels, width)
                    bar.write(line) if sys.stdout.isatty() and not bar.disable else print(line)
            drawn = rows if options.plot else []
            bar.update()
        if out:
            drawn = out.rows(files[0]) if options.plot else []
            out.complete()
            there = f"{len(files) - len(left)} of them were there before"
            print(f"{options.out}: {counted(len(files), 'file')}, {there}.", file=sys.stderr)
    if options.plot and not faults:
        from clepdg.report.timeline import draw_timeline

        draw_timeline(drawn, labels, Path(files[0]).name, options.plot)
    return faults


def _rows(
    path: str, answer: "list[Piece] | IndexingError", labels: Sequence[str], pieces: Sequence[str]
) -> Iterator[Row]:
    """Yield the rows of a file: one, or one for each of its pieces."""
    if not isinstance(answer, list):
        yield {"path": path, "error": answer.what}
        return
    for number, piece in enumerate(answer, 1):
        place = (f"{number}/{len(answer)}", round(piece.start, 3), round(piece.end, 3))
        emotion = labels[int(piece.probabilities.argmax())]
        shares = (round(float(share), 6) for share in piece.probabilities)
        found: Row = {"path": path} | dict(zip(pieces[1:], place, strict=False)) | {"emotion": emotion}
        yield found | dict(zip(labels, shares, strict=True))


def _text(row: Row, labels: Sequence[str], width: int) -> str:
    name = os.fsencode(row["path"]).decode(errors="replace")
    if "error" in row:
        return f"{name:{width}s}  {row['error']}"
    time = f"{row['start']:8.2f} {row['end']:8.2f} s  " if "start" in row else ""
    shares = "  ".join(f"{label} {row[label]:.3f}" for label in labels)
    return f"{name:{width}s}  {time}{row['emotion']:10s}  {shares}"
