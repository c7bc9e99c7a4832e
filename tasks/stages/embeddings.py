"""The embedding stages: text_embeddings, audio_embeddings."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clepdg.config.schema import TextConfig
from clepdg.prompts import CONTEXT_OF
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.stages.inputs import folders_of, open_clap, quiet_transformers, set_threads

if TYPE_CHECKING:
    from clepdg.audio.io import Waveform
    from clepdg.config.conditions import Condition
    from clepdg.method.audio_embeddings import AudioEmbeddings, Embed


def compute_text_embeddings(work: Work) -> Computed:
    """Embed the label set's words, with the row's contexts."""
    from clepdg.method import acpt, text_embeddings

    config = TextConfig(label_set=work.config["label_set"], content_templates=work.config["content_templates"])
    set_threads(work)
    clap = open_clap(work.inputs["model"], work)
    contexts = acpt.load(work.inputs["acpt"]) if "acpt" in work.inputs else work.config["contexts"]
    content, joint = work.config["content_template"], work.config["joint_template"]
    if work.config["how"] == "noise":
        built = text_embeddings.build_noise_embeddings(clap, config, contexts, content, work.config["seed"], joint)
    else:
        if work.config["how"] == "redrawn":
            contexts = text_embeddings.redraw_contexts(contexts, work.config["seed"], work.config["redraws"])
        built = text_embeddings.build_text_embeddings(clap, config, contexts, content, joint)
    return Computed(digests={"content": built.save(work.folder)}, figures={"rows": len(built.embeddings)})


def compute_features(work: Work) -> Computed:
    """Pool a speech encoder's states of a corpus's utterances."""
    from clepdg.dataset import shards
    from clepdg.method.audio_embeddings import batched, build_audio_embeddings
    from clepdg.models.speech_encoder import load_encoder

    set_threads(work)
    quiet_transformers()
    encoder = load_encoder(work.inputs["backbone"] / "audio", device=work.device)
    built = build_audio_embeddings(batched(encoder.pool), *_heard(work), work.reporting)
    split = shards.read_offsets(work.inputs["shard"]).set_index("utterance_id").split
    learning = [name for name in built.utterance_ids if split[name] != "test"]
    digests = {"content": built.save(work.folder), "learning": built.digest(learning)}
    return Computed(digests=digests, figures={"utterances": len(built.utterance_ids)})


def compute_environments(work: Work) -> Computed:
    """Pool the states of a sample of utterances in environments.

    The sample is of a corpus's train and validation parts.
    """
    from clepdg.dataset import shards
    from clepdg.method.audio_embeddings import batched, build_audio_embeddings
    from clepdg.method.pretraining.dual_context import in_environments, sample
    from clepdg.models.speech_encoder import load_encoder

    set_threads(work)
    quiet_transformers()
    encoder, folder = load_encoder(work.inputs["backbone"] / "audio", device=work.device), work.inputs["shard"]
    offsets, seed = shards.read_offsets(folder).assign(folder=str(folder)), work.config["seed"]
    chosen = sample(offsets, work.config["utterances"], seed)
    heard = in_environments(chosen, shards.babble_voices([folder]), seed)
    built = build_audio_embeddings(batched(encoder.pool), heard, len(chosen) * len(CONTEXT_OF), work.reporting)
    content = built.save(work.folder)
    return Computed(digests={"content": content, "learning": content}, figures={"utterances": len(chosen)})


def compute_audio_embeddings(work: Work) -> Computed:
    """Embed a corpus's utterances, clean or in a corruption."""
    from clepdg.method import audio_embeddings

    set_threads(work)
    if "features" in work.inputs or "standardise" in work.config:
        built = _embed_states(work)
    else:
        batch_size = 256 if work.device.startswith("cuda") else 32
        built = audio_embeddings.build_audio_embeddings(_embed(work), *_heard(work), work.reporting, batch_size)
    return Computed(digests={"content": built.save(work.folder)}, figures={"utterances": len(built.utterance_ids)})


def _embed_states(work: Work) -> "AudioEmbeddings":
    """Embed pooled states by the stage's model; without one, flatten them."""
    from clepdg.dataset import shards
    from clepdg.method import audio_embeddings

    clap: Any = open_clap(work.inputs["model"], work) if "model" in work.inputs else None
    if "features" in work.inputs:
        states = audio_embeddings.load_audio_embeddings(work.inputs["features"], dimensions=3)
    else:
        states = audio_embeddings.build_audio_embeddings(clap.pool, *_heard(work), work.reporting)
    x = states.embeddings
    if clap is None:
        return replace(states, embeddings=x.reshape(len(x), -1))
    if work.config.get("standardise") == "target":
        split = shards.read_offsets(work.inputs["shard"]).set_index("utterance_id").split
        test = (split[[*states.utterance_ids]] == "test").to_numpy()
        states = replace(states, embeddings=clap.model.audio_projection.standardise(x, x[test]))
    return audio_embeddings.embed_states(clap, states)


def _heard(work: Work) -> tuple[Iterator[tuple[str, "Waveform", int]], int]:
    """Return the utterances of the stage's condition, and their number.

    They are read, and corrupted, ahead of their use in threads: clean ones in the order of the tars, corrupted ones in
    that of the offset table.
    """
    from clepdg.config.conditions import CLEAN, parse
    from clepdg.dataset import shards
    from clepdg.dataset.kept import clear, corrupted_reader
    from clepdg.training.batches import map_ahead

    offsets = shards.read_offsets(work.inputs["shard"])
    if work.config.get("utterances") == "test":
        offsets = offsets[offsets.split == "test"]
    condition = parse(work.config["condition"])
    clean = condition.name == CLEAN
    if clean:
        offsets = offsets.sort_values("tar", kind="stable")
    reader, names = shards.reader_of(work.inputs["shard"], offsets), offsets.utterance_id.tolist()
    load: Callable[[int], tuple[Waveform, int]] = reader.waveform
    if clean:
        clear()
    else:
        corpus = work.records["shard"].digests["content"]
        load = corrupted_reader(reader, names, condition, _recordings(work, condition), corpus)
    heard = zip(names, map_ahead(load, range(len(names))), strict=True)
    return ((name, *each) for name, each in heard), len(names)


def _embed(work: Work) -> "Embed":
    """Return the function that embeds waveforms by the stage's model."""
    import torch

    from clepdg.method import audio_embeddings
    from clepdg.models import egemaps, speech_encoder
    from clepdg.models.log_mel_statistics import log_mel_statistics

    model = work.config.get("model")
    if model == "log-mel":
        torch.set_num_threads(1)  # an utterance is too short to be shared out
        return audio_embeddings.batched(log_mel_statistics)
    if model == "egemaps":
        return audio_embeddings.batched(egemaps.functionals)
    if model == "encoder":
        quiet_transformers()
        return audio_embeddings.batched(speech_encoder.load_encoder(work.inputs["model"], device=work.device).encode)
    clap = open_clap(work.inputs["model"], work)
    return lambda batch: clap.encode_waveforms(batch).cpu().numpy()


def _recordings(work: Work, condition: "Condition") -> "list[Waveform]":
    """Return the recordings that a condition's noise is made of."""
    from clepdg.audio.noise import read_noises
    from clepdg.config.conditions import OWN
    from clepdg.dataset import shards

    if condition.uses_babble:
        return shards.babble_voices(folders_of(work, "shard", "learning"))
    return read_noises(work.config["noise_folder"]) if condition.noise == OWN else []
