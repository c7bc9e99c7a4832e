"""The models that a run starts from, as nodes: the backbone, of all folds or of each, and a speech encoder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from clepdg import prompts
from clepdg.config.folds import Fold
from clepdg.config.rows import BACKBONE, EGEMAPS, ENCODER, FULL_BAND
from clepdg.config.schema import MADE_HERE, MICRO_CONTEXT, Config
from clepdg.hashing import digest
from tasks.engine.node import Computed, Node
from tasks.stages import models

LOG_MEL = "log-mel"
BACKBONES = (BACKBONE, FULL_BAND)  # the same weights
STATISTICS = (LOG_MEL, EGEMAPS)  # of audio, by no model


def shared_models(config: Config) -> dict[str, str | None]:
    """Return the models that no fold changes, with their nodes: statistics of audio need none."""
    shared: dict[str, str | None] = {**dict.fromkeys(STATISTICS), ENCODER: f"backbone/{ENCODER}"}
    return shared if backbone_by_fold(config) else {**shared, **dict.fromkeys(BACKBONES, f"backbone/{BACKBONE}")}


def backbone_by_fold(config: Config) -> bool:
    """Return whether each fold has a backbone of its own: micro-context is pretrained on the fold's sources."""
    return config.backbone.name == MICRO_CONTEXT


def backbone_name(config: Config, fold: Fold) -> str:
    """Return the name of a fold's backbone."""
    return f"{fold.name}.{BACKBONE}" if backbone_by_fold(config) else BACKBONE


def backbone(config: Config, fold: Fold | None = None, *, allow_pickle_weights: bool = False) -> Node:
    """The CLAP to start from; a fold's own is pretrained on the audio of its sources."""
    settings: dict[str, Any] = {"name": config.backbone.name, "revision": config.backbone.revision, "seed": 0}
    state: dict[str, str] = {}
    inputs: dict[str, str] = {}
    if config.backbone.name in MADE_HERE:
        settings |= {"seed": config.backbone.seed, "words": prompts.vocabulary()}
    else:
        settings["name"], state = _weights(config.backbone.name)
    if fold:
        settings |= {"pretrain": config.pretrain, "compute": config.compute}
        inputs = {f"shard/{corpus}": f"shard/{corpus}#learning" for corpus in fold.sources}
    return Node(
        stage="backbone",
        name=backbone_name(config, fold) if fold else BACKBONE,
        compute=_reading(models.compute_backbone, allow_pickle_weights),
        config=settings,
        inputs=inputs,
        state=state,
    )


def encoder(config: Config, *, allow_pickle_weights: bool = False) -> Node:
    """The speech encoder that a row is a probe on."""
    name, state = _weights(str(config.encoder.name))
    settings = {"name": name, "revision": config.encoder.revision}
    return Node(
        stage="backbone",
        name=ENCODER,
        compute=_reading(models.compute_encoder, allow_pickle_weights),
        config=settings,
        state=state,
    )


def _reading(compute: Callable[..., Computed], allow_pickle_weights: bool) -> Callable[..., Computed]:
    """Return a stage's function, allowed to read unknown pickles or not: in no key, since it changes no result."""
    return partial(compute, allow_unknown=True) if allow_pickle_weights else compute


def _weights(name: str) -> tuple[str, dict[str, str]]:
    """Return where weights come from, and the state of that place where it is a folder."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name, {}
    listing = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return str(folder.absolute()), {"folder": digest(listing)}
