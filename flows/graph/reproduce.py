"""The command that repeats a run, and how its settings differ from the preset's."""

from typing import Any

from clepdg.config.folds import folds
from clepdg.config.label_sets import NAME, OwnLabels
from clepdg.config.presets import build, option_names
from clepdg.config.schema import Config
from clepdg.errors import ConfigError
from clepdg.hashing import plain
from clepdg_tasks.engine.run_history import Arguments, as_command, as_text


def reproduction(config: Config, chosen: tuple[str, ...]) -> dict[str, Any]:
    """Return the command that asks for a configuration, and its settings.

    It names no sources: a corpus that moved is the same corpus.

    Args:
        chosen: names of the run's folds.

    Returns:
        "command"; "settings" name -> [value, the preset's value where it differs] as text.
    """
    preset = build(config.preset)
    start: dict[str, Any] = {
        "backbone": _backbone(config, preset),
        "corpora": None if config.corpora == preset.corpora else config.corpora,
    }
    base = build(config.preset, **start)
    every = tuple(fold.name for fold in folds(config.corpora, config.protocols)) if chosen else ()
    arguments = Arguments(
        preset=config.preset,
        **start,
        folds=None if chosen == every else chosen,
        overrides={name: _plain(own) for name in option_names() if (own := _get(config, name)) != _get(base, name)},
    )
    settings = {name: [as_text(_plain(_get(each, name))) for each in (config, preset)] for name in option_names()}
    return {
        "command": as_command(arguments),
        "settings": {name: list(dict.fromkeys(values)) for name, values in settings.items()},
    }


def _get(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _backbone(config: Config, preset: Config) -> str | None:
    """Return the option --backbone of a configuration; None: the preset's."""
    own = config.backbone
    if (own.name, own.revision) == (preset.backbone.name, preset.backbone.revision):
        return None
    for option in (own.name, f"{own.name}@{own.revision}"):
        try:
            found = build(config.preset, backbone=option).backbone
        except ConfigError:
            continue
        if (found.name, found.revision) == (own.name, own.revision):
            return option
    return None  # settings backbone.name and backbone.revision then say it


def _plain(value: Any) -> Any:
    """Return a setting's value as JSON; label sets as their file holds them."""
    if isinstance(value, OwnLabels):
        return {NAME: value.name, **plain(value.classes), **plain(value.targets)}
    return value
