"""Parts of the report's tables: figures, sections, footnotes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.errors import ConfigError
from clepdg.evaluation.cells import POOLED
from clepdg.evaluation.intervals import UTTERANCES

if TYPE_CHECKING:
    import pandas as pd

Cell = dict[str, Any]

PROTOCOLS = {
    SUPERVISED: "Supervised, joint over all corpora",
    LEAVE_OUT: "Leave one corpus out",
    PAIR: "From one corpus to another",
}


def figure(value: float | None) -> str:
    """Format a figure with three decimals and no leading zero.

    .613, -.012, 1.386; "–" where there is none.
    """
    if value is None or math.isnan(value):
        return "–"
    shown = f"{value:z.3f}"  # z: no minus before zero
    return shown.replace("0.", ".", 1) if abs(float(shown)) < 1 else shown


def interval_words(method: str, cleps: int) -> str:
    """Return in words what an interval is over."""
    if method == UTTERANCES:
        return "over utterances: ignores speakers, credits nothing"
    return f"t {method}" + (f" and {cleps} CLEP seeds" if cleps > 1 else "")


def _test(cell: Cell) -> str:
    return f"{figure(cell['uar_test'])} ({cell['n_test']:.0f})" if cell["uar_test"] == cell["uar_test"] else ""


def _speakers(cell: Cell) -> str:
    effective = f" ({cell['effective']:.1f})" if cell["speakers"] - cell["effective"] >= 0.05 else ""
    return f"{cell['speakers']}{effective}"


FIGURES: dict[str, Callable[[Cell], str]] = {
    "UAR": lambda cell: figure(cell["uar"]),
    "[low, high]": lambda cell: f"[{figure(cell['low'])}, {figure(cell['high'])}]",
    "WAR": lambda cell: figure(cell["war"]),
    "macro-F1": lambda cell: figure(cell["macro_f1"]),
    "NLL": lambda cell: figure(cell["nll"]),
    "ECE": lambda cell: figure(cell["ece"]),
    "largest share": lambda cell: figure(cell["largest_share"]),
    "n": lambda cell: str(cell["n"]),
    "test part (n)": _test,
    "speakers (effective)": _speakers,
    "chance": lambda cell: figure(cell["chance"]),
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The clean cells of one fold and target, in the order of the rows."""

    title: str
    protocol: str
    cells: list[Cell]


@dataclass
class Footnotes:
    """Letters for the remarks on cells.

    A remark on every cell needs no letter.
    """

    everywhere: list[str]
    letters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, sections: Sequence[Group]) -> "Footnotes":
        """Return the footnotes of a table, none of them lettered yet."""
        said = [remarks(cell) for section in sections for cell in section.cells]
        return cls([text for text in (said[0] if len(said) > 1 else []) if all(text in remarks for remarks in said)])

    def of_cell(self, cell: Cell) -> str:
        """Return the letters of a cell, with new ones for new remarks."""
        return " ".join(letter for letter, _ in self.lettered(remarks(cell)))

    def lettered(self, texts: Iterable[str]) -> list[tuple[str, str]]:
        """Return (letter, remark) of the remarks that need a letter."""
        own = [text for text in texts if text not in self.everywhere]
        return [(self.letters.setdefault(text, _letter(len(self.letters))), text) for text in own]

    def lines(self) -> list[str]:
        """Return what is said everywhere, then one line per letter."""
        return [f"all: {text}" for text in self.everywhere] + [f"{name}: {text}" for text, name in self.letters.items()]


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def remarks(cell: Cell) -> list[str]:
    """Return what a cell's interval is over, and its marks."""
    none = cell["interval"] == "none"
    found = "no interval" if none else f"interval: {interval_words(cell['interval'], cell['clep_seeds'])}"
    return [found, *cell["marks"]]


def group(cells: "pd.DataFrame", rows: Mapping[str, str], targets: Sequence[str] | None = None) -> list[Group]:
    """Group the clean cells, keeping the cells' order of folds and targets.

    Raises:
        ConfigError: a row has no title, or a target has no cells.
    """
    unknown = {*cells["row"]} - {*rows} | {*(targets or ())} - {*cells["target"]}
    if unknown:
        raise ConfigError("A row or target is not known.", got=sorted(unknown), expected=[*rows, *set(cells["target"])])
    order = list(rows)
    groups = []
    for (fold, target), part in cells[cells["condition"] == CLEAN].groupby(["fold", "target"], sort=False):
        if targets is None or target in targets:
            own: list[Cell] = [{str(name): value for name, value in cell.items()} for cell in part.to_dict("records")]
            groups.append(
                Group(
                    title=f"{fold}: {target}" if fold == SUPERVISED else str(fold),
                    protocol=kind(str(fold)),
                    cells=sorted(own, key=lambda cell: order.index(cell["row"])),
                )
            )
    return groups


def headline_cells(cells: "pd.DataFrame") -> "pd.DataFrame":
    """Select the cells of the headline targets.

    All corpora of fold supervised together, and every other fold's.
    """
    return cells[(cells["fold"] != SUPERVISED) | (cells["target"] == POOLED)]


def by_protocol(sections: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """Group sections by protocol: (title, sections) of those that ran."""
    grouped = [(title, [s for s in sections if s.protocol == protocol]) for protocol, title in PROTOCOLS.items()]
    return [(title, own) for title, own in grouped if own]


def counts(confusion: Iterable[Iterable[int]]) -> list[list[int]]:
    """Convert a confusion matrix (N, N) to lists.

    Also where it comes back from Parquet as nested arrays.
    """
    return [[int(count) for count in row] for row in confusion]


def text(value: Any) -> str:
    """Return a fact as one line of text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {text(item)}" for name, item in value.items())
    return ", ".join(map(text, value)) if isinstance(value, list | tuple) else str(value)


def cut(text: str, width: int = 100) -> str:
    """Return a text of at most `width` characters; … stands for what is cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def is_table(value: Any) -> bool:
    """Return whether a fact maps names to mappings, one line of a table each."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Mapping) for item in value.values())
