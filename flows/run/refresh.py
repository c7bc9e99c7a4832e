"""Refresh: ask the sources of the pinned run whether they changed, and run again what is stale.

The state of a user's own folder or address is in the key, so a change makes it stale. A download from a card's address
is pinned: a change there is reported, and the download stays in use.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from clepdg.config.presets import option_names
from clepdg.corpora.cards import load_card
from clepdg.download import source as sources
from clepdg.download import upstream
from clepdg.errors import ConfigError, SourceError
from clepdg.hashing import digest, plain
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.graph.pipeline import source
from clepdg_flows.run.plan import Plan, configure
from clepdg_tasks.admin.alerts import SOURCE_CHANGED
from clepdg_tasks.engine import pinned, run_history
from clepdg_tasks.engine.node import decide
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import Settings

GONE = object()  # value of a setting that a configuration does not have

log = logging.getLogger("clepdg")


@dataclass(frozen=True)
class SourceStates:
    """States of the sources, and what changed upstream.

    Attributes:
        states: corpus -> digest of its source's state.
        changes: corpus -> what changed upstream of a pinned corpus.
        notes: why the state of a source is not known.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Return changes and notes, one a line."""
        return (*(line for lines in self.changes.values() for line in lines), *self.notes)


def pinned_run(given: Arguments, settings: Settings) -> Arguments | None:
    """Return the pinned run's arguments, updated by those given, or None.

    Defaults that changed since then, with an upgrade, keep their pinned values. `redo` is not taken over: it was meant
    for one run only.

    Raises:
        ConfigError: another preset is given, the pin can't be read, or it names what is no longer there.
    """
    pin = pinned.pinned(settings)
    if pin is None:
        return None
    if given.preset not in (Arguments().preset, pin.arguments.preset):
        do = f"leave the preset out, or pin a run of it: {pinned.PIN_ONE}"
        raise ConfigError("A refresh runs the pinned preset.", got=given.preset, expected=pin.arguments.preset, do=do)
    explicit: dict[str, Any] = {n: v for n, v in asdict(given).items() if v != getattr(Arguments(), n)}
    merged: dict[str, Any] = {
        n: {**getattr(pin.arguments, n), **v} if isinstance(v, dict) else v for n, v in explicit.items()
    }
    kept = kept_defaults(pin)
    for name, value in kept.items():
        log.warning("%s stays as it was pinned: %s", name, value)
    arguments = replace(pin.arguments, redo=(), overrides={**pin.arguments.overrides, **kept})
    return replace(arguments, **merged | {"overrides": {**arguments.overrides, **given.overrides}})


def kept_defaults(pin: pinned.Finished) -> dict[str, Any]:
    """Return setting -> pinned value, where its default is another one by now."""
    now, then = plain(configure(pin.arguments)), pin.config

    def value(config: Any, name: str) -> Any:
        for part in name.split("."):
            config = config.get(part, GONE) if isinstance(config, dict) else GONE
        return config

    values = {name: (value(then, name), value(now, name)) for name in option_names()}
    return {name: old for name, (old, new) in values.items() if old is not GONE and old != new}


def nothing_pinned() -> dict[str, Any]:
    """Return the result of a refresh where nothing is pinned, and log it."""
    said = f"Nothing is pinned on this machine, so a refresh runs nothing. Pin what it should run: {pinned.PIN_ONE}."
    log.warning(said)
    return {"run": None, "reused": 0, "computed": 0, "stages": {}, "mlflow_run": None, "notes": [said]}


def check_sources(plan: Plan, store: Store) -> SourceStates:
    """Ask every source whether it changed, by a few requests, in parallel.

    A source that can't be reached becomes a note if its output is stored; otherwise the checks before a run report it.
    """
    last = run_history.last_keys(store, plain(plan.config))
    corpora = [corpus for corpus in plan.config.corpora if not load_card(corpus).acoustics]
    with ThreadPoolExecutor(8) as pool:
        each = list(pool.map(lambda corpus: _check_source(plan, corpus, store, last), corpora))
    return SourceStates(
        states={corpus: state for corpus, (state, _, _) in zip(corpora, each, strict=True) if state},
        changes={corpus: changes for corpus, (_, changes, _) in zip(corpora, each, strict=True) if changes},
        notes=tuple(note for _, _, notes in each for note in notes),
    )


def _check_source(
    plan: Plan, corpus: str, store: Store, last: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """Return a source's state or None, what changed upstream, and notes."""
    card, given = load_card(corpus), plan.arguments.sources.get(corpus)
    try:
        state = digest(sources.identify(card, given))
    except SourceError as error:
        before = store.lookup("source", last.get(f"source/{corpus}", "-"))
        if not isinstance(before, Record) or before.config != {"corpus": corpus, "given": given}:
            return None, (), ()
        return before.inputs.get("source"), (), (f"{error.reason} Its last output stays in use.",)
    node = source(plan.config, corpus, plan.arguments.sources, {corpus: state})
    if given is not None or decide(node, {}, store, dict).record is None:
        return state, (), ()  # it is in the key, or it is about to be downloaded
    notes = upstream.check(card, store.documents)
    return state, tuple(upstream.changes(card, store.documents)), tuple(notes)


def report_changes(states: SourceStates) -> None:
    """Log changes and notes, and emit an event for each changed corpus."""
    from prefect.events import emit_event

    for line in states.lines:
        log.warning("%s", line)
    for corpus, lines in states.changes.items():
        emit_event(
            event=SOURCE_CHANGED,
            resource={"prefect.resource.id": f"clep-dg.source.{corpus}", "prefect.resource.name": corpus},
            payload={"corpus": corpus, "message": "\n".join(lines)},
        )
