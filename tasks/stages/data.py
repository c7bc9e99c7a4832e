"""The data stages: source, index, shard."""

from pathlib import Path

from clepdg.config.schema import IndexConfig, ShardConfig
from clepdg.corpora.cards import load_card
from clepdg_tasks.engine.node import Computed, Work


def compute_source(work: Work) -> Computed:
    """Download and extract a corpus's files, or list the user's folder."""
    from clepdg.download import fetch
    from clepdg.download import source as sources

    figures = fetch.fetch(
        load_card(work.config["corpus"]),
        work.config["given"],
        work.folder,
        pins=work.pins,
        previous=work.previous,
        progress=work.reporting.progress,
    )
    return Computed(digests={"content": sources.content_digest(work.folder)}, figures=figures)


def compute_synthetic(work: Work) -> Computed:
    """Generate a synthetic corpus and list it as a source."""
    from clepdg.corpora import synthetic
    from clepdg.download import source as sources

    card = load_card(work.config["corpus"])
    synthetic.write(card, work.config["synthetic"], work.folder / "tree")
    figures = sources.list_tree(work.folder, work.reporting.progress)
    return Computed(digests={"content": sources.content_digest(work.folder)}, figures=figures)


def _root(work: Work) -> Path:
    """Return the corpus's root: the output's tree, or the user's folder."""
    from clepdg.download import source as sources

    return sources.root(work.inputs["source"], work.records["source"].config.get("given"))


def compute_index(work: Work) -> Computed:
    """Index a corpus: utterance table, quarantine, quality report."""
    from clepdg.dataset import index, quality, tables
    from clepdg.download import source as sources

    source = work.inputs["source"]
    files = sources.read_files(source)
    config: IndexConfig = work.config["index"]
    utterances, quarantine, figures = index.build_index(
        _root(work),
        dict(zip(files.path, files.sha256, strict=True)),
        load_card(work.config["card"]["name"]),
        config,
        workers=work.workers,
        progress=work.reporting.progress,
    )
    tables.write_index(work.folder, utterances, quarantine)
    quality.write_quality(work.folder, work.config["card"]["name"], utterances, quarantine, figures)
    return Computed(digests=tables.digests(utterances, quarantine), figures=figures)


def compute_shard(work: Work) -> Computed:
    """Encode the utterances of a corpus as FLAC in tars, with an offset table."""
    from clepdg.dataset import shard_writer, shards, tables

    config: ShardConfig = work.config["shard"]
    figures = shard_writer.write_shards(
        work.folder,
        _root(work),
        tables.read_utterances(work.inputs["index"]),
        config,
        workers=work.workers,
        progress=work.reporting.progress,
    )
    return Computed(digests=shards.digests(work.folder), figures=figures)
