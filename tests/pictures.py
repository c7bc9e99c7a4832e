"""Take the pictures in docs/pictures: `make pictures`, with Chromium.

It runs the demo, which computes only what is missing, in CLEPDG_HOME, on servers that it starts and stops.
`python -m tests.pictures REPORT.html NAME` takes the head of another report, for example of real speech.
"""

import base64
import io
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.text import Text

from clepdg_tasks.admin import services
from clepdg_tasks.admin.prefect_access import api_client, read_secret
from clepdg_tasks.host.processes import environment, written_services
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.tracking.client import CLASSIC
from clepdg_tasks.tracking.model_registry import model_name

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
CHROMIUM = "/usr/bin/chromium"
COLUMNS = 110  # of the terminal
SETTLED = 6000  # ms in which a server's page loads
RUN = [sys.executable, "-m", "clepdg_flows.cli.main", "run", "--preset", "demo"]


def main() -> None:
    """Take every picture, or the head of one report."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) == 3:
        with _browser() as page:
            _take_report(page, Path(sys.argv[1]), sys.argv[2])
        return
    settings = load_settings()
    for variable, value in environment(settings).items():
        os.environ.setdefault(variable, value)
    was_up = bool(written_services(settings))
    found = services.up(print)
    try:
        shown = _in_terminal(RUN)
        with _browser(read_secret(settings)) as page:
            _take_terminal(page, shown)
            _take_report(page, settings.home / "report.html", "report")
            _take_prefect(page, found["prefect"].url, read_secret(settings))
            _take_mlflow(page, found["mlflow"].url.removesuffix("/health"))
    finally:
        if not was_up:
            services.down()


@contextmanager
def _browser(secret: str | None = None) -> Iterator[Page]:
    """Yield a page of Chromium that is logged in to Prefect."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        if secret:
            coded = base64.b64encode(secret.encode()).decode()
            page.add_init_script(f"localStorage.setItem('prefect-password', '{coded}')")
        yield page
        browser.close()


def _in_terminal(command: list[str]) -> str:
    """Run a command in a terminal of COLUMNS and return what it showed."""
    shown = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        shown.extend(data)
        return data

    os.environ["COLUMNS"] = str(COLUMNS)
    status = pty.spawn(command, read)
    if status:
        sys.exit(f"{' '.join(command)} ended with code {os.waitstatus_to_exitcode(status)}.")
    return shown.decode()


def _take_terminal(page: Page, shown: str) -> None:
    """Draw what a terminal showed after its last live line."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    lines = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").splitlines()]
    last = max((place for place, line in enumerate(lines) if " computed, " in line), default=0)
    console.print(Text.from_ansi("\n".join(lines[last:])))
    page.set_content(console.export_svg(title="clep-dg run --preset demo"))
    page.locator("svg").first.screenshot(path=FOLDER / "terminal.png")


def _take_report(page: Page, path: Path, name: str) -> None:
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("figure.chart svg")
    page.screenshot(path=FOLDER / f"{name}.png", clip={"x": 0, "y": 0, "width": 1280, "height": 1400}, full_page=True)


def _take_prefect(page: Page, api: str, secret: str | None) -> None:
    """Take the page of the last flow run."""
    with api_client(api, secret) as client:
        ended = {"state": {"type": {"any_": ["COMPLETED"]}}}
        asked = {"sort": "START_TIME_DESC", "limit": 1, "flow_runs": ended}
        run = client.post("flow_runs/filter", json=asked).raise_for_status().json()[0]["id"]
    page.goto(f"{api.removesuffix('/api')}/runs/flow-run/{run}")
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=FOLDER / "prefect.png")


def _take_mlflow(page: Page, url: str) -> None:
    """Take the list of the demo's registered classifiers."""
    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(f"{url}/#/models/{model_name('classifier', 'demo')}?{CLASSIC}")
    page.wait_for_timeout(SETTLED)
    close = page.get_by_role("button", name="Close")
    if close.count():
        close.first.click()
    page.screenshot(path=FOLDER / "mlflow.png")


if __name__ == "__main__":
    main()
