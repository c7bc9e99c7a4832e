"""The plan of a run: its configuration and its graph, each made once, and the checks before work starts."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, partial

from clepdg.config.conditions import OWN, conditions
from clepdg.config.folds import folds
from clepdg.config.label_sets import corpora_of
from clepdg.config.presets import build
from clepdg.config.rows import rows
from clepdg.config.schema import MADE_HERE, Config
from clepdg.corpora.cards import load_card
from clepdg.download import source as sources
from clepdg.download.urls import validate
from clepdg.errors import ConfigError, unknown_name
from clepdg.store.store import Store
from clepdg_flows.graph.models import backbone, encoder, is_dual
from clepdg_flows.graph.pipeline import graph, source
from clepdg_tasks.engine.node import DATA_STAGES, STAGES, Node, decide
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host import model_checks, preflight
from clepdg_tasks.host.settings import Settings


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
        config: the configuration that the arguments ask for.
        states: corpus -> digest of its source's state, where it is known already.
    """

    arguments: Arguments
    config: Config
    states: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> list[Node]:
        """Build the graph, at the first use.

        The checks come before it, and report all faults together.

        Raises:
            ClepError: a source can't be had.
        """
        arguments = self.arguments
        return graph(
            self.config,
            arguments.sources,
            folds=arguments.folds,
            until=arguments.until,
            allow_partial=arguments.allow_partial,
            allow_pickle_weights=arguments.allow_pickle_weights,
            states=self.states,
        )


# The plan that the command line made and checked; the flow, which runs in the same process, takes it from here.
CHECKED: ContextVar[Plan | None] = ContextVar("CHECKED", default=None)


def make_plan(arguments: Arguments) -> Plan:
    """Make the plan of a run.

    Raises:
        ConfigError: an argument is not valid; the message lists what is.
    """
    return Plan(arguments, configure(arguments))


def configure(arguments: Arguments) -> Config:
    """Return the configuration that a run's arguments ask for.

    Raises:
        ConfigError: an argument is not valid; the message lists what is.
        SourceError: a source is no address, or holds a secret.
    """
    for stage in (*arguments.redo, *([arguments.until] if arguments.until else [])):
        if stage not in STAGES:
            raise unknown_name("stage", stage, STAGES, "docs/reference.md#stages")
    config = build(
        arguments.preset,
        backbone=arguments.backbone,
        corpora=arguments.corpora,
        overrides=arguments.overrides,
    )
    for corpus in (*config.corpora, *corpora_of(config.text.label_set)):
        load_card(corpus)
    if arguments.until not in DATA_STAGES:
        folds(config.corpora, config.protocols, arguments.folds)
    rows(config.rows, config.encoder.name, dual=is_dual(config))
    if any(condition.noise == OWN for condition in conditions(config.evaluate.conditions)):
        from clepdg.audio.noise import find_noises

        find_noises(config.evaluate.noise_folder)
    unknown = sorted(set(arguments.sources) - set(config.corpora))
    if unknown:
        raise ConfigError(
            "A source is given for a corpus that is not in this run.", got=unknown, expected=config.corpora
        )
    for corpus, given in arguments.sources.items():
        validate(load_card(corpus), given)
    return config


def check(plan: Plan, settings: Settings) -> None:
    """Check sources, models, disk and device before work starts.

    Raises:
        ClepError: everything that is wrong, in one message.
    """
    store = settings.open_store()
    checks: dict[str, Callable[[], object]] = {
        f"source {corpus}": partial(_check_source, plan, corpus, store) for corpus in plan.config.corpora
    }
    models = plan.arguments.until not in DATA_STAGES
    preflight.check(plan.config, settings, checks | (_model_checks(plan, store) if models else {}), models=models)


def check_named_models(plan: Plan, store: Store) -> None:
    """Check the models that a run's arguments name, as `check` does.

    Raises:
        ClepError: one is not available.
    """
    given = {"backbone": plan.arguments.backbone, "encoder": plan.arguments.overrides.get("encoder.name")}
    if plan.arguments.until not in DATA_STAGES:
        for name, check_model in _model_checks(plan, store).items():
            if given[name]:
                check_model()


def _model_checks(plan: Plan, store: Store) -> dict[str, Callable[[], object]]:
    """Return the checks of a run's models that are not in the store."""
    config, allow = plan.config, plan.arguments.allow_pickle_weights
    checks: dict[str, Callable[[], object]] = {}
    if config.backbone.name in MADE_HERE or decide(backbone(config), {}, store, dict).record is None:
        checks["backbone"] = partial(model_checks.check_backbone, config, allow_unknown=allow)
    if config.encoder.name and decide(encoder(config), {}, store, dict).record is None:
        checks["encoder"] = partial(model_checks.check_encoder, config, allow_unknown=allow)
    return checks


def _check_source(plan: Plan, corpus: str, store: Store) -> None:
    """Raise where a source can't be had and is not in the store."""
    card, given = load_card(corpus), plan.arguments.sources.get(corpus)
    node = source(plan.config, corpus, plan.arguments.sources, plan.states)
    if not card.acoustics and decide(node, {}, store, dict).record is None:
        sources.check_reachable(card, given)
