"""Nodes that embed audio, clean and in the conditions of an evaluation."""

import os
from pathlib import Path
from typing import Any

from clepdg.config.conditions import CLEAN, OWN, Condition, conditions
from clepdg.config.folds import LEAVE_OUT, PAIR, Fold, folds, kind
from clepdg.config.rows import BACKBONE, CLEP_VARIANTS, ENCODER, STATES, trains_audio
from clepdg.config.schema import Config
from clepdg.download import folders
from clepdg.hashing import digest
from clepdg_flows.graph.models import STATISTICS, Model, environments_ref, is_dual, of_corpora
from clepdg_flows.graph.refs import audio_ref, features_ref, shard_name, talkers
from clepdg_tasks.engine.node import Node, Ref
from clepdg_tasks.stages import embeddings


def features(config: Config, corpus: str, condition: Condition | None = None, fold: Fold | None = None) -> Node:
    """Return the node of a corpus's pooled states, which folds share.

    A dual backbone's speech encoder computes them.
    """
    settings, inputs, state = _condition(config, condition, fold)
    settings |= _utterances(config, corpus, condition, fold.name if fold else None)
    return Node(
        stage="features",
        name=features_ref(corpus, condition, fold).name,
        compute=embeddings.compute_features,
        config=settings,
        inputs={"shard": Ref("shard", corpus), "backbone": Ref("backbone", BACKBONE, "encoder"), **inputs},
        state=state,
        tags={"corpus": corpus, "condition": settings["condition"]},
    )


def environments(config: Config, corpus: str) -> Node:
    """Return the node of a corpus's pooled states in environments.

    dual-context is pretrained on them. They are of a sample of its learning parts.
    """
    return Node(
        stage="features",
        name=environments_ref(corpus).name,
        compute=embeddings.compute_environments,
        config={"utterances": config.pretrain.utterances, "seed": config.pretrain.seed, "compute": config.compute},
        inputs={"shard": Ref("shard", corpus, "learning"), "backbone": Ref("backbone", BACKBONE, "encoder")},
        tags={"corpus": corpus},
    )


def audio_embeddings(
    config: Config, model: Model, corpus: str, condition: Condition | None = None, fold: Fold | None = None
) -> Node:
    """Return the node of a corpus's audio embeddings by a model.

    All rows and folds with that model share it. A babble's talkers are of the fold's sources.
    """
    fold = talkers(fold, condition)
    settings, inputs, state = _condition(config, condition, fold)
    if _from_features(config, model):
        inputs, state = {"features": features_ref(corpus, condition, fold)}, {}
        if model.target_standardised:
            inputs |= {"shard": Ref("shard", corpus)}
    else:
        inputs = {"shard": Ref("shard", shard_name(corpus, full_band=model.full_band)), **inputs}
        settings |= _utterances(config, corpus, condition, fold.name if fold else model.fold)
    if model.target_standardised:
        settings |= {"standardise": "target"}
    return Node(
        stage="audio_embeddings",
        name=audio_ref(model, corpus, condition, fold).name,
        compute=embeddings.compute_audio_embeddings,
        config={**settings, **({"model": model.name} if model.name in (*STATISTICS, ENCODER) else {})},
        inputs={**inputs, **model.inputs},
        state=state,
        tags={
            **({"fold": fold.name} if fold else {}),
            **model.tags,
            "corpus": corpus,
            "condition": settings["condition"],
        },
    )


def _from_features(config: Config, model: Model) -> bool:
    """Return whether a model's embeddings are made of stage features.

    A CLEP whose speech encoder was trained has states of its own.
    """
    if model.name == STATES:
        return True
    if model.ref is None or model.name == ENCODER or model.full_band:
        return False
    trained = model.ref.stage == "clep" and trains_audio(CLEP_VARIANTS[model.variant](config.clep))
    return is_dual(config) and not trained


def _condition(
    config: Config, condition: Condition | None, fold: Fold | None
) -> tuple[dict[str, Any], dict[str, Ref], dict[str, str]]:
    """Return a condition's settings, inputs and state."""
    settings: dict[str, Any] = {"condition": condition.name if condition else CLEAN, "compute": config.compute}
    fold = talkers(fold, condition)
    inputs = of_corpora("shard", fold.sources, "learning", "talkers") if fold else {}
    if not condition or condition.noise != OWN:
        return settings, inputs, {}
    settings["noise_folder"] = config.evaluate.noise_folder
    return (
        settings,
        inputs,
        {"noise": digest(folders.listing(Path(os.path.expanduser(str(config.evaluate.noise_folder)))))},
    )


def _utterances(config: Config, corpus: str, condition: Condition | None, fold: str | None) -> dict[str, str]:
    """Return the setting that says which utterances a condition holds.

    The whole corpus where a fold that leaves it out is tested on it, in other folds the test part. It depends on the
    run's protocols, not on the folds that are wanted now, so that parts of a run have the same keys.

    Args:
        fold: the only fold that reads them; None: folds share them.
    """
    if condition is None:
        return {}
    of_run = [each.name for each in folds(config.corpora, config.protocols) if corpus in each.targets]
    return {"utterances": "whole" if LEAVE_OUT in map(kind, [fold] if fold else of_run) else "test"}


def conditions_of(config: Config, fold: Fold) -> list[Condition]:
    """Return the corruptions under which a fold is evaluated: none for pairs."""
    return [] if kind(fold.name) == PAIR else conditions(config.evaluate.conditions)


def is_evaluated(model: Model, condition: Condition | None) -> bool:
    """Return whether a model is evaluated under a condition.

    Corruptions are made at 16 kHz, which leaves no full band.
    """
    return condition is None or not model.full_band
