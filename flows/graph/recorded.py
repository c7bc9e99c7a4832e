"""Names in the records of stages that later stages and commands read.

A stored output whose record lacks one is damaged and computed again.
"""

from collections.abc import Mapping
from typing import Final

RECORDED: Final[Mapping[str, Mapping[str, str]]] = {  # stage -> {name in stage.json: kind, of clepdg.store.record}
    "index": {
        "digests.audio": "text",
        "digests.learning": "text",
        **{f"figures.{name}": "count" for name in ("utterances", "quarantined", "excluded", "speakers", "pointers")},
        **{f"figures.{name}": "names" for name in ("crossing", "unmatched", "absent", "reasons")},
        **{f"figures.{name}": "counts" for name in ("splits", "notes", "alterations", "found.raw_labels")},
        **{f"figures.splits.{name}": "count" for name in ("train", "validation", "test")},
        **{f"figures.found.{name}": "count" for name in ("utterances", "speakers")},
        **{f"figures.published.{name}": "count" for name in ("listed", "altered")},
        "figures.seconds": "number",
        "figures.sample_rate": "any",
    },
    "shard": {"digests.learning": "text", "figures.utterances": "count"},
    "features": {"digests.learning": "text"},
    "acpt": {"figures": "numbers"},
    "evaluate": {"digests.test": "text", "figures.copies": "count", "figures.headline": "tables"},
}
