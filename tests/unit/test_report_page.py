"""Protects the report's page in a browser: it draws, sorts, filters and prints, at every width, light and dark."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from clepdg.evaluation import cells as evaluate
from clepdg.report.report import write_report
from clepdg.report.section import Section, templates
from clepdg.report.sections.calibration import calibration_chart
from clepdg.report.sections.curves import Course, curve_chart
from clepdg.report.sections.data import Corpus, data
from clepdg.report.sections.listen import AUDIO_BYTES, listen
from tests.unit import test_listen as spoken
from tests.unit import test_report_sections as maps
from tests.unit.test_report import FACTS, LABELS, noisy, predictions  # noqa: F401 (fixtures)
from tests.unit.test_report import ROWS as SHORT

LONG = "a method whose title is longer than a chart on a telephone is wide, in brackets (transductive)"
UNBROKEN = "unbroken" * 21
ROWS = {**SHORT, "text-acpt": f"{SHORT['text-acpt']} {UNBROKEN}", "probe": f"{LONG} ceiling"}
ADDRESS = f"https://example.org/{'unbroken' * 20}"
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
OPEN = "document.querySelectorAll('details').forEach((fold) => { fold.open = true; })"
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.system, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, noisy: pd.DataFrame) -> str:  # noqa: F811
    """The page of a report with corruptions and long names, as a file."""
    folder = tmp_path_factory.mktemp("page")
    units = {"alpha": "speaker", "beta": "official"}
    cells = evaluate.cells(noisy, LABELS, confidence=0.95, split_units=units)
    write_report(folder, cells, noisy, {**FACTS, "machines": {"a": {"cores": 2}}}, ROWS, sections=sections())
    return (folder / "report.html").as_uri()


def sections() -> list[Section]:
    """Return sections with audio, a picture, charts of long names, an address and more columns than paper has."""
    heard = listen(spoken.PREDICTIONS, spoken.NAMES, spoken.ROWS, {"tess": spoken.CARD}, {}, spoken.read)
    columns = [
        {"title": "method", "sub": ""},
        *({"title": f"from alpha to beta-{number}", "sub": "UAR"} for number in range(40)),
    ]
    cell = {"text": ".500", "sub": "[.400, .600]", "value": "0.5"}
    line = {"title": LONG, "kind": "main", "more": False, "cells": [cell] * 40}
    many = templates().from_string(
        '{% import "macros.html.j2" as page %}{{ page.table("many", columns, [line], [("", 1), ("pairs", 40)]) }}'
    )
    card = {"title": "T", "licence": ADDRESS, "language": "en", "citation": "C", "homepage": ADDRESS, "faults": ()}
    utterances = pd.DataFrame(
        {"emotion": ["angry"], "split": ["test"], "speaker": ["a"], "num_samples": [16000], "sample_rate": [16000]}
    )
    courses = [Course(fold=f"leave-out-{LONG}-{n}", seed="c0", metrics={"loss": [(0.5, 1), (2, n)]}) for n in (1, 2)]
    points = [
        {"row": row, "method": title, "sure": 0.5, "right": 0.5, "predictions": 8}
        for row, title in {"clep-probe": LONG, "log-mel": f"{LONG} floor"}.items()
    ]
    charts = [
        curve_chart(courses, "loss", "loss", "loss", "loss"),
        calibration_chart(points, dict.fromkeys(("clep-probe", "log-mel"), "")),
    ]
    charts = [chart for chart in charts if chart]
    drawn = templates().from_string("{% for each in charts %}{{ chart(each) }}{% endfor %}").render(charts=charts)
    wide = Markup(many.render(columns=columns, line=line))
    found = maps.embedding_map("leave-out-c", maps.LABELS, maps.clouds(), np.zeros(3), np.zeros(3))
    learnt_ = maps.learnt([], [], [found], {}, {}, maps.EMPTY, {}, {})
    assert heard is not None and learnt_ is not None
    return [
        heard,
        learnt_,
        data({"alpha": Corpus(card=card, utterances=utterances, picture=PIXEL)}),
        Section(id="long", title="Long names", html=Markup(drawn), charts=charts),
        Section(id="wide", title="Many columns", html=wide),
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """Return a function that opens the page, and fails at the end where the console has anything."""
    said: list[str] = []
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light", **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        started = time.monotonic()
        page.goto(address)
        print(f"opened in {time.monotonic() - started:.2f} s")  # noqa: T201 (said where a test fails or with -s)
        page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every((figure) => figure.querySelector('svg'))"
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("width", [320, 360, 1280, 1920])
def test_nothing_is_wider_than_the_window_and_every_chart_is_drawn_within_it(opened: Any, width: int) -> None:
    page = opened(width)
    page.evaluate(OPEN)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for box in page.evaluate("[...document.querySelectorAll('.chart svg')].map((svg) => svg.getBoundingClientRect())"):
        assert box["width"] > 200 and box["left"] >= 0 and box["right"] <= width
    assert page.locator(".chart svg").count() == page.locator(".chart").count() > 1
    plot = page.evaluate("document.querySelector('#chart-methods .role-axis-grid').getBoundingClientRect().width")
    assert plot > 0.75 * min(width, 1000) - 40  # a long name leaves the picture its room
    lines = "(name) => Math.round(name.clientHeight / parseFloat(getComputedStyle(name).lineHeight))"
    assert page.evaluate(f"[...document.querySelectorAll('h1 span')].map({lines})") == [
        1
    ]  # no break in a corpus's name


@pytest.mark.parametrize(("scheme", "paper"), [("light", 255), ("dark", 20)])
def test_text_of_page_and_charts_is_far_from_the_paper_in_both_schemes(opened: Any, scheme: str, paper: int) -> None:
    page = opened(scheme=scheme)
    colour = "(element, name) => +getComputedStyle(element)[name].match(/\\d+/)[0]"
    assert page.evaluate(f"({colour})(document.body, 'backgroundColor')") == paper
    for selector, name in (("main p", "color"), (".chart svg text", "fill")):
        shown = page.evaluate(f"({colour})(document.querySelector('{selector}'), '{name}')")
        assert abs(shown - paper) > 100


def values(page: Any, column: int) -> list[str]:
    """Return the figures of a column of the overview, from the top, of the lines that are shown."""
    script = (
        "(column) => [...document.querySelectorAll('#overview tbody tr')].filter((row) => row.offsetParent)"
        ".map((row) => row.cells[column].dataset.value)"
    )
    found: list[str] = page.evaluate(script, column)
    return found


def test_a_heading_sorts_by_mouse_and_keyboard_and_says_so(opened: Any) -> None:
    page = opened()
    page.locator(".every").check()
    heading = page.locator("#overview thead tr:last-child th").nth(1)
    before = values(page, 1)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert values(page, 1) == sorted(before, reverse=True) != before
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending" and values(page, 1) == [*sorted(filter(None, before)), ""]
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "none" and values(page, 1) == before


def test_few_methods_are_shown_first_all_on_request_and_a_filter_looks_through_all(opened: Any) -> None:
    page = opened()
    count = page.locator(".count")
    assert count.inner_text() == "2 of 3 shown" and len(values(page, 1)) == 2
    page.locator(".every").check()
    assert count.inner_text() == "3 of 3 shown"
    page.locator(".every").uncheck()
    page.locator(".filter").fill("CEIL")
    assert count.inner_text() == "1 of 3 shown"
    assert page.locator("#overview tbody th:visible").inner_text() == ROWS["probe"]


def test_a_choice_shows_the_confusions_of_any_method(opened: Any) -> None:
    page = opened()
    page.locator("#confusion-method").select_option("majority")
    shares = page.locator("#confusion tbody tr").nth(0).locator("td")
    assert [text.split()[0] for text in shares.all_inner_texts()] == [".000", ".000", "1.000", "25"]
    page.locator("#confusion-method").select_option("probe")
    assert "not evaluated" in page.locator("#confusion").inner_text()  # a ceiling is in one fold only
    page.locator("#confusion-fold").select_option(label="supervised: alpha")
    assert "UAR" in page.locator("#confusion").inner_text()


def test_a_note_is_words_on_focus_and_links_to_the_one_legend(opened: Any) -> None:
    page = opened()
    note = page.locator("#overview .note:visible").first
    letter = note.inner_text()
    note.focus()
    said = page.locator("#tip:visible").inner_text()
    assert page.locator(f"#note-{letter} span").inner_text() == said
    page.keyboard.press("Escape")
    assert page.locator("#tip:visible").count() == 0
    legend = page.locator(".legend li span").all_inner_texts()
    assert len(legend) == len(set(legend))


def test_the_notes_of_a_table_are_one_stop_of_the_keyboard_and_arrows_move_among_them(opened: Any) -> None:
    page = opened()
    stops = (
        "[...document.querySelectorAll('table.sortable')].filter((table) => table.offsetParent)"
        ".map((table) => [...table.querySelectorAll('.note')].filter((note) => note.offsetParent))"
        ".map((notes) => notes.filter((note) => note.tabIndex === 0).length)"
    )
    page.evaluate(OPEN)
    page.wait_for_function(f"{stops}.every((number) => number <= 1) && {stops}.includes(1)")
    notes = page.locator("#overview .note:visible")
    notes.first.focus()
    said = []
    for key in ("ArrowRight", "End", "Home"):
        page.keyboard.press(key)
        said.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        assert page.evaluate("document.activeElement.tabIndex") == 0
    assert said == [notes.nth(number).get_attribute("aria-label") for number in (1, notes.count() - 1, 0)]
    page.locator(".filter").fill("nonesuch")
    page.locator(".filter").fill("")
    page.wait_for_function(f"{stops}[0] === 1")


def test_letters_leave_figures_in_line(opened: Any) -> None:
    page = opened()
    edges = """[...document.querySelectorAll('#overview tbody tr')].filter((row) => row.offsetParent).map((row) => {
        const range = document.createRange();
        range.selectNodeContents([...row.cells[1].childNodes].find((node) => node.nodeType === 3 && node.data.trim()));
        return [Math.round(range.getBoundingClientRect().right), row.cells[1].querySelectorAll('.note').length];
    })"""
    found = page.evaluate(edges)
    assert len({edge for edge, _ in found}) == 1 and {notes for _, notes in found} == {0, 1}


def test_boxes_choose_the_methods_of_the_charts_against_snr(opened: Any) -> None:
    page = opened()
    marks = page.locator("#chart-snr-white .mark-symbol path")
    before = marks.count()
    page.locator(".chart-method[value=majority]").check()
    page.wait_for_function(
        "(before) => document.querySelectorAll('#chart-snr-white .mark-symbol path').length > before", arg=before
    )
    page.locator(".chart-target").select_option(label="leave-out-beta")
    page.wait_for_function("document.querySelector('#chart-snr-white .mark-symbol path') !== null")


def test_maps_are_coloured_by_emotion_or_by_corpus(opened: Any) -> None:
    page = opened()
    words = "#chart-embeddings-leave-out-c .role-legend-label text"
    legend = page.locator(words)
    assert {"angry", "sad"} <= {*legend.all_text_contents()}
    page.locator(".map-colours").select_option("corpus")
    page.wait_for_function(
        "(words) => ![...document.querySelectorAll(words)].some((each) => each.textContent === 'angry')", arg=words
    )
    shown = {*legend.all_text_contents()}
    assert {"a", "b", "c", "text"} <= shown and not {"angry", "sad"} & shown


def test_without_javascript_every_method_is_listed_and_what_is_missing_is_said(browser: Any, address: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        rows = page.locator("#overview tbody tr")
        assert rows.count() == len(ROWS) and all(row.is_visible() for row in rows.all())
        assert not any(each.is_visible() for each in page.locator(".controls, .keys, #run-missing").all())
        charts = page.locator("figure.chart")
        assert charts.count() and all("Not drawn without JavaScript" in each.inner_text() for each in charts.all())


@pytest.mark.parametrize("width", [360, 1280])
def test_a_link_to_a_section_leads_there_once_charts_are_drawn(browser: Any, address: str, width: int) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{address}#data")
        page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every((figure) => figure.querySelector('svg'))"
        )
        page.wait_for_function(
            "Math.abs(document.getElementById('data').getBoundingClientRect().top) < 200", timeout=5000
        )


def test_every_link_inside_leads_somewhere_and_headings_do_not_skip(opened: Any) -> None:
    page = opened()
    assert (
        page.evaluate(
            "[...document.querySelectorAll('a[href^=\"#\"]')].map((link) => link.hash.slice(1))"
            ".filter((anchor) => !document.getElementById(anchor))"
        )
        == []
    )
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((title) => +title.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(levels, levels[1:], strict=False))
    assert page.evaluate("document.documentElement.lang") == "en" and "ravdess" in page.title()


def test_a_table_wider_than_its_box_says_so_keeps_its_methods_in_sight_and_takes_the_keyboard(opened: Any) -> None:
    for width in (360, 1280, 1920):
        page = opened(width)
        box, hint = page.locator("#wide .wide"), page.locator("#wide .sideways")
        page.wait_for_selector("#wide .wide.more")
        assert "scroll" in hint.inner_text() and box.get_attribute("tabindex") == "0"
        box.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
        page.wait_for_selector("#wide .wide.moved:not(.more)")
        name = box.locator("tbody th").bounding_box()
        assert name["x"] == pytest.approx(box.bounding_box()["x"], abs=1)
        assert name["width"] < 0.6 * width
    assert page.locator("#data .wide").first.get_attribute("tabindex") is None  # fits: no stop for the keyboard
    assert page.locator("#data .sideways").first.is_hidden()


def test_no_text_of_a_chart_is_cut_on_a_telephone(opened: Any) -> None:
    page = opened(360)
    charts = "[...document.querySelectorAll('.chart:not(#chart-methods)')]"  # the table has the names of that one
    assert "…" not in page.evaluate(f"{charts}.map((chart) => chart.textContent).join()")
    keys = page.locator(".key-list li")
    assert {text.partition("\n")[2] for text in keys.all_inner_texts()} >= {
        LONG,
        f"{LONG} floor",
        f"leave-out-{LONG}-2",
    }
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.key-list li')].map((key) => key.clientWidth))")
        <= 320
    )


def test_a_filter_without_a_match_says_so_and_is_cleared(opened: Any) -> None:
    page = opened()
    page.locator(".filter").fill("nonesuch")
    said = page.locator(".nothing")
    assert said.get_attribute("role") == "status" and "No method matches “nonesuch”" in said.inner_text()
    assert page.locator("#overview").is_hidden()
    said.locator("button").click()
    assert page.locator("#overview").is_visible() and said.inner_text() == "" and len(values(page, 1)) == 2
    page.locator(".filter").fill("x" * 500)
    assert len(said.inner_text()) < 120 and page.evaluate("document.scrollingElement.scrollWidth") <= 1280
    page.locator(".filter").fill("ceiling classifier")
    assert "No method matches all words of “ceiling classifier”" in said.inner_text()
    page.locator(".filter").fill("ceiling longer")
    assert page.locator(".count").inner_text() == "1 of 3 shown"


def test_a_player_says_what_stands_beside_it(opened: Any) -> None:
    page = opened()
    assert page.locator("audio").first.get_attribute("aria-label") == (
        "tess/3, speaker a, true angry, predicted sad; angry .010, sad .990"
    )


def test_the_keyboard_reaches_the_results_first_and_sees_where_it_is(opened: Any) -> None:
    page = opened(reduced_motion="reduce")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.locator(".filter").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.locator("link[rel=icon]").get_attribute("href").startswith("data:")


def test_paper_is_light_has_room_for_every_table_and_its_folds_are_open(opened: Any) -> None:
    colours = """['.warnings', 'tr.main th', 'tr.main td', '.verdict', '#data img', '.key']
        .map((name) => document.querySelector(name)).filter(Boolean).map((each) => getComputedStyle(each))
        .map((style) => [style.color, style.backgroundColor, style.filter])"""
    found = []
    for scheme in ("light", "dark"):
        page = opened(718, scheme)
        page.emulate_media(media="print", color_scheme=scheme)
        page.wait_for_function("[...document.querySelectorAll('[data-print]')].every((fold) => fold.open)")
        found.append(page.evaluate(colours))
        edges = page.evaluate(
            "[...document.querySelectorAll('table')].map((each) => each.getBoundingClientRect().right)"
        )
        assert max(edges) <= 718 and page.evaluate("document.scrollingElement.scrollWidth") <= 718
        assert page.locator("details:not([open]) > summary:visible").count() == 0  # no heading without its content
        assert page.locator("#was-run details:visible").count() == 1
        assert page.locator("#wide table:visible").count() == 4  # 40 columns
        heights = page.evaluate("[...document.querySelectorAll('.chart svg')].map((svg) => svg.clientHeight)")
        assert max(heights) < 1017  # A4 without margins, px
        assert page.locator("tr[data-more]:visible").count() > 0
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.sort')).display") == "contents"
        )  # else no heading repeats
    assert found[0] == found[1] and len(found[0]) > 4
    page.emulate_media(media="screen")
    page.wait_for_function("![...document.querySelectorAll('[data-print]')].some((fold) => fold.open)")


def test_the_page_is_light_to_send(address: str) -> None:
    assert Path(address.removeprefix("file://")).stat().st_size + AUDIO_BYTES < 8_000_000


def test_it_prints(opened: Any) -> None:
    assert opened().pdf(format="A4").startswith(b"%PDF")
