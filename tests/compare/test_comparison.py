"""The whole thing on the embedded broker, and what breaking it on purpose does to the report."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE_S, until

import gearshift
from gearshift import compare, plugins
from gearshift._observe.access import Access
from gearshift.compare import Comparison, Options, workload
from gearshift.compare.columns import targets_of
from gearshift.compare.event_log import EventLog, Recorder
from gearshift.compare.ledger import SCENARIOS, Event
from gearshift.compare.trial import Trial
from gearshift.compare.worker import Duties, Worker
from gearshift.driver import GroupStatus
from gearshift.errors import ConfigError, UsageError
from gearshift.message import Semantics

pytestmark = pytest.mark.timeout(240)

FEW = Options(messages=80)


@pytest.fixture(scope="module")
def embedded() -> Comparison:
    """All scenarios on the embedded broker, once."""
    return compare.run(options=FEW)


def outcomes(comparison: Comparison, scenario: str) -> dict[str, str]:
    """What each column did in ``scenario``."""
    finding = next(found for found in comparison.findings if found.scenario == scenario)
    return {observation.column: observation.outcome for observation in finding.observations}


def number(comparison: Comparison, scenario: str, name: str, column: str) -> float:
    """A number that was measured."""
    finding = next(found for found in comparison.findings if found.scenario == scenario)
    seen = next(o for o in finding.observations if o.column == column)
    assert seen.numbers, seen.sentence
    value = next(one for one in seen.numbers if one.name == name).median
    assert value is not None
    return value


def test_every_scenario_has_a_verdict_and_none_contradicts_what_is_declared(
    embedded: Comparison,
) -> None:
    """The seven, each for both columns, all as the capabilities promise."""
    assert [finding.scenario for finding in embedded.findings] == list(SCENARIOS)
    for finding in embedded.findings:
        assert finding.verdict in ("same", "differs"), finding.summary
        assert [o.agrees for o in finding.observations] == ["yes", "yes"], finding.summary


def test_a_queue_and_a_stream_differ_where_they_should(embedded: Comparison) -> None:
    """History, replay and scaling: what everybody who chooses must know."""
    queue, stream = "embedded:queue", "embedded:stream"
    assert outcomes(embedded, "fan_out") == {queue: "from_now", stream: "history"}
    assert outcomes(embedded, "replay") == {queue: "unsupported", stream: "replayed"}
    assert outcomes(embedded, "scaling") == {queue: "any", stream: "partitions"}
    assert outcomes(embedded, "poison") == {queue: "overtaken", stream: "key_waits"}


def test_what_was_saved_is_drawn_again_to_the_byte(embedded: Comparison, tmp_path: Path) -> None:
    """From the report as from the ledger."""
    for name in ("report.html", "ledger.json"):
        embedded.save(tmp_path / name)
        assert Comparison.load(tmp_path / name).html() == embedded.html()


def test_the_embedded_queue_does_not_pass_for_a_brokers(embedded: Comparison) -> None:
    """It keeps an order that the queues of brokers lose, and the row says so; nothing else does."""
    cautions = {
        (finding.scenario, one.column): one.caution
        for finding in embedded.findings
        for one in finding.observations
        if one.caution
    }
    assert cautions.keys() == {("ordering", "embedded:queue")}
    assert "lose it" in embedded.html()
    for backend in ("rabbitmq", "kafka"):
        declared = plugins.load(backend).capabilities[Semantics.QUEUE]
        assert declared.as_dict()["order"] != "key"


def test_the_ledger_knows_every_message(embedded: Comparison) -> None:
    """Each send has its receipt, and each receipt its delivery."""
    for run in embedded.ledger.runs:
        for trial in run.trials:
            kinds = {kind: {e.seq for e in trial.events if e.kind == kind} for kind in
                     ("send", "receipt", "deliver")}  # fmt: skip
            assert kinds["send"] == kinds["receipt"] == kinds["deliver"]
            assert len(kinds["send"]) == trial.settings["messages"]


def test_a_handler_that_acks_first_shows_lost_messages() -> None:
    """The crash row says LOST, and that this is not what was declared."""
    broken = compare.run(scenarios=["crash"], options=Options(messages=80, settle="first"))
    finding = broken.findings[0]
    assert {o.outcome for o in finding.observations} == {"lost"}
    assert {o.agrees for o in finding.observations} == {"no"}


def test_a_kill_waits_until_the_broker_has_the_acks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ack that was written down and not sent yet is no ack: the broker is asked again."""
    asked, status = threading.Semaphore(0), Trial.status

    def watched(trial: Trial, group: str) -> GroupStatus | None:
        asked.release()
        return status(trial, group)

    monkeypatch.setattr(Trial, "status", watched)
    queue = targets_of((), None, tmp_path)[0]
    orders = workload.make(1, 2, 1)
    with Trial.set_up(queue, tmp_path, {"groups": ["workers"]}) as trial:
        trial.send(orders)
        with trial.bus.consumer(trial.channel, group="workers") as consumer:
            (delivery,) = consumer.receive()
            seq = orders[0].order_id
            trial.recorder.event("settle", "worker", seq=seq, group="workers", what="ack")
            waiting = threading.Thread(target=trial.wait_acks_heard)
            waiting.start()
            assert asked.acquire(timeout=PATIENCE_S)
            assert asked.acquire(timeout=PATIENCE_S)  # the first answer was not enough
            delivery.ack()
            waiting.join()
            (left,) = trial.bus.groups(trial.channel)
    assert (left.ready or 0) + (left.in_flight or 0) == 1


def test_a_dead_letter_that_comes_late_is_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is not taken for the end: what was rejected is waited for."""
    monkeypatch.setattr("gearshift.compare.trial._LOOK_S", 0.05)
    silent, receive = threading.Event(), gearshift.Consumer.receive

    def watched(consumer: gearshift.Consumer[Any], *given: Any, **options: Any) -> list[Any]:
        found: list[Any] = receive(consumer, *given, **options)
        if not found:
            silent.set()
        return found

    monkeypatch.setattr(gearshift.Consumer, "receive", watched)
    queue = targets_of((), None, tmp_path)[0]
    (order,) = workload.make(1, 1, 1)
    with Trial.set_up(queue, tmp_path, {"dead_letter": True}) as trial:
        trial.recorder.event("settle", "worker", seq=order.order_id, what="reject")
        trial.bus.declare(f"{trial.channel}.dead", create=True)
        reading = threading.Thread(target=trial.read_dead_letters)
        reading.start()
        assert silent.wait(PATIENCE_S)
        trial.bus.producer(f"{trial.channel}.dead").send(order)
        reading.join()
    assert [event.seq for event in trial.events if event.kind == "dead"] == [order.order_id]


def test_without_keys_messages_overtake_each_other() -> None:
    """A producer that gives no keys has no order."""
    keyless = compare.run(scenarios=["ordering"], options=Options(messages=120, keys=0))
    assert outcomes(keyless, "ordering")["embedded:stream"] == "none"


def test_prefetch_decides_how_much_a_crash_brings_back() -> None:
    """With prefetch 1 one message comes back flagged; with 50 everything that was fetched."""
    flagged = []
    for prefetch in (1, 50):  # with 500 the survivor may have them all; a server shares them out
        options = Options(messages=400, keys=200, prefetch=prefetch)
        crashed = compare.run(scenarios=["crash"], options=options)
        flagged.append(number(crashed, "crash", "marked as redelivered", "embedded:queue"))
    assert flagged[0] == 1
    assert flagged[1] > 5


def test_a_handler_of_the_user_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failures are what the report shows."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    own = compare.run(
        scenarios=["ordering"], options=Options(messages=40, handler="mine:handle", keys=4)
    )
    assert len((tmp_path / "calls").read_text().split()) == 80
    assert own.ledger.meta.handler == "mine:handle"


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("dies", "The process of worker worker-1 ended by itself, with 3; the last that it said"),
        ("fails", "The handler gave up message"),
        ("hangs", "The handler has not come back from message"),
    ],
    ids=["dies", "fails", "hangs"],
)
def test_a_handler_that_cannot_be_compared_is_told_and_holds_nothing_up(
    handler: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends its process too; what it would do in the other scenarios is not waited for."""
    monkeypatch.setattr("gearshift.compare.conduct._HANGS_AFTER_S", 0.5)
    monkeypatch.setattr("gearshift.compare.workers._STOP_S", 0.5)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "gearshift.toml").write_text('[profiles.p]\nbackend = "sqlite"\npath = "b.db"\n')
    monkeypatch.chdir(tmp_path)
    found = compare.run(
        ["p:queue"],
        config=tmp_path / "gearshift.toml",
        scenarios=["ordering", "scaling"],
        options=Options(messages=40, handler=f"mine:{handler}"),
    )
    ordering, scaling = (finding.observations[0].sentence for finding in found.findings)
    assert ordering.startswith(said)
    assert scaling.startswith("Not run, as ordering had no result: ")


def test_a_broker_inside_one_process_has_no_processes(tmp_path: Path) -> None:
    """What needs them is refused, and not waited for in vain."""
    (tmp_path / "gearshift.toml").write_text('[profiles.p]\nbackend = "memory"\n')
    found = compare.run(
        ["p:queue"], config=tmp_path / "gearshift.toml", scenarios=["crash"], options=FEW
    )
    assert outcomes(found, "crash") == {"p:queue": "unsupported"}


MINE = """
import os, time

def handle(order):
    with open("calls", "a") as calls:
        calls.write("called\\n")

def dies(order):
    print("bye", flush=True)
    os._exit(3)

def fails(order):
    raise ValueError

def hangs(order):
    time.sleep(1000)
"""

HANDLER = """
import asyncio
import functools

from gearshift.errors import DecodeError

loops = set()


def plain(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@plain
async def handle(order):
    loops.add(asyncio.get_running_loop())
    if order["order_id"] == 1:
        raise DecodeError("not to be read")
    if order["order_id"] == 2:
        raise SystemExit
"""


def test_a_handler_ends_in_a_comparison_as_it_does_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be decoded is given up at once, an exit is a failure, and there is one loop."""
    (tmp_path / "ending.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "gearshift.toml").write_text(
        '[profiles.p]\nbackend = "memory"\n[channels.tasks]\nmax_attempts = 2\nretry_delay_s = 0\n'
    )
    duties = Duties(
        name="worker", channel="tasks", group="default", prefetch=1, handler="ending:handle"
    )  # fmt: skip
    stop = threading.Event()
    with EventLog(tmp_path / "log") as log, gearshift.open(tmp_path / "gearshift.toml") as bus:
        recorder = Recorder(tmp_path / "log", 0)
        access = Access(config=str(tmp_path / "gearshift.toml"), profile="p", channels={})
        work = Worker(bus, duties, recorder, access).run
        worker = threading.Thread(target=work, args=(stop,))
        worker.start()
        bus.producer("tasks").send_many(workload.make(1, 4, 4))
        assert until(lambda: len(_settled(log.events())) == 5)
        stop.set()
        worker.join()
        recorder.close()
        settled = _settled(log.events())
    import ending  # type: ignore[import-not-found]

    assert sorted(settled) == [(0, "ack"), (1, "reject"), (2, "reject"), (2, "retry"), (3, "ack")]
    assert len(ending.loops) == 1


def _settled(events: Iterable[Event]) -> list[tuple[int | None, str]]:
    return [(event.seq, event.what) for event in events if event.kind == "settle"]


def test_it_runs_in_a_notebooks_cell() -> None:
    """Which is inside an event loop: every scenario that reads for itself is judged there too."""

    async def cell() -> Comparison:
        return compare.run(scenarios=["poison"], options=Options(messages=40))

    found = asyncio.run(cell())
    assert outcomes(found, "poison")["embedded:stream"] == "key_waits"


@pytest.mark.parametrize(
    ("columns", "error", "text"),
    [
        (["embedded:lake"], ConfigError, "no semantics 'lake'"),
        (["embedded", "embedded:queue"], ConfigError, "there twice"),
        (["nobody"], ConfigError, "nobody"),
    ],
)
def test_a_column_that_cannot_be_is_refused(
    columns: list[str], error: type[Exception], text: str
) -> None:
    """Before anything is run."""
    with pytest.raises(error, match=text):
        compare.run(columns)


def test_another_file_is_refused(tmp_path: Path) -> None:
    """In one clear error."""
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UsageError, match="not a ledger"):
        Comparison.load(tmp_path / "x.json")
