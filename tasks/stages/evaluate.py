"""Stage evaluate: every row of a fold on its targets."""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clepdg.audio.corruptions import CLEAN
from clepdg.config.schema import EvaluateConfig
from clepdg.emotions import labels
from clepdg.errors import ClepError
from clepdg.evaluation.cells import POOLED
from tasks.engine.node import Computed, Work
from tasks.stages import contexts
from tasks.stages.inputs import inputs_like, labelled

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from clepdg.method.audio_embeddings import AudioEmbeddings


def compute_evaluate(work: Work) -> Computed:
    """Apply every row's heads to the fold's targets; write predictions.parquet and cells.parquet."""
    from clepdg.evaluation import cells as evaluate
    from clepdg.evaluation import special_rows

    label_set = work.config["label_set"]
    splits = ("test",) if work.config["test_only"] else ("train", "validation", "test")
    table = labelled(inputs_like(work, "index/"), label_set, splits).sort_values("utterance_id", ignore_index=True)
    copies = _copies_of_sources(work)
    found = table.utterance_id.isin(copies)
    table = table[~found].reset_index(drop=True)
    test = table[table.split == "test"].reset_index(drop=True)
    heard = {condition: table if condition == CLEAN else test for condition in (CLEAN, *work.config["conditions"])}
    predictions = _predict(work, heard, copies)
    predictions.to_parquet(work.folder / "predictions.parquet", index=False)
    config: EvaluateConfig = work.config["evaluate"]
    cells = evaluate.cells(
        predictions,
        labels(label_set),
        resamples=config.resamples,
        confidence=config.confidence,
        split_units=work.config["split_units"],
    )
    cells = special_rows.annotate(cells, work.config["new_labels"], work.config["ceilings"])
    # every label stands in every cell: Parquet has no place for one without any class
    cells["recalls"] = cells.recalls.map(lambda recalls: {label: recalls.get(label) for label in labels(label_set)})
    cells.to_parquet(work.folder / "cells.parquet", index=False)
    contexts.look(work).to_parquet(work.folder / contexts.FILE, index=False)
    return Computed(
        digests={"content": _digest(predictions, cells), "test": _test_digest(table)},
        figures={"headline": _headline(cells), "utterances": len(table), "copies": int(found.sum())},
    )


def _copies_of_sources(work: Work) -> set[str]:
    """Return the target utterances whose audio a source corpus holds too: the fold has learnt from them.

    They are dropped here, from the target alone: a target never decides what its sources are.
    """
    import pandas as pd

    from clepdg.dataset import shards

    sources, targets = inputs_like(work, "learnt/"), inputs_like(work, "shard/")
    if not sources:
        return set()
    learnt = pd.concat([shards.read_offsets(folder) for folder in sources])
    heard = pd.concat([shards.read_offsets(folder) for folder in targets])
    return set(heard.utterance_id[heard.pcm_sha256.isin(learnt.pcm_sha256[learnt.split != "test"])])


def _test_audio(work: Work, copies: set[str]) -> "pd.DataFrame":
    """Return the targets' test utterances, whatever they are labelled: what centring on the target may hear."""
    import pandas as pd

    from clepdg.dataset import tables

    table = pd.concat([tables.read_utterances(folder) for folder in inputs_like(work, "index/")], ignore_index=True)
    return table[(table.split == "test") & ~table.utterance_id.isin(copies)].sort_values("utterance_id")


def _predict(work: Work, heard: "dict[str, pd.DataFrame]", copies: set[str]) -> "pd.DataFrame":
    """Predict the labels of each condition's utterances with every row's heads, one after another."""
    import numpy as np
    import pandas as pd

    from clepdg.method import classifier
    from clepdg.method.audio_embeddings import select

    heads = [
        (head, classifier.load_head(work.inputs[f"classifier/{head['row']}.{head['seed']}"]))
        for head in work.config["heads"]
    ]
    on_target = any(head["centring"] == "target" for head, _ in heads)
    test_audio = _test_audio(work, copies) if on_target else None
    asked, labels, probabilities = [], [], []
    for condition, table in heard.items():
        embeddings = _embeddings(work, condition)
        embedded = {model: select(found, table.utterance_id.tolist()) for model, found in embeddings.items()}
        for head, loaded in heads:
            if head["model"] not in embeddings:
                continue
            asked.append((table, head, condition))
            x = embedded[head["model"]]
            if test_audio is not None and head["centring"] == "target":
                test = select(embeddings[head["model"]], test_audio.utterance_id.tolist())
                x = _centred(x, table.corpus.to_numpy(), test, test_audio.corpus.to_numpy())
                loaded = replace(loaded, mean=loaded.mean.new_zeros(loaded.mean.shape))
            probabilities.append(loaded.probabilities(x))
            labels.append(np.array(loaded.labels)[probabilities[-1].argmax(axis=1)])
    counts = [len(table) for table, _, _ in asked]
    columns = ["utterance_id", "corpus", "speaker", "cluster", "split", "label"]
    predictions = pd.concat([table[columns] for table, _, _ in asked], ignore_index=True)
    return predictions.rename(columns={"label": "emotion"}).assign(
        fold=work.config["fold"],
        row=np.repeat([head["row"] for _, head, _ in asked], counts),
        seed=np.repeat([head["seed"] for _, head, _ in asked], counts),
        condition=np.repeat([condition for _, _, condition in asked], counts),
        label=np.concatenate(labels),
        probabilities=list(np.concatenate(probabilities)),
    )


def _embeddings(work: Work, condition: str) -> "dict[str, list[AudioEmbeddings]]":
    """Return the targets' embeddings by each model that hears a condition."""
    from clepdg.method.audio_embeddings import load_audio_embeddings

    found: dict[str, list[AudioEmbeddings]] = {}
    for name, folder in sorted(work.inputs.items()):
        if name.startswith("audio/") and name.endswith(f"/{condition}"):
            found.setdefault(name.split("/")[1], []).append(load_audio_embeddings(folder))
    return found


def _centred(
    x: "NDArray[np.float32]", corpora: "NDArray[Any]", test: "NDArray[np.float32]", test_corpora: "NDArray[Any]"
) -> "NDArray[np.float32]":
    """Return x (U, D) without the mean of a target's test audio (V, D), corpus by corpus: transductive.

    Raises:
        ClepError: a target has no test audio.
    """
    x = x.copy()
    for corpus in sorted(set(corpora)):
        if corpus not in test_corpora:
            raise ClepError("There is no test audio to centre a target on.", got=corpus)
        x[corpora == corpus] -= test[test_corpora == corpus].mean(axis=0)
    return x


def _digest(predictions: "pd.DataFrame", cells: "pd.DataFrame") -> str:
    import numpy as np

    total = hashlib.sha256()
    for name in predictions.columns.drop("probabilities"):
        total.update("\n".join(predictions[name]).encode() + b"\0")
    total.update(np.stack(list(predictions.probabilities)).tobytes())
    total.update(cells.to_json(orient="records", double_precision=15).encode())
    return total.hexdigest()


def _test_digest(table: "pd.DataFrame") -> str:
    """Return the digest of what is tested on: two results with equal ones can be compared utterance by utterance."""
    from clepdg.hashing import digest_lines

    test = table[table.split == "test"]
    return digest_lines(test[["utterance_id", "sha256", "label"]].to_numpy().tolist())


def _headline(cells: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Return {row: figures} of the fold's headline target, clean: all of supervised pooled, or the corpus left out."""
    cells = cells[cells.condition == CLEAN]
    targets = list(cells.target.unique())
    target = POOLED if POOLED in targets else targets[0]
    chosen = cells[cells.target == target]
    names = ["uar", "low", "high", "war", "macro_f1", "nll", "ece", "n", "chance"]
    return {
        str(cell["row"]): {
            name: float(cell[name]) for name in names if cell[name] is not None and cell[name] == cell[name]
        }
        for cell in chosen.to_dict(orient="records")
    }
