"""Options of the command line, and the run's arguments that they give."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from clepdg.config import label_sets
from clepdg.config.model_pins import local_folder
from clepdg.config.presets import PRESETS
from clepdg.errors import ConfigError
from clepdg_tasks.engine.node import STAGES
from clepdg_tasks.engine.run_history import Arguments


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run: configuration, corpora, folds and stages."""
    parser.add_argument("--preset", help=f"{', '.join(PRESETS)} (default: open; status: the last run's)")
    parser.add_argument(
        "--backbone",
        help="micro, micro-context, a folder, a Hugging Face name (NAME@COMMIT), laion:CHECKPOINT, dual:AUDIO+TEXT, or "
        "dual-context:AUDIO+TEXT",
    )
    add_corpora_options(parser)
    parser.add_argument(
        "--folds", type=_list, metavar="A,B", help="names of folds, for example supervised,leave-out-tess"
    )
    parser.add_argument("--until", metavar="STAGE", help=f"the last stage to compute: {', '.join(STAGES)}")
    parser.add_argument(
        "--redo", type=_list, default=(), metavar="A,B", help="stages to compute again, for example clep,acpt"
    )
    parser.add_argument("--allow-partial", action="store_true", help="accept corpora that are not complete")
    parser.add_argument(
        "--allow-pickle-weights",
        action="store_true",
        help="read weights that come as an unknown pickle (.bin): a flaw in its reader could let it run code",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, for example clep.epochs=15"
    )


def add_corpora_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of corpora and their sources."""
    parser.add_argument("--corpora", type=_list, metavar="A,B", help="names of corpora (default: the preset's)")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="CORPUS=PLACE",
        help="your folder, archive, list (.csv) or URL of a corpus",
    )


def _list(text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(",") if item.strip())
    if not items or len(set(items)) < len(items):
        raise argparse.ArgumentTypeError("at least one name, none twice")
    return items


def _pairs(items: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} needs a name and a value.", got=item, expected="NAME=VALUE")
        if name in pairs:
            raise ConfigError(f"{option} is given twice for {name}.", got=[pairs[name], value])
        pairs[name] = value
    return pairs


def given_sources(options: argparse.Namespace) -> dict[str, str]:
    """Return the sources that a user names; local ones become absolute paths."""
    return {
        corpus: place if "://" in place else str(Path(os.path.expanduser(place)).resolve())
        for corpus, place in _pairs(options.source, "--source").items()
    }


def read_arguments(options: argparse.Namespace) -> Arguments:
    """Return a run's arguments from the command line's options."""
    backbone = options.backbone
    if backbone and (folder := local_folder(backbone)):
        backbone = str(folder.resolve())
    return Arguments(
        preset=options.preset or "open",
        backbone=backbone,
        corpora=options.corpora,
        sources=given_sources(options),
        folds=options.folds,
        until=options.until,
        redo=options.redo,
        allow_partial=options.allow_partial,
        allow_pickle_weights=options.allow_pickle_weights,
        overrides={
            name: label_sets.content(value) if name == label_sets.WHERE else value
            for name, value in _pairs(options.set, "--set").items()
        },
    )
