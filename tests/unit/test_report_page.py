"""Protects the report's page in a browser: it draws, sorts, filters and prints, at every width, light and dark."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clepdg.evaluation import cells as evaluate
from clepdg.report.report import write_report
from tests.unit.test_report import FACTS, LABELS, ROWS, noisy, predictions  # noqa: F401 (fixtures)

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.system, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, noisy: pd.DataFrame) -> str:  # noqa: F811
    """The page of a report with corruptions, as a file."""
    folder = tmp_path_factory.mktemp("page")
    units = {"alpha": "speaker", "beta": "official"}
    cells = evaluate.cells(noisy, LABELS, confidence=0.95, split_units=units)
    write_report(folder, cells, noisy, FACTS, ROWS)
    return (folder / "report.html").as_uri()


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

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
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


@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_nothing_is_wider_than_the_window_and_every_chart_is_drawn_within_it(opened: Any, width: int) -> None:
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in page.evaluate("[...document.querySelectorAll('.chart svg')].map((svg) => svg.getBoundingClientRect())"):
        assert box["width"] > 200 and box["left"] >= 0 and box["right"] <= width
    assert page.locator(".chart svg").count() == page.locator(".chart").count() > 1


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
    assert heading.get_attribute("aria-sort") is None and values(page, 1) == before


def test_few_methods_are_shown_first_all_on_request_and_a_filter_looks_through_all(opened: Any) -> None:
    page = opened()
    count = page.locator(".count")
    assert count.inner_text() == "1 of 3 shown" and len(values(page, 1)) == 1
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


def test_it_prints(opened: Any) -> None:
    assert opened().pdf(format="A4").startswith(b"%PDF")
