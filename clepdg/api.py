"""Use the library in a notebook: corpora, CLAP, CLEP, contexts, classifiers and results.

Needs neither Prefect nor MLflow. `settings` are those of clepdg.config: fit_clep(clap, utterances, epochs=3) sets
clep.epochs.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.callbacks import Reporting
from clepdg.config.model_pins import local_folder
from clepdg.config.schema import AcptConfig, ClassifierConfig, ClepConfig, ComputeConfig, TextConfig
from clepdg.emotions import EMOTIONS
from clepdg.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from clepdg.method.emotion_classifier import EmotionClassifier
    from clepdg.models.clap import Clap


def load_corpus(
    name: str,
    source: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    allow_partial: bool = False,
    **settings: Any,
) -> "pd.DataFrame":
    """Download or generate, index and shard a corpus; return utterances.

    Args:
        name: of a card in data_manifests.
        source: the user's own folder, archive or address; None: the card's addresses.
        folder: keeps the shards for the next call; None: a temporary folder.
        allow_partial: accept a copy that is not complete by its card.
        settings: of SyntheticConfig, for a synthetic corpus.

    Returns:
        The columns of the index (utterance_id, speaker, emotion, ...) and audio's place (folder, tar, offset, bytes).

    Raises:
        ClepError: there is no such corpus, its source can't be had, or it is not what its card says.

    >>> load_corpus("synthetic-1", utterances=20).split.value_counts().to_dict()
    {'train': 8, 'test': 8, 'validation': 4}
    """
    from clepdg.method.prepare_corpus import prepare_corpus

    root = Path(folder).absolute() if folder else Path(tempfile.mkdtemp(prefix="clepdg-"))
    given = None if source is None else str(source)
    return prepare_corpus(name, given, root, allow_partial=allow_partial, settings=settings)


def load_clap(name: str | Path, *, device: str = "cpu", seed: int = 0, allow_pickle_weights: bool = False) -> "Clap":
    """Load a backbone: "micro", a folder, a hub name, "dual:AUDIO+TEXT".

    Args:
        name: on the hub NAME where it is pinned, else NAME@COMMIT; AUDIO and TEXT are such names or folders.
        seed: of random weights: micro's, or those of dual's heads.
        allow_pickle_weights: read pickled weights whose bytes no pin names.

    >>> load_clap("micro").encode_text(["happy speech"]).shape
    torch.Size([1, 128])
    """
    from clepdg.config.model_pins import DUAL, DUAL_CONTEXT, LAION, dual_parts, pinned_revision
    from clepdg.config.schema import MICRO, MICRO_CONTEXT
    from clepdg.download import hub
    from clepdg.models.dual import build_dual
    from clepdg.models.files import CLAP_FILES, ENCODER_FILES, TEXT_FILES, Choose
    from clepdg.models.folder import load_model
    from clepdg.models.micro import build_micro

    def place(part: str, commit: str | None, choose: Choose) -> Path:
        folder = local_folder(part)
        if folder is None:
            hub.check(part, commit, choose, allow_unknown=allow_pickle_weights)
            folder = hub.fetch(part, str(commit), choose)
        return folder

    by_a_run = str(name) == MICRO_CONTEXT or str(name).startswith(DUAL_CONTEXT)
    if by_a_run or str(name).startswith(LAION):
        expected = f'"{MICRO}", a folder, a hub name such as "laion/clap-htsat-unfused", or "{DUAL}AUDIO+TEXT"'
        do = f"a run pretrains it: clep-dg run --backbone {name}" if by_a_run else "convert it: clep-dg import-laion"
        raise ConfigError("This backbone can't be loaded by its name here.", got=name, expected=expected, do=do)
    if str(name) == MICRO:
        return build_micro(seed, device=device)
    if str(name).startswith(DUAL):
        audio, text = dual_parts(str(name))
        folders = place(*audio, ENCODER_FILES), place(*text, TEXT_FILES)
        return build_dual(*folders, seed, device=device, allow_unknown=allow_pickle_weights)
    repository, _, revision = (str(name), "", "") if local_folder(str(name)) else str(name).partition("@")
    folder = place(repository, revision or pinned_revision(repository), CLAP_FILES)
    return load_model(folder, device=device, allow_unknown=allow_pickle_weights)


def fit_clep(
    clap: "Clap", utterances: "pd.DataFrame", *, seed: int = 0, folder: str | Path | None = None, **settings: Any
) -> "Clap":
    """Fine-tune a copy of a CLAP on emotional speech; keep the best epoch.

    Args:
        utterances: of load_corpus, several corpora concatenated; parts train and validation are used.
        folder: keeps checkpoints, so that a broken training resumes; None: none are kept.
        settings: of ClepConfig, such as epochs=3.

    >>> speech = load_corpus("synthetic-1", utterances=20)
    >>> clep = fit_clep(load_clap("micro"), speech, epochs=1, steps_per_epoch=1, batch_size=4, from_scratch=True)
    """
    from clepdg.method import clep
    from clepdg.method.emotion_classifier import pool_states

    trained, learning = copy.deepcopy(clap), utterances[utterances.split != "test"]
    emotions = tuple(emotion for emotion in EMOTIONS if emotion in set(learning.emotion))
    config, states = ClepConfig(**settings), pool_states(trained, learning)
    with _kept(folder) as place:
        clep.fit(trained, learning, emotions, config, ComputeConfig(), seed, place, Reporting(), states=states)
    return trained


def learn_contexts(
    clep: "Clap", emotions: Sequence[str], *, seed: int = 0, folder: str | Path | None = None, **settings: Any
) -> "torch.Tensor":
    """Learn contexts from text alone; return their vectors V (K, M, H).

    Args:
        emotions: canonical emotions that contexts must leave readable, such as those of the training corpora.
        settings: of AcptConfig, such as contexts=16, epochs=100.

    >>> clep = load_clap("micro")
    >>> learn_contexts(clep, ["angry", "happy", "neutral", "sad"], contexts=2, tokens=1, epochs=1).shape
    torch.Size([2, 1, 128])
    """
    from clepdg.method import acpt

    if isinstance(emotions, str) or not emotions or not {*emotions} <= {*EMOTIONS}:
        raise ConfigError("Contexts need a list of canonical emotions.", got=emotions, expected=EMOTIONS)
    with _kept(folder) as place:
        config = AcptConfig(**settings)
        vectors, _ = acpt.fit(clep, tuple(emotions), config, ComputeConfig(), seed, place, Reporting())
    return vectors.detach().cpu()


def fit_classifier(
    clep: "Clap",
    contexts: "torch.Tensor | None",
    utterances: "pd.DataFrame",
    *,
    label_set: str | dict[str, Any] = "4",
    seed: int = 0,
    **settings: Any,
) -> "EmotionClassifier":
    """Train a classifier on emotion words in every context; calibrate it.

    Args:
        contexts: vectors V (K, M, H) of learn_contexts; None: the words alone.
        utterances: of load_corpus; part train gives the audio mean, part validation the temperature.
        label_set: "4", "6", "7", "8", a TOML file of classes, or {label: its canonical emotions}.
        settings: of ClassifierConfig, such as steps=200, centring="none".

    >>> speech = load_corpus("synthetic-1", utterances=20)
    >>> model = fit_classifier(load_clap("micro"), None, speech, steps=5)
    >>> list(model.predict(speech[speech.split == "test"]).columns)
    ['emotion', 'angry', 'happy', 'neutral', 'sad']
    """
    from clepdg.config.label_sets import of_targets, read
    from clepdg.dataset.shards import waveforms_of
    from clepdg.evaluation.utterances import label_utterances
    from clepdg.method.emotion_classifier import EmotionClassifier, embed
    from clepdg.method.fold.fit_head import LabelledAudio, fit_head
    from clepdg.method.text_embeddings import build_text_embeddings

    config, words = ClassifierConfig(**settings), TextConfig(label_set=read(label_set))

    def part(split: str) -> LabelledAudio:
        table = label_utterances(utterances, of_targets(words.label_set, ()), (split,))
        x = embed(clep, waveforms_of(table))
        return LabelledAudio(x=x, y=table.label_index.to_numpy(), corpora=tuple(table.corpus))

    text = build_text_embeddings(clep, words, () if contexts is None else contexts)
    with _kept(None) as place:
        parts = part("train"), part("validation")
        head, _ = fit_head("text", text.labels, *parts, text=text, config=config, seed=seed, folder=place)
    return EmotionClassifier(clep, head)


def load_classifier(
    name: str | Path | int = "champion", *, preset: str = "open", emotions: Sequence[str] | None = None
) -> "EmotionClassifier":
    """Load a classifier: its folder, or a registered version or alias.

    Args:
        name: a folder of EmotionClassifier.save, or a version's number or alias.
        preset: whose registered classifiers are meant.
        emotions: words that a registered classifier is made anew for, from text alone; None: its own labels.

    Raises:
        ClepError: the folder is not whole, or there is no such version.
    """
    from clepdg.method.emotion_classifier import EmotionClassifier
    from clepdg.method.heads import load_head
    from clepdg.models.folder import load_model as load

    chosen, folder = str(name), local_folder(str(name))
    if emotions is None and folder and (folder / "head").is_dir():
        clep = folder / "clep"  # where earlier releases saved it
        return EmotionClassifier(load(clep if clep.is_dir() else folder), load_head(folder / "head"))
    missing = "There is no such folder and no such registered classifier."
    expected = "a folder of EmotionClassifier.save or clep-dg export, or a version's number or alias"
    if folder or len(Path(chosen).parts) != 1:
        lacks = "There is no classifier in this folder." if emotions is None else "A folder has no other emotions."
        raise ConfigError(lacks if folder else missing, got=name, expected=expected)
    for registry in entry_points(group="clepdg.registry"):  # this library knows no tracker: an installed one answers
        try:
            return EmotionClassifier(*registry.load()(chosen, preset, emotions))
        except ConfigError as error:
            if chosen == "champion" or chosen.isdigit():
                raise
            raise ConfigError(missing, got=name, expected=expected, children=[error]) from error
    raise ConfigError(missing, got=name, expected=expected)


def results(run: str, store: str | Path | None = None) -> "dict[str, pd.DataFrame]":
    """Return "predictions" and "cells" of a run, over all of its folds.

    Args:
        run: a run's name, or a preset, for its newest run.
        store: address of the store; None: CLEPDG_STORE, else the folder store in CLEPDG_HOME or var.
    """
    from clepdg.evaluation.run_results import read_results

    return read_results(run, store)


@contextmanager
def _kept(folder: str | Path | None) -> Iterator[Path]:
    """Give the user's folder, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="clepdg-") as place:
            yield Path(place)
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    yield Path(folder)
