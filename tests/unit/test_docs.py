"""Protects the documentation: short, whole, true, without broken links, in plain English."""

import argparse
import functools
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clepdg
from clepdg.config.presets import PRESETS, option_names
from clepdg.config.rows import ROWS
from clepdg_flows.cli.main import _parser
from clepdg_flows.cli.options import read_arguments
from clepdg_tasks.engine.node import STAGES
from clepdg_tasks.host.settings_file import NAMES
from tests.benchmark import lines as figures
from tests.unit.test_english import BANNED, SPEECH

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
DOCS = sorted((PROJECT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
OTHERS = [PROJECT / name for name in ("CHANGELOG.md", "NOTICE", "CITATION.cff", "mkdocs.yml")]
COMMANDS = (*"run status fetch import-laion predict serve compare promote export verify gc deploy pin".split(),)
SPEEDS = {  # README's line -> the benchmark's
    "the demo": "The demo",
    "an up-to-date run of its 214 stages, against as many empty Prefect tasks": "An up-to-date run against empty tasks",
    "writing shards, one process": "Writing shards, one process",
    "a training step of `micro`, against a plain loop with transformers": "micro's step against a plain loop",
    "CLAP's log-mels, against transformers' extractor": "Log-mel against transformers' extractor",
}
ROOT = "README.md"  # not part of the site that mkdocs builds


def shell(text: str) -> Iterator[list[str]]:
    """Yield the words of each command line in the sh blocks of a page, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def lines_of(program: str) -> list[tuple[str, ...]]:
    every = [tuple(words) for page in PAGES for words in shell(page.read_text()) if words[0] == program]
    return list(dict.fromkeys(every))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    github = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    mkdocs = [re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads]
    return {*github} & {*mkdocs}


def rows(name: str) -> int:
    """Return how many table rows of all pages define a name: those that begin with it."""
    return sum(len(re.findall(rf"^\| `{re.escape(name)}` \|", page.read_text(), re.MULTILINE)) for page in PAGES)


def options() -> set[str]:
    """Return every option of every command."""
    (commands,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    found = {option for sub in commands.choices.values() for a in sub._actions for option in a.option_strings}
    assert set(commands.choices) == set(COMMANDS)
    return {option for option in found if option.startswith("--")} - {"--help"}


def shown(value: Any) -> str:
    """Return a default as the reference's table shows it."""
    if isinstance(value, bool | None):
        return "none" if value is None else str(value).lower()
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "..." if "{" in text or len(text) > 60 else text or "none"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_points_to_something(page: Path) -> None:
    text = re.sub(r"<!--.*?-->|^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.is_file(), target
        if page != README:
            assert other.is_relative_to(PROJECT / "docs"), f"mkdocs refuses a link out of docs/: {target}"
        if anchor:
            assert anchor in anchors(other.read_text()), target


def test_every_page_is_in_the_overview_and_in_the_site() -> None:
    overview, site = (PROJECT / "docs/index.md").read_text(), (PROJECT / "mkdocs.yml").read_text()
    for page in DOCS:
        assert page.name == "index.md" or f"]({page.name})" in overview, page.name
        assert f": {page.name}\n" in site, page.name


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_no_page_holds_a_banned_phrase(page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text())
    found = [hit[0] for hit in BANNED.finditer(SPEECH.sub("", text))]
    assert not found


@pytest.mark.parametrize("name", sorted({*options(), *NAMES, *option_names(), *STAGES, *ROWS}))
def test_every_option_setting_stage_and_row_is_documented_once(name: str) -> None:
    # `encoder` and such: a row of the results' table; `rows` and such: a setting
    assert rows(name) == 1


def test_every_deployment_is_documented_once() -> None:
    text = (PROJECT / "prefect.yaml").read_text()
    names = re.findall(r"^ {4}name: (\S+)$", text, re.MULTILINE)
    assert "full" in names
    assert Counter({name: rows(f"clep-dg/{name}") for name in names}) == Counter(dict.fromkeys(names, 1))


def test_every_command_function_and_make_target_is_documented_once() -> None:
    targets = re.findall(r"^(\w[\w-]*):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    names = [*(f"make {target}" for target in targets), *(f"clep-dg {command}" for command in COMMANDS)]
    names += [f"clepdg.{function}" for function in clepdg.__all__]
    assert {name: rows(name) for name in names} == dict.fromkeys(names, 1)


@pytest.mark.parametrize("name", option_names())
def test_the_reference_shows_the_default(name: str) -> None:
    text = (PROJECT / "docs/reference.md").read_text()
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \| (.*?) \| (.*?) ?\| (.*?) ?\| .*\|$", text, re.MULTILINE)
    own, *others = [
        shown(functools.reduce(getattr, name.split("."), PRESETS[preset]())) for preset in ("open", "speech", "demo")
    ]
    expected = (own, *(other if other != own else "" for other in others))
    assert all(cell in (value, "...") for cell, value in zip(row, expected, strict=True))


@pytest.fixture
def my_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the corpus that docs/contributing.md adds as an example."""
    text = (PROJECT / "docs/contributing.md").read_text()
    card = re.search(r'^```toml\n(name = "my-corpus"\n.*?)^```', text, re.MULTILINE | re.DOTALL)
    assert card
    (tmp_path / "my-corpus.toml").write_text(card[1])
    monkeypatch.setenv("CLEPDG_CARDS", str(tmp_path))


@pytest.mark.parametrize("words", lines_of("clep-dg"), ids=" ".join)
@pytest.mark.usefixtures("my_corpus")
def test_every_clep_dg_line_is_understood(words: tuple[str, ...]) -> None:
    from clepdg_flows.run.plan import configure

    options = _parser().parse_args(words[1:])
    if words[1] in ("run", "status"):
        configure(read_arguments(options))


def test_the_pages_show_commands() -> None:
    assert {words[1] for words in lines_of("clep-dg")} >= {*COMMANDS}


@pytest.mark.parametrize("words", lines_of("make"), ids=" ".join)
def test_every_make_line_is_a_target(words: tuple[str, ...]) -> None:
    assert re.search(rf"^{words[1]}:", (PROJECT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("words", [w for w in lines_of("prefect") if w[1] == "deployment"], ids=" ".join)
def test_every_deployment_line_is_a_deployment(words: tuple[str, ...]) -> None:
    name = words[3].removeprefix("clep-dg/")
    assert re.search(rf"^ {{4}}name: {name}$", (PROJECT / "prefect.yaml").read_text(), re.MULTILINE)


def modules() -> dict[str, set[str]]:
    """Return room -> its modules, of the code that is there."""
    found: dict[str, set[str]] = {}
    for package in ("clepdg", "tasks", "flows"):
        for path in (PROJECT / package).rglob("*.py"):
            if path.name != "__init__.py":
                found.setdefault(f"{path.parent.relative_to(PROJECT)}/", set()).add(path.stem)
    return found


@pytest.mark.parametrize("room", sorted(modules()))
def test_the_design_names_every_room_and_module(room: str) -> None:
    text = (PROJECT / "docs/design.md").read_text()
    (row,) = re.findall(rf"^\| `{room}` \| (.*) \|$", text, re.MULTILINE)
    assert modules()[room] == set(re.findall(r"`(\w+)`", row))


def test_the_design_names_no_room_that_is_not_there() -> None:
    text = (PROJECT / "docs/design.md").read_text()
    assert set(re.findall(r"^\| `(\S+/)` \|", text, re.MULTILINE)) == set(modules())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:clepdg|tasks|flows|tests|data_manifests|docs)/[\w./-]*)`", page.read_text())
    missing = [name for name in named if not (PROJECT / name).exists()]
    assert missing in ([], ["data_manifests/my-corpus.toml"])


@pytest.mark.parametrize("said", SPEEDS)
def test_the_readme_has_the_speeds_that_were_measured(said):
    lines = json.loads((PROJECT / "docs" / "benchmarks.json").read_text())["lines"]
    own = lines[SPEEDS[said]]
    shown_as = f"{figures.shown(own['value'])} {own['unit'] or 'times as long'}"
    if not own["unit"] and own["more"]:
        shown_as = f"{figures.shown(own['value'])} times as fast"
    assert f"| {said} | {shown_as} |" in README.read_text()
