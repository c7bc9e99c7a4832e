"""Nodes of the models that a run starts from: the backbone, of all folds or of each, and a speech encoder."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from clepdg import prompts
from clepdg.config.folds import Fold
from clepdg.config.label_sets import OwnLabels, key_of
from clepdg.config.model_pins import DUAL, DUAL_CONTEXT, DUALS, dual_parts, local_folder
from clepdg.config.rows import BACKBONE, EGEMAPS, ENCODER, FULL_BAND, MAIN, STATES
from clepdg.config.schema import MADE_HERE, MICRO_CONTEXT, Config
from clepdg.hashing import digest
from clepdg_tasks.engine.node import Computed, Node, Ref
from clepdg_tasks.stages import models

LOG_MEL = "log-mel"
BACKBONES = (BACKBONE, FULL_BAND)  # the same weights
STATISTICS = (LOG_MEL, EGEMAPS, STATES)  # of audio, by no model of a fold's


@dataclass(frozen=True)
class Model:
    """Model whose embeddings rows use, or statistics of audio.

    Attributes:
        name: in the names of nodes: "backbone", "leave-out-tess.c0".
        ref: its weights; None: statistics of audio.
        text_name: its name as the model of text embeddings.
        full_band: it reads audio at the native rate.
        fold: the fold that it belongs to; None: all folds share it.
        variant: of CLEP.
        seed: of CLEP: "c0".
        trained_on: corpora that it is trained on, beyond what it comes with.
        target_standardised: a target's pooled states are standardised by those of its own test part.
    """

    name: str
    ref: Ref | None
    text_name: str
    full_band: bool = False
    fold: str | None = None
    variant: str = MAIN
    seed: str = ""
    trained_on: tuple[str, ...] = ()
    target_standardised: bool = False

    @property
    def inputs(self) -> dict[str, Ref]:
        """Return the input of the nodes that use this model: its weights, if any."""
        return {"model": self.ref} if self.ref else {}

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags of the nodes that use this model."""
        found = {"model": self.name, "fold": self.fold or "", "variant": self.variant, "seed": self.seed}
        return {name: value for name, value in found.items() if value}


def backbone_model(config: Config, kind: str, fold: Fold) -> Model:
    """Return a fold's model of a kind other than CLEP, its own or shared.

    Where targets have label sets of their own, each has text embeddings of its own.
    """
    shared, own = shared_models(config), config.text.label_set
    if kind in shared:
        if not (isinstance(own, OwnLabels) and own.targets):
            return shared[kind]
        return replace(shared[kind], text_name=f"{shared[kind].text_name}.{key_of(fold.targets)}")
    return Model(
        f"{fold.name}.{kind}",
        backbone_ref(config, fold),
        f"{fold.name}.{BACKBONE}",
        full_band=kind == FULL_BAND,
        fold=fold.name,
        trained_on=fold.sources,
    )


def shared_models(config: Config) -> dict[str, Model]:
    """Return kind -> model of the models that all folds share."""
    shared = {kind: Model(kind, None, kind) for kind in STATISTICS}
    shared[ENCODER] = Model(ENCODER, Ref("backbone", ENCODER), ENCODER)
    if not backbone_by_fold(config):
        for kind in BACKBONES:
            shared[kind] = Model(kind, Ref("backbone", BACKBONE), BACKBONE, full_band=kind == FULL_BAND)
    return shared


def backbone_by_fold(config: Config) -> bool:
    """Return whether each fold has a backbone of its own.

    micro-context and dual-context's heads are pretrained on the audio of the fold's sources.
    """
    return config.backbone.name == MICRO_CONTEXT or config.backbone.name.startswith(DUAL_CONTEXT)


def is_dual(config: Config) -> bool:
    """Return whether the backbone is a dual one.

    It learns from pooled states.
    """
    return config.backbone.name.startswith(DUALS)


def backbone_ref(config: Config, fold: Fold) -> Ref:
    """Return the reference to a fold's backbone, its own or the shared one."""
    return Ref("backbone", f"{fold.name}.{BACKBONE}" if backbone_by_fold(config) else BACKBONE)


def of_corpora(stage: str, corpora: Iterable[str], part: str | None = None, name: str = "") -> dict[str, Ref]:
    """Return the inputs "<name>/<corpus>" of a data stage's outputs.

    Args:
        name: the first part of the inputs' names; "": the stage.
    """
    return {f"{name or stage}/{corpus}": Ref(stage, corpus, part, {"corpus": corpus}) for corpus in corpora}


def backbone(config: Config, fold: Fold | None = None, *, allow_pickle_weights: bool = False) -> Node:
    """Return the node of the CLAP to start from, shared or a fold's own.

    A fold's own heads of dual-context start from the shared dual backbone.
    """
    if fold and is_dual(config):
        return _pretrained_heads(config, fold)
    settings: dict[str, Any] = {"name": config.backbone.name, "revision": config.backbone.revision, "seed": 0}
    state: dict[str, str] = {}
    inputs: dict[str, Ref] = {}
    if config.backbone.name in MADE_HERE:
        settings |= {"seed": config.backbone.seed, "words": prompts.vocabulary()}
    elif is_dual(config):
        places = list[str]()
        for side, (part, commit) in zip(("audio", "text"), dual_parts(config.backbone.name), strict=True):
            place, found = _weights(part)
            places.append(f"{place}@{commit}" if commit else place)
            state |= {f"{side} {what}": listing for what, listing in found.items()}
        own = config.backbone
        settings |= {"name": DUAL + "+".join(places), "seed": own.seed, "frames": own.frames}
    else:
        settings["name"], state = _weights(config.backbone.name)
    if fold:
        settings |= {"pretrain": config.pretrain, "compute": config.compute}
        inputs = of_corpora("shard", fold.sources, "learning")
    return Node(
        stage="backbone",
        name=backbone_ref(config, fold).name if fold else BACKBONE,
        compute=_reading(models.compute_backbone, allow_pickle_weights),
        config=settings,
        inputs=inputs,
        state=state,
        tags={"model": BACKBONE} | ({"fold": fold.name} if fold else {}),
        trained_on=fold.sources if fold else (),
    )


def _pretrained_heads(config: Config, fold: Fold) -> Node:
    """Return the node of a fold's backbone dual-context."""
    states = {f"features/{corpus}": environments_ref(corpus) for corpus in fold.sources}
    return Node(
        stage="backbone",
        name=backbone_ref(config, fold).name,
        compute=models.compute_backbone,
        config={"name": DUAL_CONTEXT, "revision": None, "pretrain": config.pretrain, "compute": config.compute},
        inputs={"backbone": Ref("backbone", BACKBONE), **states},
        tags={"model": BACKBONE, "fold": fold.name},
        trained_on=fold.sources,
    )


def environments_ref(corpus: str) -> Ref:
    """Return the reference to a corpus's pooled states in environments."""
    return Ref("features", f"{corpus}.environments", tags={"corpus": corpus})


def encoder(config: Config, *, allow_pickle_weights: bool = False) -> Node:
    """Return the node of the speech encoder."""
    name, state = _weights(str(config.encoder.name))
    settings = {"name": name, "revision": config.encoder.revision}
    return Node(
        stage="backbone",
        name=ENCODER,
        compute=_reading(models.compute_encoder, allow_pickle_weights),
        config=settings,
        state=state,
        tags={"model": ENCODER},
    )


def _reading(compute: Callable[..., Computed], allow_pickle_weights: bool) -> Callable[..., Computed]:
    """Return a stage's function that may read unknown pickles, or not.

    This is not in the key, since it changes no result.
    """
    return partial(compute, allow_unknown=True) if allow_pickle_weights else compute


def _weights(name: str) -> tuple[str, dict[str, str]]:
    """Return the place of weights, and its state if it is a folder."""
    folder = local_folder(name)
    if folder is None:
        return name, {}
    listing = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return str(folder.absolute()), {"folder": digest(listing)}
