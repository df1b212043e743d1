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
from playwright.sync_api import Browser, Page

from gearshift.compare import Comparison
from gearshift.compare.ledger import Scenario
from gearshift.compare.report import extract
from gearshift.errors import UsageError

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for this module."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def found() -> Comparison:
    """Four columns on real brokers, as they were run for the gallery."""
    return Comparison.load(GALLERY / "rabbitmq-kafka.html").with_needs(("order", "more-workers"))


@pytest.fixture(scope="module")
def file(found: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    found.save(path)
    return path


#: Opens what is closed, and leaves two columns and three rows a table: more are alike, and axe
#: takes a minute for all of them.
_A_PART = """
const alike = 'article:nth-child(n+3), .data tr:nth-child(n+4)';
document.querySelectorAll(alike).forEach(e => e.remove());
document.querySelectorAll('details').forEach(d => (d.open = true))
"""


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
    """The report in a window."""
    context = browser.new_context(**request.param)
    page = context.new_page()
    opened = Opened(page, [], [])
    page.on("console", lambda message: opened.errors.append(message.text))
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.on("request", lambda asked: opened.requests.append(asked.url))
    page.goto(file.as_uri())
    yield opened
    context.close()


def only(found: Comparison, scenario: Scenario, server: str) -> Comparison:
    """One scenario of ``found``, on brokers that call themselves ``server``."""
    columns = tuple(msgspec.structs.replace(c, server=server) for c in found.ledger.meta.columns)
    meta = msgspec.structs.replace(found.ledger.meta, columns=columns)
    runs = tuple(run for run in found.ledger.runs if run.scenario == scenario)
    return Comparison(msgspec.structs.replace(found.ledger, meta=meta, runs=runs))


def test_the_same_ledger_gives_the_same_bytes(found: Comparison, file: Path) -> None:
    """And the report holds the ledger that it was drawn from."""
    assert extract(file.read_bytes()) == found.ledger
    assert only(found, "crash", "x").html() == only(found, "crash", "x").html()


def test_it_is_one_small_file_without_scripts(file: Path) -> None:
    """Nothing is loaded from anywhere, nothing is run, and it can be mailed."""
    text = file.read_text()
    assert len(text.encode()) < MAX_BYTES
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', text)
    assert "@import" not in text
    assert "<script" not in text


def test_what_brokers_say_cannot_become_markup(found: Comparison) -> None:
    """A server that calls itself a template's end."""
    text = only(found, "slow", "memory </template><b>&").html()
    assert "memory </template><b>" not in text
    assert "memory &lt;/template&gt;&lt;b&gt;&amp;" in text


def test_other_files_are_refused() -> None:
    """In one clear error."""
    with pytest.raises(UsageError, match="holds no ledger"):
        extract(b"<html></html>")


def test_the_browser_complains_of_nothing_and_asks_for_nothing(opened: Opened, file: Path) -> None:
    """No console message, no request but for the file."""
    assert opened.errors == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}


def test_nothing_is_wider_than_the_window(opened: Opened) -> None:
    """Wide tables scroll inside themselves; the page does not."""
    wide = opened.page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide


def test_axe_finds_nothing(opened: Opened) -> None:
    """Names, contrast, landmarks, keyboard: no violation of any kind."""
    opened.page.evaluate(_A_PART)
    violations = Axe().run(opened.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in violations] == []


def test_without_scripts_it_is_whole(browser: Browser, found: Comparison, file: Path) -> None:
    """The decision, every chart with its title and description, and its data as a table."""
    charts = [c for finding in found.findings for o in finding.observations for c in o.charts]
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.get_by_role("heading", level=1).inner_text() == found.decision.sentence
    assert page.locator("figure svg").count() == len(charts) > 20
    assert page.locator("figure svg > title + desc").count() == len(charts)
    assert page.locator("article table.data").count() == len(charts)
    assert page.get_by_role("heading", name="The matrix").is_visible()
    context.close()


def test_charts_follow_light_and_dark(found: Comparison, file: Path) -> None:
    """They have no colour of their own, only the names of the page's."""
    for drawing in re.findall(r"<figure>(.*?)</figure>", file.read_text(), re.S):
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawing))
        assert {colour for colour in colours if not colour.startswith("var(--")} <= {
            "none", "transparent"
        }  # fmt: skip


def test_the_needs_are_answered_first(file: Path) -> None:
    """Before advice and matrix, with what each column costs."""
    text = file.read_text()
    assert text.index('id="needs"') < text.index('id="choices"') < text.index('id="matrix"')
    assert "You give up" in text


def test_a_notebook_shows_it_in_a_frame(browser: Browser, found: Comparison) -> None:
    """Charts and all, in what a Comparison says of itself, asking for nothing."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(f"<p>Out[1]:</p>{only(found, 'crash', 'x')._repr_html_()}")
    frame = page.frame_locator("iframe")
    assert frame.get_by_role("heading", name="The matrix").is_visible()
    assert frame.locator("figure svg").count() == 4
    assert [url for url in asked if not url.startswith(("data:", "about:"))] == []
    page.close()


def test_it_prints(browser: Browser, file: Path, tmp_path: Path) -> None:
    """Every scenario is on paper, on a white ground."""
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"
    page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    context.close()
