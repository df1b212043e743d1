"""pytest hooks: what shares a broker is one lane, which one worker runs; long lanes first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any, cast

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

BROKERS = {"rabbitmq", "rabbitmq4", "kafka", "redis"}

#: How long the long lanes take, roughly; the summary at the end of a run has the lanes' times.
SECONDS = {
    "conformance kafka-queue": 760.0,
    "conformance rabbitmq-stream": 530.0,
    "brokers rabbitmq": 495.0,
    "conformance kafka-stream": 430.0,
    "conformance queue": 420.0,
    "conformance stream": 410.0,
    "conformance rabbitmq4-stream": 370.0,
    "tests/system/test_redrive.py": 370.0,
    "brokers queue": 305.0,
    "brokers compare": 290.0,
    "conformance rabbitmq-queue": 285.0,
    "conformance rabbitmq4-queue": 235.0,
    "tests/attempts/test_attempts.py": 220.0,
    "tests/system/test_nothing_is_left.py": 200.0,
    "conformance redis-queue": 195.0,
    "tests/compare/test_rehearsal.py": 195.0,
    "brokers kafka": 165.0,
    "tests/docs/test_documents.py": 130.0,
    "tests/cli/test_main.py": 120.0,
    "tests/prove/test_corpus.py": 110.0,
    "tests/prove/test_examples.py": 95.0,
    # The long ones, of `make long`.
    "tests/brokers/test_native_brokers.py": 165.0,
    "tests/system/test_cluster_nodes.py": 200.0,
    "tests/brokers/test_clusters.py": 160.0,
    "tests/system/test_kafka_replication.py": 130.0,
}

#: A longer lane is divided: several workers take a part each, with brokers of its own.
LONGEST_S = 200.0

_LANE = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)  # xdist looks for the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its lane, and put the longest first."""
    members: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        members[_whole_lane(item)].append(item)
    for lane, its in members.items():
        parts = max(1, -int(-SECONDS.get(lane, 0.0) // LONGEST_S))
        for number, item in enumerate(its):
            item.stash[_LANE] = lane if parts == 1 else f"{lane} {number % parts + 1}/{parts}"
            item.add_marker(pytest.mark.xdist_group(item.stash[_LANE]))
    items.sort(key=_expected_s, reverse=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Stop the shared Kafka with its lane: one that nobody uses takes 4 % of a processor."""
    result = yield
    if nextitem is None or nextitem.stash[_LANE] != item.stash[_LANE]:
        for fixture in item.session._fixturemanager._arg2fixturedefs.get("kafka", ()):
            fixture.finish(cast(Any, item)._request)
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run with lanes that xdist does not keep: each broker would be started many times.

    pytest-xdist 3.8 under pytest 9.2 is such a pair, and says nothing.
    """
    if session.items and getattr(session.config.option, "loadgroup", False):
        item = session.items[0]
        if not item.nodeid.endswith(f"@{item.stash[_LANE]}"):
            raise pytest.UsageError("xdist ignores its groups with this pytest: see pyproject.toml")


def _whole_lane(item: pytest.Item) -> str:
    column = getattr(item, "callspec", None) and item.callspec.params.get("gearshift_backend")
    if column is not None:
        return f"conformance {column if isinstance(column, str) else '-'.join(column)}"
    if _shared_brokers(item):
        folder = item.path.parent  # tests/compare, or backends/kafka/tests and its queue
        return f"brokers {(folder.parent if folder.name == 'tests' else folder).name}"
    return item.nodeid.partition("::")[0]


def _expected_s(item: pytest.Item) -> float:
    """How long the test's lane will take: as it is known, or else brokers before the rest."""
    guess = 60.0 if item.get_closest_marker("broker") else 0.0
    return SECONDS.get(_whole_lane(item), guess)


def _shared_brokers(item: pytest.Item) -> set[str]:
    return BROKERS & set(getattr(item, "fixturenames", ()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LaneScheduling | None:
    """Schedule by lane; only for --dist loadgroup."""
    return LaneScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


class LaneScheduling(LoadGroupScheduling):
    """xdist's own, but a test that ended its worker is not run again and again in new ones."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Take back the lanes of a worker that is gone; returns the test that it died in."""
        lanes = self.assigned_work[node]
        running = next((t for tests in lanes.values() for t in tests if not tests[t]), None)
        for tests in lanes.values():
            if running in tests:
                tests[running] = True
        self.assigned_work[node] = {
            lane: tests for lane, tests in lanes.items() if not all(tests.values())
        }
        super().remove_node(node)
        return running

    def schedule(self) -> None:
        """Give out lanes, to a replaced worker too."""
        again = self.collection is not None
        super().schedule()
        if again:
            # A worker begins a test when it knows the next one, or that there is none.
            for node in self.nodes:
                self._reschedule(node)
