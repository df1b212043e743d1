"""The report: one file, the same for the same ledger, readable by everybody, asking for nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from compare.browser import chromium
from compare.sample import findings, ledger
from playwright.sync_api import Browser, Page

from gearshift import compare
from gearshift.compare import Options
from gearshift.compare.report import extract, render
from gearshift.errors import UsageError

MAX_BYTES = 1_500_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for this module."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the sample."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(ledger(), findings()))
    return path


@dataclasses.dataclass
class Opened:
    """A page and what went wrong or was asked for while it was loaded."""

    page: Page
    errors: list[str]
    requests: list[str]


@pytest.fixture(
    params=[
        {"viewport": {"width": 1300, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 1300, "height": 900}, "color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    ],
    ids=["desktop", "dark", "phone"],
)
def opened(request: pytest.FixtureRequest, browser: Browser, file: Path) -> Iterator[Opened]:
    """The report in a window, drawn."""
    context = browser.new_context(**request.param)
    page = context.new_page()
    opened = Opened(page, [], [])
    page.on("console", lambda message: opened.errors.append(message.text))
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.on("request", lambda asked: opened.requests.append(asked.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    yield opened
    context.close()


def test_the_same_ledger_gives_the_same_bytes() -> None:
    """And the report holds the ledger that it was drawn from."""
    text = render(ledger(), findings())
    assert render(ledger(), findings()) == text
    assert extract(text.encode()) == ledger()


def test_it_is_one_small_file() -> None:
    """Nothing is loaded from anywhere, and it can be mailed."""
    text = render(ledger(), findings())
    assert len(text.encode()) < MAX_BYTES
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', text)
    assert "@import" not in text


def test_what_brokers_say_cannot_become_markup() -> None:
    """The sample's server calls itself a script's end."""
    text = render(ledger(), findings())
    assert "memory </script><b>" not in text
    assert "memory &lt;/script&gt;&lt;b&gt;&amp;" in text


def test_other_files_are_refused() -> None:
    """In one clear error."""
    with pytest.raises(UsageError, match="holds no ledger"):
        extract(b"<html></html>")


def test_the_browser_complains_of_nothing_and_asks_for_nothing(opened: Opened, file: Path) -> None:
    """No console message, no request but for the file; every chart is drawn."""
    charts = sum(len(observation.charts) for f in findings() for observation in f.observations)
    assert opened.errors == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}
    assert opened.page.locator(".chart svg").count() == charts


def test_nothing_is_wider_than_the_window(opened: Opened) -> None:
    """Wide tables scroll inside themselves; the page does not."""
    wide = opened.page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide


def test_axe_finds_nothing_serious(opened: Opened) -> None:
    """Names, contrast, landmarks, keyboard: no serious or critical violation."""
    opened.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    found = Axe().run(opened.page).response["violations"]
    serious = [
        (violation["id"], node["html"][:200])
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert serious == []


def test_without_scripts_it_is_read_as_tables(browser: Browser, file: Path) -> None:
    """Every chart's data is there as a table."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("figure details table.data").count() == 14
    assert page.get_by_role("heading", name="The matrix").is_visible()
    context.close()


def test_a_notebook_shows_it_in_a_frame(browser: Browser) -> None:
    """Charts and all, in what a Comparison says of itself, asking for nothing, on a dark page."""
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shown = compare.run(scenarios=["ordering"], options=Options(messages=40))
    page.set_content(f"<p>Out[1]:</p>{shown._repr_html_()}")
    frame = page.frame_locator("iframe")
    frame.locator("html[data-drawn]").wait_for(timeout=60_000)
    assert frame.get_by_role("heading", name="The matrix").is_visible()
    assert [url for url in asked if not url.startswith(("data:", "about:"))] == []
    context.close()


def test_it_prints(browser: Browser, file: Path, tmp_path: Path) -> None:
    """Every scenario is on paper, on a white ground."""
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    page.emulate_media(media="print")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"
    page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    context.close()


def test_the_ledger_can_be_saved_from_the_page(browser: Browser, file: Path) -> None:
    """The button gives the ledger's JSON."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    with page.expect_download() as download:
        page.click("#save")
    saved = Path(download.value.path()).read_bytes()
    assert msgspec.json.decode(saved)["meta"]["seed"] == ledger().meta.seed
    context.close()
