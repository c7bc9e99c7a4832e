from dataclasses import replace
from typing import TYPE_CHECKING

from clepdg.emotions import labels
from tasks.engine.node import Computed, Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clepdg.method.classifier import Head
from tasks.stages.inputs import inputs_like, labelled


def compute_classifier(work: Work) -> Computed:
    """Learn the head of one row: from text, from audio, or by counting labels.

    Of a label that is added by its word alone no utterance is seen: neither in the mean nor for the temperature.
    """
    import numpy as np
    import torch

    from clepdg.method import audio_embeddings, classifier

    label_set, kind, new = work.config["label_set"], work.config["head"], work.config.get("new_label")
    names = labels(label_set)
    torch.set_num_threads(1)  # small matrices: threads would only cost
    sources = [audio_embeddings.load_audio_embeddings(folder) for folder in inputs_like(work, "audio/")]
    parts = {s: labelled(inputs_like(work, "index/"), label_set, (s,)) for s in ("train", "validation")}
    parts = {split: table[table.label != new] for split, table in parts.items()}
    x = {split: audio_embeddings.select(sources, table.utterance_id.tolist()) for split, table in parts.items()}
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

    from clepdg.method import classifier, text_embeddings

    config, new = work.config["classifier"], work.config.get("new_label")
    text = text_embeddings.load_text_embeddings(work.inputs["text"])
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
