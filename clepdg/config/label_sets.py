"""The setting text.label_set: a built-in label set, or a user's own from a TOML file, for all targets or one each.

A file holds classes, name -> canonical emotions; the name is the word that prompts use:

    name = "RAVDESS-8"                    # optional; else the file's own
    happy = ["happy", "excited"]
    sad = "sad"

or a label set for each target, by its corpus; "supervised" is the fold whose targets are all corpora:

    tess = "7"                            # a built-in one
    [crema-d]
    angry = "angry"
    sad = "sad"
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from clepdg.config.validation import are_phrases, dataclass
from clepdg.emotions import EMOTIONS, LABEL_SETS, LabelSet, labels
from clepdg.errors import ConfigError, nearest

WHERE: Final = "text.label_set"
NAME: Final = "name"  # the entry that is no class
ALL: Final = "supervised"  # the target whose name it is: all corpora at once
DEFAULT: Final = "4"  # of a target that is not named
_BUILT_IN: Final = ", ".join(LABEL_SETS)

Classes = dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class OwnLabels:
    """A user's own label set, or one for each target.

    Attributes:
        name: what results call it.
        classes: label -> canonical emotions; empty where targets differ.
        targets: corpus, or "supervised" -> a built-in label set's name, or classes.
    """

    name: str
    classes: Classes = field(default_factory=dict)
    targets: dict[str, str | Classes] = field(default_factory=dict)


def of_targets(setting: str | OwnLabels, targets: tuple[str, ...]) -> LabelSet:
    """Return the label set of a fold with these targets: a name, or classes."""
    if isinstance(setting, str):
        return setting
    return setting.classes or setting.targets.get(key_of(targets), DEFAULT)


def corpora_of(setting: str | OwnLabels) -> tuple[str, ...]:
    """Return the corpora that have label sets of their own."""
    return () if isinstance(setting, str) else tuple(key for key in setting.targets if key != ALL)


def key_of(targets: tuple[str, ...]) -> str:
    """Return the name of these targets among those of `OwnLabels`."""
    return targets[0] if len(targets) == 1 else ALL


def name_of(setting: str | OwnLabels, targets: tuple[str, ...]) -> str:
    """Return what results call a fold's label set."""
    if isinstance(setting, str):
        return setting
    chosen = of_targets(setting, targets)
    return chosen if isinstance(chosen, str) else setting.name


def content(setting: Any) -> Any:
    """Return what a file or JSON holds; a built-in's name as it is.

    A run's arguments hold this, so that a file that changes or is elsewhere changes no run.

    Raises:
        ConfigError: the text is no built-in label set, and no TOML file that can be read.
    """
    if not isinstance(setting, str) or setting in LABEL_SETS:
        return setting
    if setting.startswith("{"):  # as clep-dg status and pin print it
        try:
            return {NAME: "own", **json.loads(setting)}
        except ValueError as error:
            raise _wrong(setting) from error
    path = Path(os.path.expanduser(setting))
    if path.suffix != ".toml" and not path.is_file():
        raise _wrong(setting)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("A file of label sets can't be read.", got=error, expected="TOML", where=path) from error
    _parse(raw, str(path))
    return {NAME: path.stem, **raw}


def _wrong(value: Any) -> ConfigError:
    expected = f"one of {_BUILT_IN}, or a TOML file: label = [canonical emotions]"
    return ConfigError("A setting is out of range.", got=repr(value), expected=expected, where=WHERE)


def read(setting: Any) -> Any:
    """Return the setting's value: a built-in's name, or `OwnLabels`.

    Args:
        setting: one of these, the path of a TOML file, or what such a file holds.

    Raises:
        ConfigError: the file can't be read, or what it holds is no label set.
    """
    raw = content(setting)
    if isinstance(raw, str | OwnLabels):
        return raw
    if not isinstance(raw, Mapping):
        raise _wrong(raw)
    return _parse(raw, str(raw.get(NAME, WHERE)))


def _parse(raw: Mapping[str, Any], where: str) -> OwnLabels:
    """Return what a file holds; `where` it stands is for messages."""
    name, own = str(raw.get(NAME, "own")), {key: value for key, value in raw.items() if key != NAME}
    by_target = [key for key, value in own.items() if isinstance(value, Mapping) or value in (*LABEL_SETS,)]
    if not by_target:
        return OwnLabels(name=name, classes=_classes(own, where))
    if others := sorted({*own} - {*by_target}):
        expected = f"a table of classes for each target, or one of {_BUILT_IN}"
        raise ConfigError("A label set stands beside targets.", got=others, expected=expected, where=where)
    read_targets = {
        key: own[key] if isinstance(own[key], str) else _classes(own[key], f"{where}, {key}") for key in by_target
    }
    return OwnLabels(name=name, targets=read_targets)


def _classes(raw: Mapping[str, Any], where: str) -> Classes:
    """Return classes in a fixed order, with their emotions in theirs.

    Raises:
        ConfigError: they are no label set; one error names all faults.
    """
    faults: list[str] = []
    found: Classes = {}
    first: dict[str, str] = {}
    for label, value in raw.items():
        emotions = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
        if not emotions or not are_phrases((label,)):
            faults.append(f"{label} = {value!r}: should be a word without braces = a list of canonical emotions")
            continue
        for emotion in emotions:
            if emotion not in EMOTIONS:
                near = nearest(str(emotion), EMOTIONS)
                meant = f"did you mean {near[0]}?" if near else f"it is none of {', '.join(EMOTIONS)}"
                faults.append(f"{label}: there is no canonical emotion {emotion}; {meant}")
            elif emotion in first:
                faults.append(f"{emotion} is in {first[emotion]} and in {label}: it can be in one class alone")
            first.setdefault(str(emotion), label)
        found[label] = tuple(emotion for emotion in EMOTIONS if emotion in emotions)
    if not faults and len(found) < 2:
        faults.append(f"{len(found)} classes: at least two are needed")
    if faults:
        raise ConfigError("This is no label set.", where=where, children=faults)
    return {label: found[label] for label in labels(found)}


LabelSetting = Annotated[str | OwnLabels, BeforeValidator(read)]
