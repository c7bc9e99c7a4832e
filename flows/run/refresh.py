"""A refresh: the last run again, after its sources were asked whether they changed; only what is stale runs.

The user's own folder or address is in the key by what it says of itself, so a change makes it stale. What a card's
address brought is pinned: a change there is shown to a person, and what was downloaded stays in use.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from clepdg.corpora.cards import load_card
from clepdg.download import source as sources
from clepdg.download import upstream
from clepdg.errors import SourceError
from clepdg.hashing import digest, plain
from clepdg.store.record import Record
from clepdg.store.store import Store
from flows.graph.pipeline import source
from flows.run.plan import Plan
from tasks.engine import run_history
from tasks.engine.node import decide
from tasks.engine.run_history import Arguments

EVENT = "clep-dg.source.changed"

log = logging.getLogger("clepdg")


@dataclass(frozen=True)
class Asked:
    """What the sources say.

    Attributes:
        states: corpus -> digest of its source's state.
        changes: corpus -> what changed upstream of a pinned corpus.
        notes: why a source could not be asked, or tells nothing.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """All that a person should know."""
        return (*(line for lines in self.changes.values() for line in lines), *self.notes)


def last_run(given: Arguments, store: Store) -> Arguments | None:
    """Return the arguments of the last whole run of a preset, with what is given now in their place; None: no run.

    What the last run computed again is not computed again each time.
    """
    last = run_history.last_whole(store, given.preset)
    if last is None:
        return None
    explicit: dict[str, Any] = {n: v for n, v in asdict(given).items() if v != getattr(Arguments(), n)}
    merged: dict[str, Any] = {n: {**getattr(last, n), **v} if isinstance(v, dict) else v for n, v in explicit.items()}
    return replace(last, **({"redo": ()} | merged))


def nothing(preset: str) -> dict[str, Any]:
    """Return the result of a refresh before there was a run, and say so."""
    said = f"Preset {preset} was not run here yet: there is nothing to refresh. Another one is named by --preset."
    log.warning(said)
    return {"run": None, "reused": 0, "computed": 0, "stages": {}, "mlflow_run": None, "notes": [said]}


def ask(plan: Plan, store: Store) -> Asked:
    """Ask every source whether it changed: one request or a few each, side by side; nothing is downloaded.

    A source that can't be reached is a note where its output stands; where it does not, the checks before a run say so.
    """
    last = run_history.last_keys(store, plain(plan.config))
    corpora = [corpus for corpus in plan.config.corpora if not load_card(corpus).acoustics]
    with ThreadPoolExecutor(8) as pool:
        each = list(pool.map(lambda corpus: _ask(plan, corpus, store, last), corpora))
    return Asked(
        states={corpus: state for corpus, (state, _, _) in zip(corpora, each, strict=True) if state},
        changes={corpus: changes for corpus, (_, changes, _) in zip(corpora, each, strict=True) if changes},
        notes=tuple(note for _, _, notes in each for note in notes),
    )


def _ask(
    plan: Plan, corpus: str, store: Store, last: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """Return a source's state, if it is known, what changed upstream, and notes."""
    card, given = load_card(corpus), plan.arguments.sources.get(corpus)
    try:
        state = digest(sources.identify(card, given))
    except SourceError as error:
        before = store.lookup("source", last.get(f"source/{corpus}", "-"))
        if not isinstance(before, Record) or before.config != {"corpus": corpus, "given": given}:
            return None, (), ()
        said = " ".join(str(error).partition("\n  do:")[0].split())
        return before.inputs["source"], (), (f"{said} Its last output stays in use.",)
    node = source(plan.config, corpus, plan.arguments.sources, {corpus: state})
    if given is not None or decide(node, {}, store, dict).record is None:
        return state, (), ()  # it is in the key, or it is about to be downloaded
    notes = upstream.check(card, store.documents)
    return state, tuple(upstream.changes(card, store.documents)), tuple(notes)


def tell(asked: Asked) -> None:
    """Write all into the run's log, and emit an event for every corpus whose publisher says something else now."""
    from prefect.events import emit_event

    for line in asked.lines:
        log.warning("%s", line)
    for corpus, lines in asked.changes.items():
        emit_event(
            event=EVENT,
            resource={"prefect.resource.id": f"clep-dg.source.{corpus}", "prefect.resource.name": corpus},
            payload={"corpus": corpus, "message": "\n".join(lines)},
        )
