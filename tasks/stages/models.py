"""The model stages: backbone, encoder, clep, interpolation, acpt."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config.model_pins import (
    DUAL,
    DUAL_CONTEXT,
    LAION,
    ROBERTA,
    dual_parts,
    laion_file,
    local_folder,
    pinned_revision,
    repository,
)
from clepdg.config.schema import MADE_HERE, MICRO_CONTEXT
from clepdg.models.files import CLAP_FILES, ENCODER_FILES, TEXT_FILES, Choose, file_named, tokenizer_files
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.stages.inputs import folders_of, learning_utterances, open_clap, quiet_transformers, set_threads

if TYPE_CHECKING:
    from clepdg.models.clap import Clap


def compute_backbone(work: Work, allow_unknown: bool = False) -> Computed:
    """Save the CLAP to start from: built here, a folder's, or the hub's.

    Args:
        allow_unknown: read pickled weights whose bytes no pin names.
    """
    from clepdg.download import hub
    from clepdg.method.context_effect import context_effect
    from clepdg.models import laion
    from clepdg.models.dual import Dual, build_dual
    from clepdg.models.folder import load_model
    from clepdg.models.micro import build_micro

    quiet_transformers()
    name, revision = work.config["name"], work.config["revision"]
    pretrained: dict[str, Any] = {}
    if name in MADE_HERE:
        clap: Clap = build_micro(work.config["seed"], device=work.device)
        if name == MICRO_CONTEXT:
            pretrained = _pretrain(clap, work)
    elif name.startswith(LAION):
        folder = hub.fetch(repository(name), revision, file_named(laion_file(name)), **_hub(work))
        words = hub.fetch(ROBERTA, str(pinned_revision(ROBERTA)), tokenizer_files)
        clap = laion.load_checkpoint(folder / laion_file(name), words)
    elif name == DUAL_CONTEXT:
        clap = open_clap(work.inputs["backbone"], work)
        pretrained = _pretrain_heads(clap, work)
    elif name.startswith(DUAL):
        audio, text = dual_parts(name)
        encoders = model_folder(*audio, ENCODER_FILES, work), model_folder(*text, TEXT_FILES, work)
        settings = {"seed": work.config["seed"], "frames": work.config["frames"]}
        clap = build_dual(*encoders, **settings, device=work.device, allow_unknown=allow_unknown)
    else:
        folder = model_folder(name, revision, CLAP_FILES, work)
        clap = load_model(folder, allow_unknown=allow_unknown)
    clap.save(work.folder)
    parameters = sum(p.numel() for p in clap.model.parameters())
    figures = {"parameters": parameters, **pretrained, **context_effect(load_model(work.folder))}
    digests = {"content": clap.digest()} | ({"encoder": clap.encoder.digest()} if isinstance(clap, Dual) else {})
    return Computed(digests=digests, figures=figures)


def model_folder(name: str, revision: str | None, choose: Choose, work: Work) -> Path:
    """Return the user's model folder, or the hub's, downloaded."""
    from clepdg.download import hub

    return local_folder(name) or hub.fetch(name, str(revision), choose, **_hub(work))


def _hub(work: Work) -> dict[str, Any]:
    return {"pins": work.pins, "progress": work.reporting.progress}


def _pretrain(clap: "Clap", work: Work) -> dict[str, Any]:
    """Pretrain micro-context on the sources' audio, without labels."""
    import pandas as pd

    from clepdg.dataset import shards
    from clepdg.method import micro_context

    folders = folders_of(work, "shard", "learning")
    tables = [shards.read_offsets(folder).assign(corpus=folder.name, folder=str(folder)) for folder in folders]
    return micro_context.pretrain(
        clap,
        pd.concat(tables, ignore_index=True),
        shards.babble_voices(folders),
        work.config["pretrain"],
        work.config["compute"],
        work.folder,
        work.reporting,
        work.checkpointing,
    )


def _pretrain_heads(dual: Any, work: Work) -> dict[str, Any]:
    """Pretrain dual-context's heads on the sources' states in environments."""
    from clepdg.method.audio_embeddings import load_audio_embeddings
    from clepdg.method.pretraining import dual_context

    return dual_context.pretrain(
        dual,
        [load_audio_embeddings(folder, dimensions=3) for _, folder in work.select("features")],
        work.config["pretrain"],
        work.config["compute"],
        work.folder,
        work.reporting,
        work.checkpointing,
    )


def compute_encoder(work: Work, allow_unknown: bool = False) -> Computed:
    """Save the speech encoder of a probe.

    `allow_unknown` as in compute_backbone.
    """
    from clepdg.models.speech_encoder import load_encoder

    quiet_transformers()
    folder = model_folder(work.config["name"], work.config["revision"], ENCODER_FILES, work)
    encoder = load_encoder(folder, allow_unknown=allow_unknown)
    encoder.save(work.folder)
    parameters = sum(p.numel() for p in encoder.model.parameters())
    return Computed(digests={"content": encoder.digest()}, figures={"parameters": parameters})


def compute_clep(work: Work) -> Computed:
    """Fine-tune the backbone on the fold's sources, on several ranks."""
    from clepdg.method import clep
    from clepdg.method.audio_embeddings import load_audio_embeddings
    from clepdg.method.context_effect import context_effect
    from clepdg.training import distributed
    from clepdg_tasks.engine.ranks import on_ranks

    ranks = work.config["clep"].ranks
    if ranks > distributed.world_size():
        return on_ranks(compute_clep, work, ranks)
    clap = open_clap(work.inputs["backbone"], work)
    figures = clep.fit(
        clap,
        learning_utterances(work),
        work.config["emotions"],
        work.config["clep"],
        work.config["compute"],
        work.config["seed"],
        work.folder,
        work.reporting,
        work.checkpointing,
        [load_audio_embeddings(folder, dimensions=3) for _, folder in work.select("features", "learning")],
    )
    if distributed.rank() == 0:
        clap.save(work.folder)
    return Computed(digests={"content": clap.digest()}, figures={**figures, **context_effect(clap)})


def compute_interpolation(work: Work) -> Computed:
    """Mix the weights of a fold's CLEP with the backbone's."""
    from clepdg.method.context_effect import context_effect
    from clepdg.method.weights import interpolate

    set_threads(work)
    clap, clep = (open_clap(work.inputs[name], work) for name in ("backbone", "clep"))
    interpolate(clap, clep, work.config["clap_share"])
    clep.save(work.folder)
    return Computed(digests={"content": clep.digest()}, figures=context_effect(clep))


def compute_acpt(work: Work) -> Computed:
    """Learn context vectors from text alone."""
    from clepdg.method import acpt

    vectors, figures = acpt.fit(
        open_clap(work.inputs["clep"], work),
        work.config["emotions"],
        work.config["acpt"],
        work.config["compute"],
        work.config["seed"],
        work.folder,
        work.reporting,
        work.checkpointing,
    )
    content = acpt.save(work.folder, vectors, work.config["acpt"], work.config["emotions"])
    return Computed(digests={"content": content}, figures={name: round(v, 6) for name, v in figures.items()})
