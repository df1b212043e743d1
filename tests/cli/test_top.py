"""``gearshift top``: what the broker and running services tell, live and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Run, command_path
from support.settings import profile_of
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift import App, Worker, errors
from gearshift.cli.top import screen
from gearshift.operations.scraping import MetricsPages, page_url
from gearshift.operations.top import Look, Row, Top
from gearshift.telemetry.server import TelemetryServer
from native_brokers import Broker

ONCE = ("top", "--once", "--interval", "0.1")
OF_SERVICES = ("sent_per_s", "acked_per_s", "retried_per_s", "busy", "handler_limit")


def groups(text: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    """(channel, group) → the row."""
    return {(row["channel"], row["group"]): row for row in json.loads(text)["groups"]}


def test_the_broker_tells_what_waits(run: Run) -> None:
    """A row per group; what only services know is unknown, and a channel that is not there too."""
    with gearshift.open() as bus:
        bus.producer("orders").send_many(range(5))
        take(bus.consumer("orders"), 1)[0].reject("no")
        assert until(lambda: bus.dead_letters("orders.dead") == 1)
    result = run(*ONCE, "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["problems"]) == (0, [])
    found = groups(result.stdout)
    assert found.keys() == {("orders", "default"), ("orders", "audit"), ("events", None)}
    default = found["orders", "default"]
    assert (default["waiting"], default["dead_letters"], default["change_per_s"]) == (4, 1, 0)
    assert default["oldest_age_s"] > 0
    assert [default[field] for field in OF_SERVICES] == [None] * len(OF_SERVICES)
    assert found["events", None]["change_per_s"] is None
    table = run(*ONCE).stdout.splitlines()
    assert table[1].split()[:7] == ["orders", "default", "-", "-", "4", "0.0", table[1].split()[6]]
    assert table[3].split() == ["events", *["-"] * 9, "0"]


def test_services_tell_rates_and_how_busy_handlers_are() -> None:
    """Sums over the pages that answer; a service that starts anew is no negative rate."""
    sent = 'gearshift_messages_sent_total{channel="orders"} '
    settled = 'gearshift_messages_settled_total{channel="orders",group="g",outcome="ack"} '
    busy = 'gearshift_in_hand_messages{channel="orders",group="g"} '
    retried = settled.replace("ack", "retry")
    consumers = 'gearshift_consumers{channel="orders",group="g"} 1\n'
    pages = {
        "a": [f"{sent}10\n", f"{sent}30\n", f"{sent}5\n"],
        "b": [
            f"{settled}{n}\n{busy}3\n{retried}7\n{consumers}" for n in (100, 140, 150)
        ],
    }  # fmt: skip
    clock = iter([0.0, 0.0, 2.0, 2.0, 4.0, 4.0])
    reader = MetricsPages(list(pages), fetch=lambda url: pages[url].pop(0), clock=clock.__next__)
    settings = {"profiles": {"m": {"backend": "memory"}}}
    with gearshift.open(settings=settings) as bus:
        top = Top(bus, ["orders"], reader)
        (first,), (second,), (third,) = (top.look().rows for _ in range(3))
    assert (first.group, first.sent_per_s, first.acked_per_s, first.busy) == ("g", None, None, 3)
    assert (second.sent_per_s, second.acked_per_s, second.retried_per_s) == (10, 20, 0)
    assert (third.sent_per_s, third.acked_per_s) == (None, 5)
    assert (third.waiting, third.change_per_s) == (None, None)


def test_a_page_is_that_of_a_running_service(run: Run) -> None:
    """Busy handlers of how many; one that does not answer is said, and the rest goes on."""
    app = App()

    @app.handler("orders", concurrency=3)
    def handle(value: int) -> None:
        """Nothing."""

    with gearshift.open() as bus, TelemetryServer(bus, "127.0.0.1", 0) as server:
        worker = Worker(app, bus)
        worker.start()
        result = run(*ONCE, "orders", "--metrics", str(server.port), "--metrics", "1")
        worker.stop()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:2] == ["orders", "default"]
    assert "0/3" in result.stdout
    assert "http://127.0.0.1:1/metrics" in result.stderr


def test_a_broker_that_is_down_is_said_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer there is a reason, and at the next look what there is then."""
    with gearshift.open() as bus:
        bus.producer("orders").send(1)
        top = Top(bus, ["orders"], MetricsPages([]))
        groups = bus.groups

        def down(channel: str, *, timeout_s: float) -> object:
            raise errors.ConnectionFailed("refused")

        monkeypatch.setattr(bus, "groups", down)
        look = top.look()
        assert look.problems == ["broker: refused"]
        assert [(row.waiting, row.change_per_s) for row in look.rows] == [(None, None)]
        monkeypatch.setattr(bus, "groups", groups)
        look = top.look()
        assert (look.problems, look.broker_error) == ([], None)
        assert [row.waiting for row in look.rows] == [1, 1]


def test_once_fails_if_the_broker_cannot_be_reached(
    run: Run, project: Path, free_port: int
) -> None:
    """As every command does, and still says what services tell."""
    (project / "gearshift.toml").write_text(
        f'[profiles.p]\nbackend = "redis"\nurl = "redis://127.0.0.1:{free_port}"\n'
        "[channels.orders]\n"
    )
    result = run(*ONCE, "-o", "json")
    assert result.exit_code == 3
    assert groups(result.stdout).keys() == {("orders", None)}
    assert "broker: " in json.loads(result.stdout)["problems"][0]


@pytest.mark.broker
@pytest.mark.parametrize("kind", ["rabbitmq", "kafka", "redis"])
def test_every_broker_tells_what_it_can(
    run: Run, project: Path, request: pytest.FixtureRequest, name: str, kind: str
) -> None:
    """The backlog of a queue, the lag of a stream; never 0 for what is not told."""
    broker: Broker = request.getfixturevalue(kind)
    (project / "gearshift.toml").write_text(
        f"[profiles.p]\n{profile_of(broker)}\n[channels.{name}]\n"
    )
    with gearshift.open() as bus:
        bus.producer(name).send_many(range(3))
        consumer = bus.consumer(name)
        take(consumer, 1)[0].reject("no")
        assert until(lambda: bus.dead_letters(f"{name}.dead") == 1)
        consumer.close()
        result = run(*ONCE, "-o", "json")
        bus.delete(name)
        bus.delete(f"{name}.dead")
    row = groups(result.stdout)[name, "default"]
    assert (result.exit_code, row["waiting"]) == (0, 2)
    assert row["dead_letters"] == 1
    if kind != "redis":
        assert row["oldest_age_s"] is None


def test_addresses_of_pages() -> None:
    """As --metrics of run takes them, or the address of the page itself."""
    assert page_url("9102") == "http://127.0.0.1:9102/metrics"
    assert page_url("[::1]:9102") == "http://[::1]:9102/metrics"
    assert page_url("http://shop/messaging/metrics") == "http://shop/messaging/metrics"
    with pytest.raises(errors.ConfigError):
        page_url("shop")


@contextmanager
def live() -> Iterator[Callable[[str, str], None]]:
    """``gearshift top`` on a terminal: what is called with a key, and the text that it waits for
    then; ended by q, which leaves the terminal as it was."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [command_path(), "top", "--interval", "0.1"],
        stdin=follower, stdout=follower, stderr=follower,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"},
    )  # fmt: skip
    os.close(follower)
    shown = ""

    def press(key: str, answer: str) -> None:
        nonlocal shown
        os.write(leader, key.encode())
        while answer not in shown:
            shown += os.read(leader, 65536).decode()

    try:
        yield press
        press("q", "\x1b[?1049l")  # back from the alternate screen
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def test_live_it_obeys_keys() -> None:
    """On a terminal: s sorts, p pauses."""
    with gearshift.open() as bus:
        bus.producer("orders").send(1)
    with live() as press:
        press("", "audit")
        press("s", "sort (by backlog)")
        press("p", "p go on")


def test_what_is_logged_stands_in_the_picture(project: Path, free_port: int) -> None:
    """And not across it."""
    (project / "gearshift.toml").write_text(
        f'[profiles.p]\nbackend = "redis"\nurl = "redis://127.0.0.1:{free_port}"\n'
        "[channels.orders]\n"
    )
    with live() as press:
        press("", "\x1b[31mwarning: ")


def test_what_needs_attention_is_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    """Handlers that are all busy, dead letters, what nobody takes, and what could not be asked."""
    from rich.console import Console

    row = Row(
        channel="orders", semantics="queue", group="g", waiting=1240, oldest_age_s=74.0,
        change_per_s=18.4, sent_per_s=1240.0, busy=8, handler_limit=8, dead_letters=14,
        consumers=0,
    )  # fmt: skip
    console = Console(force_terminal=True, width=120, color_system="standard")
    with gearshift.open() as bus:
        console.print(screen(bus, Look([row], None, ["broker: down"]), 2.0, "channel", False))
    text = capsys.readouterr().out
    for shown in (
        "1,240",
        "+18.4",
        "1m14s",
        "\x1b[31m   0",
        "\x1b[33m 8/8",
        "\x1b[31m  14",
        "\x1b[31mbroker: down",
    ):
        assert shown in text


def test_a_group_that_is_sorted_away_from_its_channel_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And numbers are whole in a narrow terminal: names give way."""
    from rich.console import Console

    waiting = {
        ("orders", "billing"): 1284,
        ("clicks-of-a-long-name", "stats"): 900,
        ("orders", "shipping"): 7,
    }
    rows = [
        Row(
            channel=channel,
            semantics="queue",
            group=group,
            waiting=count,
            busy=200,
            handler_limit=200,
            change_per_s=1290.0,
            sent_per_s=1900.0,
            acked_per_s=610.0,
            retried_per_s=120.0,
            oldest_age_s=3720.0,
        )
        for (channel, group), count in waiting.items()
    ]
    with gearshift.open() as bus:
        Console(width=80).print(screen(bus, Look(rows, None, []), 2.0, "backlog", False))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (header,) = [number for number, line in enumerate(lines) if "BACKLOG" in line]
    shown = [line for line in lines[header + 1 :] if "200/200" in line]
    assert [(line[0], line[1], line[4]) for line in (shown[0], shown[2])] == [
        ("orders", "billing", "1,284"),
        ("orders", "shipping", "7"),
    ]
