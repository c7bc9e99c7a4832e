"""Protects what a run's own copy of the page shows in a browser: a warning of uncommitted changes, short reasons."""

from pathlib import Path
from typing import Any

import pytest

from clepdg.report.sections.reproduce import fill_run, reproduce
from tests.unit.test_report_page import CHROMIUM, browser  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.system, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")]
LONG = "config cards None -> {" + "a" * 200 + "}"


@pytest.mark.parametrize(
    ("commit", "warned"), [("0123456789ab-dirty", True), ("0123456789ab", False), ("unknown", False)]
)
def test_a_run_of_uncommitted_code_is_a_warning_and_long_reasons_are_short(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    commit: str,
    warned: bool,
) -> None:
    facts = {"commit": commit, "stages": {"clep": {"computed": 2, "reused": 0, "why": {LONG: 2}}}}
    (tmp_path / "page.html").write_text(fill_run(str(reproduce("clep-dg run", {}, {}).html), facts))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.get_by_text("had changes that no commit holds").is_visible() == warned
    why = page.locator("#run-stages tbody td").last
    assert why.inner_text() == f"{LONG[:99]}…" and why.get_attribute("title") == f"{LONG} (2)"
    page.close()
