"""The classifier stage: the head of one row in one fold."""

from clepdg.emotions import labels
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.stages.inputs import folders_of, read_utterances


def compute_classifier(work: Work) -> Computed:
    """Learn the head of one row: from text, from audio, or by counting labels.

    No utterance of a label that is added by its word alone is used: neither for the mean nor for the temperature.
    """
    import torch

    from clepdg.evaluation.utterances import label_utterances
    from clepdg.method.audio_embeddings import load_audio_embeddings
    from clepdg.method.fold.fit_head import fit_head, labelled_audio
    from clepdg.method.text_embeddings import load_text_embeddings

    torch.set_num_threads(1)  # small matrices: threads would only cost
    label_set, new = work.config["label_set"], work.config.get("new_label")
    embeddings = [load_audio_embeddings(folder) for folder in folders_of(work, "audio_embeddings")]
    utterances = read_utterances(folders_of(work, "index", "learning"))
    train, validation = (
        labelled_audio(label_utterances(utterances, label_set, (split,)), embeddings, without=new)
        for split in ("train", "validation")
    )
    head, figures = fit_head(
        work.config["head"],
        labels(label_set),
        train,
        validation,
        text=load_text_embeddings(work.inputs["text"]) if "text" in work.inputs else None,
        config=work.config.get("classifier"),
        seed=work.config.get("seed", 0),
        folder=work.folder,
        reporting=work.reporting,
        checkpointing=work.checkpointing,
        new_label=new,
        redraws=work.config.get("redraws"),
    )
    return Computed(digests={"content": head.save(work.folder)}, figures=figures)
