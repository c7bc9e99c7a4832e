"""What a run's arguments mean: its configuration, its graph, and what can be checked before work starts."""

from collections.abc import Callable, Mapping
from functools import partial

from clepdg.audio.corruptions import conditions
from clepdg.audio.noise import OWN, find_noises
from clepdg.config.folds import folds
from clepdg.config.presets import build
from clepdg.config.rows import rows
from clepdg.config.schema import MADE_HERE, Config
from clepdg.corpora.cards import load_card
from clepdg.download import source as sources
from clepdg.errors import ConfigError
from clepdg.store.store import Store
from flows.graph.models import backbone, encoder
from flows.graph.pipeline import graph, source
from tasks.engine.node import DATA_STAGES, STAGES, Node, decide
from tasks.engine.run_history import Arguments
from tasks.host import preflight
from tasks.host.settings import Settings


def plan(arguments: Arguments, states: Mapping[str, str] | None = None) -> tuple[Config, list[Node]]:
    """Return the configuration and the graph of a run.

    Args:
        states: corpus -> digest of its source's state, where that was asked for already.

    Raises:
        ClepError: an argument is not valid, or a source can't be had.
    """
    config = configure(arguments)
    nodes = graph(
        config,
        arguments.sources,
        only_folds=arguments.folds,
        until=arguments.until,
        allow_partial=arguments.allow_partial,
        states=states,
        allow_unknown=arguments.allow_pickle_weights,
    )
    return config, nodes


def configure(arguments: Arguments) -> Config:
    """Return the configuration that a run's arguments ask for.

    Raises:
        ConfigError: an argument is not valid; the message lists what is.
    """
    for stage in (*arguments.redo, *([arguments.until] if arguments.until else [])):
        if stage not in STAGES:
            raise ConfigError("There is no such stage.", got=stage, expected=STAGES)
    config = build(
        arguments.preset,
        backbone=arguments.backbone,
        corpora=arguments.corpora,
        overrides=arguments.overrides,
    )
    for corpus in config.corpora:
        load_card(corpus)
    if arguments.until not in DATA_STAGES:
        folds(config.corpora, config.protocols, arguments.folds)
    rows(config.rows, config.encoder.name)
    if any(condition.noise == OWN for condition in conditions(config.evaluate.conditions)):
        find_noises(config.evaluate.noise_folder)
    unknown = sorted(set(arguments.sources) - set(config.corpora))
    if unknown:
        raise ConfigError(
            "A source is given for a corpus that is not in this run.", got=unknown, expected=config.corpora
        )
    return config


def check(arguments: Arguments, settings: Settings, states: Mapping[str, str] | None = None) -> None:
    """Raise everything that can be known before work starts, in one error; `states` as in `plan`."""
    config = configure(arguments)
    store = settings.open_store()
    checks: dict[str, Callable[[], object]] = {
        f"source {corpus}": partial(_check_source, config, corpus, arguments, store, states or {})
        for corpus in config.corpora
    }
    models = arguments.until not in DATA_STAGES
    preflight.check(
        config, settings, checks | (_model_checks(config, arguments, store) if models else {}), models=models
    )


def _model_checks(config: Config, arguments: Arguments, store: Store) -> dict[str, Callable[[], object]]:
    """Return the checks of a run's models; the hub is not asked for one that lies in the store already."""
    allow = arguments.allow_pickle_weights
    checks: dict[str, Callable[[], object]] = {}
    if config.backbone.name in MADE_HERE or decide(backbone(config), {}, store, dict).record is None:
        checks["backbone"] = partial(preflight.check_backbone, config, allow_unknown=allow)
    if config.encoder.name and decide(encoder(config), {}, store, dict).record is None:
        checks["encoder"] = partial(preflight.check_encoder, config, allow_unknown=allow)
    return checks


def _check_source(config: Config, corpus: str, arguments: Arguments, store: Store, states: Mapping[str, str]) -> None:
    """Raise where a source can't be had; one that lies in the store already need not be reached."""
    card, given = load_card(corpus), arguments.sources.get(corpus)
    node = source(config, corpus, arguments.sources, states)
    if not card.acoustics and decide(node, {}, store, dict).record is None:
        sources.reach(card, given)
