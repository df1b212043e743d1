"""The examples of the docs: each handler has a proof, and the page does not promise more."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from support.documents import DOCUMENTS, ROOT, Snippet, snippets_of

from gearshift.testing.prove import Example, Proof, Verdict, prove

SERVICE = ROOT / "docs" / "examples" / "order_service" / "service.py"
FASTAPI = ROOT / "docs" / "examples" / "fastapi_service" / "service.py"
ORDERS = [{"order_id": number, "id": number, "cents": 5 * number} for number in (1, 2)]
VERSIONS = [{"id": 1, "version": number, "status": f"s{number}"} for number in (1, 2)]


class Shown(NamedTuple):
    """A handler that a page shows: what must be said of it, by which ``state``, an expression."""

    verdict: Verdict
    state: str | None = None
    examples: list[Any] = ORDERS
    reset: str = ""


#: Its effect is a line on the screen, or not shown at all.
UNSEEN = Shown(Verdict.CANNOT_BE_SAID)
#: It sends under a new id each time, to show something else.
SENDS = Shown(Verdict.NOT_SAFE)

SHOWN = {
    "README.md": [UNSEEN],
    "docs/from/celery.md": [UNSEEN],
    "docs/from/faststream.md": [UNSEEN],
    "docs/from/pika.md": [UNSEEN],
    "docs/guides/async.md": [UNSEEN],
    "docs/guides/hooks.md": [UNSEEN],
    "docs/guides/move-in.md": [
        UNSEEN._replace(examples=[Example([[7], {}, {}], headers={"task": "shop.order"})])
    ],
    "docs/guides/prove.md": [
        Shown(Verdict.NOT_SAFE, "balances", [{"account": "ada", "cents": 5}]),
        Shown(Verdict.SAFE, "payments", [5, 7]),
    ],
    "docs/guides/safe-handlers.md": [
        Shown(Verdict.SAFE, "rows('orders')", ORDERS, "DELETE FROM orders"),
        Shown(Verdict.SAFE, "rows('orders')", VERSIONS, "DELETE FROM orders"),
        Shown(
            Verdict.SAFE, "rows('account')", [250, 100],
            "UPDATE account SET cents = 0; DELETE FROM gearshift_seen",
        ),
        Shown(
            Verdict.SAFE, "rows('orders'), sorted(value for _, _, value in rows('outbox'))", [1, 2],
            "DELETE FROM orders; DELETE FROM outbox; DELETE FROM gearshift_seen",
        ),
    ],
    "docs/guides/testing.md": [SENDS, SENDS, Shown(Verdict.NOT_SAFE, "charged", [1, 2])],
    "docs/handlers.md": [UNSEEN, UNSEEN, SENDS, Shown(Verdict.NOT_SAFE, "billed")],
    "docs/tutorial.md": [UNSEEN, UNSEEN],
}  # fmt: skip


@functools.cache
def _handlers() -> dict[str, list[Snippet]]:
    found = {
        str(path.relative_to(ROOT)): [
            one
            for one in snippets_of(path)
            if one.language == "python" and "\n@app.handler(" in one.text.replace("    @", "@")
        ]
        for path in DOCUMENTS
    }
    return {page: shown for page, shown in found.items() if shown}


def test_every_handler_in_the_docs_is_here() -> None:
    """A new one is proved too."""
    assert {page: len(shown) for page, shown in _handlers().items()} == {
        page: len(shown) for page, shown in SHOWN.items()
    }


@pytest.mark.parametrize("profile", ["rabbitmq", "kafka"])
@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page, shown in SHOWN.items() for number in range(len(shown))],
)
def test_a_handler_in_the_docs_is_what_its_page_says(
    page: str, number: int, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipes are safe, whatever the broker does; what is not safe is known."""
    module, shown = ModuleType("shown"), SHOWN[page][number]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = vars(module)
    exec(compile(_handlers()[page][number].text, page, "exec"), names)
    names["rows"] = lambda table: names["database"].execute(f"SELECT * FROM {table}").fetchall()
    found = prove(
        names["app"],
        profile=profile,
        state=(lambda: eval(shown.state, names)) if shown.state else None,
        reset=(lambda: names["database"].executescript(shown.reset)) if shown.reset else None,
        examples=shown.examples,
        key=str,
        cases=60,
        config={},
    )
    assert found.verdict is shown.verdict, found


@pytest.mark.parametrize("profile", ["rabbit", "kafka"])
def test_the_order_service_is_safe(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order is charged and written down, and who reads the journal knows an order again."""
    monkeypatch.setenv("ORDER_SERVICE_DATA", str(tmp_path))
    service = _imported(SERVICE, monkeypatch)
    journal = tmp_path / "journal.txt"

    def done() -> list[tuple[str, ...]]:
        return sorted({tuple(line.split()[:3]) for line in journal.read_text().splitlines()})

    found = _of_a_service(
        service, profile, SERVICE, state=done, reset=lambda: journal.write_text("")
    )
    assert found.verdict is Verdict.SAFE, found


@pytest.mark.parametrize("profile", ["rabbit", "kafka"])
def test_the_web_service_is_safe(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is billed under its number, also by the attempt after a failure."""
    service = _imported(FASTAPI, monkeypatch)
    found = _of_a_service(service, profile, FASTAPI, state=lambda: service.billed)
    assert found.verdict is Verdict.SAFE, found


def _imported(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_proved", file)
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, service)
    spec.loader.exec_module(service)
    return service


def _of_a_service(service: Any, profile: str, file: Path, **options: Any) -> Proof:
    return prove(
        service.app,
        profile=profile,
        examples=[
            {"order_id": 1, "customer": "ada", "cents": 5},
            {"order_id": 2, "customer": "bob", "cents": 0},
            {"order_id": 7, "customer": "ada", "cents": 9},
        ],
        key=lambda order: str(order["order_id"]),
        cases=60,
        config=file.with_name("gearshift.toml"),
        **options,
    )
