"""The example of the docs stands what its brokers may do to it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from gearshift.testing.prove import Verdict, prove

SERVICE = Path(__file__).parents[2] / "docs" / "examples" / "order_service" / "service.py"


@pytest.mark.parametrize("profile", ["rabbit", "kafka"])
def test_the_order_service_is_safe(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order is charged and written down, and who reads the journal knows an order again."""
    monkeypatch.setenv("ORDER_SERVICE_DATA", str(tmp_path))
    spec = importlib.util.spec_from_file_location("order_service_proved", SERVICE)
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, service)
    spec.loader.exec_module(service)
    journal = tmp_path / "journal.txt"

    def done() -> list[tuple[str, ...]]:
        return sorted({tuple(line.split()[:3]) for line in journal.read_text().splitlines()})

    found = prove(
        service.app,
        profile=profile,
        state=done,
        reset=lambda: journal.write_text(""),
        examples=[service.Order(1, "ada", 5), service.Order(2, "bob", 0)],
        key=lambda order: order.customer,
        cases=60,
        config=SERVICE.with_name("gearshift.toml"),
    )
    assert found.verdict is Verdict.SAFE, found
