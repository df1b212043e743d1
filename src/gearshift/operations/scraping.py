"""The metrics pages of running services: what they count, and how fast."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TypeAlias

from gearshift.driver.settings import host_port
from gearshift.extras import importing
from gearshift.telemetry.server import parse_address

__all__ = ["MetricsPages", "Rates", "page_url"]

#: A service may ask its own broker for 2 s before it answers.
_TIMEOUT_S = 4.0
_PREFIX = "gearshift_"

#: Name without prefix, channel, group and outcome; the last two "" where there is none.
_Key: TypeAlias = tuple[str, str, str, str]
_Values: TypeAlias = Mapping[_Key, float]


def page_url(address: str) -> str:
    """``PORT``, ``HOST:PORT`` or an HTTP address to the address of a page. Raises ConfigError."""
    if address.startswith(("http://", "https://")):
        return address
    return f"http://{host_port(*parse_address(address))}/metrics"


@dataclass(frozen=True, slots=True)
class Rates:
    """Sums over all pages that have answered. What none of them tells is None."""

    _now: _Values = field(default_factory=dict)
    _per_s: _Values = field(default_factory=dict)
    problems: Sequence[str] = ()

    def now(self, name: str, channel: str, group: str) -> int | None:
        """The value of a gauge."""
        value = self._now.get((name, channel, group, ""))
        return None if value is None else int(value)

    def per_s(self, name: str, channel: str, group: str = "", outcome: str = "") -> float | None:
        """How fast a counter grows; known from the second reading on."""
        return self._per_s.get((name, channel, group, outcome))

    def groups(self, channel: str) -> list[str]:
        """The groups with consumers in these services."""
        return [
            group
            for name, of, group, _ in self._now
            if name == "consumers" and of == channel and group
        ]


class MetricsPages:
    """Reads the pages of some services, each in a thread. One thread at a time.

    Raises MissingExtra without ``gearshift[prometheus]``, if there is a page at all.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        fetch: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if urls:
            with importing("prometheus"):
                import prometheus_client.parser  # noqa: F401  raises now
        self._urls = urls
        self._fetch = fetch or _fetch
        self._clock = clock
        self._before: dict[str, tuple[float, _Values]] = {}

    def read(self) -> Rates:
        """Read all of them; one that does not answer is a problem and counts for nothing."""
        if not self._urls:
            return Rates()
        with ThreadPoolExecutor(len(self._urls)) as pool:
            found = list(pool.map(self._read, self._urls))
        now: list[_Values] = []
        rates: list[_Values] = []
        problems = []
        for url, answer in zip(self._urls, found, strict=True):
            if isinstance(answer, Exception):
                problems.append(f"{url}: {answer}")
                self._before.pop(url, None)
                continue
            if url in self._before:
                rates.append(_growth(self._before[url], answer))
            self._before[url] = answer
            now.append(answer[1])
        return Rates(_sum(now), _sum(rates), problems)

    def _read(self, url: str) -> tuple[float, _Values] | Exception:
        try:
            text = self._fetch(url)
            return self._clock(), _parse(text)
        except (OSError, HTTPException, ValueError) as error:
            return error


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def _parse(text: str) -> _Values:
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[_Key, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(_PREFIX):
                name = sample.name.removeprefix(_PREFIX).removesuffix("_total")
                labels = (sample.labels.get(label, "") for label in ("channel", "group", "outcome"))
                values[(name, *labels)] = sample.value  # type: ignore[index]
    return values


def _growth(before: tuple[float, _Values], after: tuple[float, _Values]) -> _Values:
    """Per second; without what has become less, since a service that starts anew counts anew."""
    seconds = after[0] - before[0]
    return {
        key: (value - before[1].get(key, 0.0)) / seconds
        for key, value in after[1].items()
        if seconds > 0 and value >= before[1].get(key, 0.0)
    }


def _sum(all_values: Iterable[_Values]) -> _Values:
    total: dict[_Key, float] = {}
    for values in all_values:
        for key, value in values.items():
            total[key] = total.get(key, 0.0) + value
    return total
