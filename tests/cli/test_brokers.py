"""The command line against real brokers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Run, lines, records
from support.settings import profile_of
from support.waiting import take

import gearshift
from gearshift.operations.redrive import redrive
from native_brokers import Kafka, RabbitMQ

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True, params=["rabbitmq", "kafka"])
def settings(
    request: pytest.FixtureRequest, rabbitmq: RabbitMQ, kafka: Kafka, project: Path
) -> None:
    """Settings that select the broker."""
    profile = profile_of(rabbitmq if request.param == "rabbitmq" else kafka)
    (project / "gearshift.toml").write_text(f"[profiles.p]\n{profile}\n[channels.orders]\n")


def test_from_doctor_to_ls(run: Run) -> None:
    """Checked, sent, listed: the same commands on both brokers."""
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    sent = records(run("send", "orders", input=lines(list(range(1000)))).stdout)
    assert [entry["line"] for entry in sent] == list(range(1, 1001))
    listed = records(run("ls", "-o", "jsonl").stdout)
    assert listed[0]["exists"] is True
    assert run("doctor").exit_code == 0


def test_doctor_says_that_what_is_adopted_is_missing(run: Run, project: Path) -> None:
    """And not that it would be created, which nobody does; nor does doctor."""
    file = project / "gearshift.toml"
    native = 'rabbitmq.queue = "theirs"\nnative.kafka.topic = "theirs"'
    file.write_text(f"{file.read_text()}native.{native}\n")
    for _ in range(2):
        result = run("doctor", "--no-round-trip")
        assert result.exit_code == 2
        assert "'theirs' is missing" in result.stdout
        assert "would be created" not in result.stdout


def test_doctor_tells_of_one_node_what_it_can(run: Run) -> None:
    """One copy on one broker is no finding; what a plain client cannot see is unknown."""
    run("send", "orders", input="1\n")
    result = run("doctor", "--no-round-trip", "-o", "json")
    assert result.exit_code == 0
    told = [check for check in json.loads(result.stdout) if check["step"] == "copies"]
    assert {check["status"] for check in told} == {"ok"}
    assert {"cluster", "orders"} == {check["subject"] for check in told}
    with gearshift.open() as bus:
        expected = "1 copy" if bus.backend == "kafka" else "unknown over AMQP: rabbitmq-queues"
    assert any(expected in check["detail"] for check in told if check["subject"] == "orders")


def test_a_redrive_waits_for_what_the_broker_has(name: str) -> None:
    """However short the silence after which it looks whether that is all."""
    with gearshift.open() as bus:
        with bus.producer(name, create=True) as orders:
            ids = {orders.send(number).id for number in range(30)}
        with bus.consumer(name, create=True) as inbox:
            for delivery in take(inbox, len(ids)):
                delivery.reject()
        assert redrive(bus, name, idle_timeout_s=0.001).moved == len(ids)
        with bus.consumer(name, create=True) as inbox:
            assert {delivery.id for delivery in take(inbox, len(ids))} == ids


def test_dead_letters_come_back(run: Run) -> None:
    """Shown, redriven under the same id, and gone from the dead; peek or replay shows it again."""
    run("send", "bills", "--create", "--header", "a=b", input='{"n": 1}\n')
    with gearshift.open() as bus:
        with bus.consumer("bills", create=True) as inbox:
            (delivery,) = take(inbox, 1)
            delivery.reject("no such customer")
        semantics = bus.semantics("bills")
    assert "no such customer" in run("dlq", "show", "bills").stdout
    assert run("dlq", "redrive", "bills", "--yes").stdout.startswith("redrove 1 ")
    assert run("dlq", "redrive", "bills", "--yes").stdout.startswith("redrove 0 ")
    again = run("peek" if semantics == "queue" else "replay", "bills")
    seen = records(again.stdout)
    # In a log, which all groups read, a copy says whose it is; its own group gets it without.
    marked = {} if semantics == "queue" else {"redrive-group": delivery.group}
    assert {(record["id"], record["value"]["n"]) for record in seen} == {(delivery.id, 1)}
    assert {"a": "b"} | marked in [record["headers"] for record in seen]  # in either partition
