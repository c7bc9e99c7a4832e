"""Protects docs/addresses.md: it names every address and hash of the default configuration."""

from pathlib import Path

import pytest

from clepdg.config.presets import PRESETS
from clepdg.corpora.cards import Address, load_card
from clepdg.download.urls import checksums

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "addresses.md").read_text()
OPEN = PRESETS["open"]()
ADDRESSES = [(corpus, address) for corpus in OPEN.corpora for address in load_card(corpus).sources]


@pytest.mark.parametrize(("corpus", "address"), ADDRESSES)
def test_each_address_of_the_cards_has_a_row(corpus: str, address: Address) -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| {corpus} |") and f"`{address.url}`" in line]
    facts = [*checksums(address).values(), address.dataverse, address.files, address.lfs]
    facts += [f"{address.bytes:,}"] if address.bytes else []
    assert [fact for fact in facts if fact and fact not in row] == []
    assert "(seen" in row


def test_there_is_no_row_of_another_address() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith(tuple(f"| {corpus} |" for corpus in OPEN.corpora))]
    assert len(rows) == len(ADDRESSES)


def test_the_default_backbone_is_named_at_its_commit() -> None:
    assert f"`{OPEN.backbone.name}` at `{OPEN.backbone.revision}`" in TEXT
