"""The embedding stages: text_embeddings, audio_embeddings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clepdg.config import TextConfig
from tasks.stages import Computed, Work
from tasks.training import inputs_like, open_clap, quiet_transformers, set_threads

if TYPE_CHECKING:
    from clepdg.audio import Waveform
    from clepdg.corruptions import Condition
    from clepdg.embeddings import Embed


def compute_text_embeddings(work: Work) -> Computed:
    """Embed the label set's words, with the row's contexts."""
    from clepdg import acpt, embeddings

    config = TextConfig(label_set=work.config["label_set"], content_templates=work.config["content_templates"])
    set_threads(work)
    clap = open_clap(work.inputs["model"], work)
    contexts = acpt.load(work.inputs["acpt"]) if "acpt" in work.inputs else work.config["contexts"]
    content, joint = work.config["content_template"], work.config["joint_template"]
    if work.config["how"] == "noise":
        built = embeddings.build_noise_embeddings(clap, config, contexts, content, work.config["seed"], joint)
    else:
        if work.config["how"] == "redrawn":
            contexts = embeddings.redrawn(contexts, work.config["seed"], work.config["redraws"])
        built = embeddings.build_text_embeddings(clap, config, contexts, content, joint)
    return Computed(digests={"content": built.save(work.folder)}, figures={"rows": len(built.embeddings)})


def compute_audio_embeddings(work: Work) -> Computed:
    """Embed every utterance of a corpus; in a condition other than clean, its test part."""
    from clepdg import corruptions, embeddings, shards

    set_threads(work)
    condition = corruptions.parse(work.config["condition"])
    if condition.name == corruptions.CLEAN:
        utterances, total = shards.stream(work.inputs["shard"]), work.records["shard"].figures["utterances"]
    else:
        utterances, total = _corrupted(work, condition)
    built = embeddings.build_audio_embeddings(_embed(work), utterances, total, work.reporting)
    return Computed(digests={"content": built.save(work.folder)}, figures={"utterances": len(built.utterance_ids)})


def _embed(work: Work) -> "Embed":
    """Return what embeds waveforms: statistics, functionals, a speech encoder, or a CLAP."""
    from clepdg import audio, egemaps, embeddings, encoders

    model = work.config.get("model")
    if model == "log-mel":
        return embeddings.one_by_one(audio.log_mel_statistics)
    if model == "egemaps":
        return embeddings.one_by_one(egemaps.functionals)
    if model == "encoder":
        quiet_transformers()
        return embeddings.one_by_one(encoders.load_encoder(work.inputs["model"], device=work.device).encode)
    clap = open_clap(work.inputs["model"], work)
    return lambda batch: clap.encode_waveforms(batch).cpu().numpy()


def _corrupted(work: Work, condition: "Condition") -> tuple[Iterator[tuple[str, "Waveform", int]], int]:
    """Return the test utterances of a corpus as they sound in a condition, and how many there are."""
    from clepdg import corruptions, noises, shards

    recordings: list[Waveform] = []
    if condition.of_babble:
        recordings = noises.talkers(inputs_like(work, "talkers/"))
    elif condition.noise == noises.OWN:
        recordings = noises.read_noises(work.config["noise_folder"])
    offsets = shards.read_offsets(work.inputs["shard"])
    test = offsets[offsets.split == "test"]
    heard = (
        (name, corruptions.corrupt(waveform, rate, name, condition, recordings), noises.RATE)
        for name, waveform, rate in shards.read_some(work.inputs["shard"], test)
    )
    return heard, len(test)
