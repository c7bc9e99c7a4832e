"""The model stages: backbone, clep, acpt, classifier; embedding.py has the others."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config import MADE_HERE, MICRO_CONTEXT
from clepdg.emotions import LABEL_SETS, labels
from clepdg.model_files import CLAP_FILES, ENCODER_FILES, Choose, file_named, tokenizer_files
from clepdg.model_pins import LAION, ROBERTA, laion_file, pinned_revision, repository
from tasks.stages import Computed, Work

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from clepdg.clap import Clap
    from clepdg.classifier import Head


def quiet_transformers() -> None:
    """Keep transformers' own progress bars out of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def open_clap(folder: Path, work: Work) -> "Clap":
    """Load a stage's CLAP onto its device."""
    from clepdg.clap import load_clap

    quiet_transformers()
    return load_clap(folder, device=work.device)


def compute_backbone(work: Work, allow_unknown: bool = False) -> Computed:
    """Save the CLAP to start from: built here, or loaded from a folder or the hub.

    Args:
        allow_unknown: read pickled weights whose bytes no pin names.
    """
    from clepdg import hub, laion
    from clepdg.clap import build_micro, load_clap
    from clepdg.context_effect import context_effect

    quiet_transformers()
    name, revision = work.config["name"], work.config["revision"]
    pretrained: dict[str, Any] = {}
    if name in MADE_HERE:
        clap = build_micro(work.config["seed"], device=work.device)
        if name == MICRO_CONTEXT:
            pretrained = _pretrain(clap, work)
    elif name.startswith(LAION):
        folder = hub.fetch(repository(name), revision, file_named(laion_file(name)), **_hub(work))
        words = hub.fetch(ROBERTA, str(pinned_revision(ROBERTA)), tokenizer_files)
        clap = laion.load_checkpoint(folder / laion_file(name), words)
    else:
        folder = model_folder(name, revision, CLAP_FILES, work)
        clap = load_clap(folder, allow_unknown=allow_unknown)
    clap.save(work.folder)
    parameters = sum(p.numel() for p in clap.model.parameters())
    figures = {"parameters": parameters, **pretrained, **context_effect(load_clap(work.folder))}
    return Computed(digests={"content": clap.digest()}, figures=figures)


def model_folder(name: str, revision: str | None, choose: Choose, work: Work) -> Path:
    """Return the user's own model folder, or that of the hub's cache once a model is downloaded."""
    from clepdg import hub

    folder = Path(name).expanduser()
    return folder if folder.is_dir() else hub.fetch(name, str(revision), choose, **_hub(work))


def _hub(work: Work) -> dict[str, Any]:
    return {"pins": work.pins, "progress": work.reporting.progress}


def _pretrain(clap: "Clap", work: Work) -> dict[str, Any]:
    """Pretrain micro-context on the source corpora's audio; no label of it is read."""
    import pandas as pd

    from clepdg import environments, noises, shards

    folders = inputs_like(work, "shard/")
    tables = [shards.read_offsets(folder).assign(corpus=folder.name, folder=str(folder)) for folder in folders]
    return environments.pretrain(
        clap,
        pd.concat(tables, ignore_index=True),
        noises.talkers(folders),
        work.config["pretrain"],
        work.config["compute"],
        work.folder,
        work.reporting,
        work.pace,
    )


def compute_encoder(work: Work, allow_unknown: bool = False) -> Computed:
    """Save the speech encoder that a row is a probe on; `allow_unknown` as in compute_backbone."""
    from clepdg.encoders import load_encoder

    quiet_transformers()
    folder = model_folder(work.config["name"], work.config["revision"], ENCODER_FILES, work)
    encoder = load_encoder(folder, allow_unknown=allow_unknown)
    encoder.save(work.folder)
    parameters = sum(p.numel() for p in encoder.model.parameters())
    return Computed(digests={"content": encoder.digest()}, figures={"parameters": parameters})


def learning_utterances(work: Work) -> "pd.DataFrame":
    """Join index and offsets of the source corpora: the train and validation utterances and where their audio lies."""
    import pandas as pd

    from clepdg import index, shards

    parts = []
    for name, folder in work.inputs.items():
        if not name.startswith("shard/"):
            continue
        corpus = name.removeprefix("shard/")
        utterances = index.read_utterances(work.inputs[f"index/{corpus}"])
        offsets = shards.read_offsets(folder).drop(columns=["split", "raw_label", "sample_rate", "num_samples"])
        joined = utterances[utterances.split != "test"].merge(offsets, on="utterance_id", validate="one_to_one")
        parts.append(joined.assign(folder=str(folder)))
    return pd.concat(parts, ignore_index=True)


def compute_clep(work: Work) -> Computed:
    """Fine-tune the backbone on the fold's source corpora, on as many ranks as the configuration says."""
    from clepdg import clep, distributed
    from clepdg.context_effect import context_effect
    from tasks.ranks import on_ranks

    ranks = work.config["clep"].ranks
    if ranks > distributed.ranks():
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
        work.pace,
    )
    if distributed.rank() == 0:
        clap.save(work.folder)
    return Computed(digests={"content": clap.digest()}, figures={**figures, **context_effect(clap)})


def compute_interpolation(work: Work) -> Computed:
    """Mix the weights of a fold's CLEP with the backbone's."""
    from clepdg.context_effect import context_effect
    from clepdg.interpolation import interpolate

    set_threads(work)
    clap, clep = (open_clap(work.inputs[name], work) for name in ("backbone", "clep"))
    interpolate(clap, clep, work.config["clap_share"])
    clep.save(work.folder)
    return Computed(digests={"content": clep.digest()}, figures=context_effect(clep))


def compute_acpt(work: Work) -> Computed:
    """Learn context vectors from text alone."""
    from clepdg import acpt

    vectors, figures = acpt.fit(
        open_clap(work.inputs["clep"], work),
        work.config["emotions"],
        work.config["acpt"],
        work.config["compute"],
        work.config["seed"],
        work.folder,
        work.reporting,
        work.pace,
    )
    content = acpt.save(work.folder, vectors, work.config["acpt"], work.config["emotions"])
    return Computed(digests={"content": content}, figures={name: round(v, 6) for name, v in figures.items()})


def set_threads(work: Work) -> None:
    """Let torch use as many threads as the configuration says."""
    import torch

    torch.set_num_threads(work.config["compute"].threads)


def labelled(index_folders: Iterable[Path], label_set: str, splits: tuple[str, ...]) -> "pd.DataFrame":
    """Return the utterances of some splits that have a label of the label set, with `label` and `label_index`."""
    import pandas as pd

    from clepdg import index

    mapping, order = LABEL_SETS[label_set], {name: n for n, name in enumerate(labels(label_set))}
    table = pd.concat([index.read_utterances(folder) for folder in index_folders], ignore_index=True)
    table = table[table.split.isin(splits)].assign(label=table.emotion.map(mapping))
    table = table[table.label.notna()]
    return table.assign(label_index=table.label.map(order).astype(int)).reset_index(drop=True)


def inputs_like(work: Work, prefix: str) -> list[Path]:
    """Return the input folders whose names start with a prefix."""
    return [folder for name, folder in sorted(work.inputs.items()) if name.startswith(prefix)]


def compute_classifier(work: Work) -> Computed:
    """Learn the head of one row: from text, from audio, or by counting labels.

    Of a label that is added by its word alone no utterance is seen: neither in the mean nor for the temperature.
    """
    import numpy as np
    import torch

    from clepdg import classifier, embeddings

    label_set, kind, new = work.config["label_set"], work.config["head"], work.config.get("new_label")
    names = labels(label_set)
    torch.set_num_threads(1)  # small matrices: threads would only cost
    sources = [embeddings.load_audio_embeddings(folder) for folder in inputs_like(work, "audio/")]
    parts = {s: labelled(inputs_like(work, "index/"), label_set, (s,)) for s in ("train", "validation")}
    parts = {split: table[table.label != new] for split, table in parts.items()}
    x = {split: embeddings.select(sources, table.utterance_id.tolist()) for split, table in parts.items()}
    y = {split: table.label_index.to_numpy() for split, table in parts.items()}
    figures: dict[str, float] = {}
    if kind == "majority":
        head = classifier.majority(y["train"], names, x["train"].shape[1])
    elif kind == "logistic":
        head = classifier.fit_audio(x["train"], y["train"], names)
    else:
        head, figures = _fit_text(work, x["train"], y["train"], parts["train"].corpus.tolist())
        known = classifier.without(head, new) if new else head
        known_y = np.array([known.labels.index(label) for label in parts["validation"].label], dtype=np.int64)
        corpora = parts["validation"].corpus.tolist()
        log_temperature = classifier.fit_temperature(known, x["validation"], known_y, corpora)
        head = replace(head, log_temperature=log_temperature)
        figures["log_temperature"] = log_temperature
    predicted = head.logits(x["validation"]).argmax(axis=1)
    figures["validation_accuracy"] = float((predicted == y["validation"]).mean())
    return Computed(digests={"content": head.save(work.folder)}, figures=figures)


def _fit_text(
    work: Work, x: "NDArray[np.float32]", y: "NDArray[np.int64]", corpora: list[str]
) -> tuple["Head", dict[str, float]]:
    """Learn a cosine head from text embeddings; source-training audio gives its mean alone."""
    import torch

    from clepdg import classifier, embeddings

    config, new = work.config["classifier"], work.config.get("new_label")
    text = embeddings.load_text_embeddings(work.inputs["text"])
    sets = None
    if "redraws" in work.config:
        per_set = (int(text.context_index.max()) + 1) // work.config["redraws"]
        sets = torch.div(text.context_index, per_set, rounding_mode="floor")  # -1 stays -1
    weight, figures = classifier.fit_text(
        text.embeddings,
        text.label_index,
        len(text.labels),
        config,
        work.config["seed"],
        work.folder,
        work.reporting,
        work.pace,
        new=text.labels.index(new) if new else None,
        sets=sets,
    )
    mean = torch.zeros(weight.shape[1])
    if config.centring != "none":  # `target` replaces it in the evaluation; the temperature is fitted with this one
        mean = torch.from_numpy(classifier.source_mean(x, y, corpora))
    head = classifier.Head(labels=text.labels, cosine=True, weight=weight, bias=torch.zeros(len(weight)), mean=mean)
    return head, figures
