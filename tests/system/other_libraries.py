"""What docs/from shows of other libraries works; `make others` runs it.

Each snippet runs in a process of its own, with the functions that it calls but does not show, and
is given an order by that library.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support.documents import snippets_of
from support.waiting import until

import gearshift
from native_brokers import Kafka, RabbitMQ

PAGES = Path(__file__).parents[2] / "docs" / "from"

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

_BILL = """
import json
def bill(order): print("handled", order, flush=True)
"""


class Program(NamedTuple):
    """What comes before and after a page's snippet, and the place in it of the broker's URL."""

    broker: str
    address: str
    before: str
    after: str = ""


PROGRAMS = {
    "celery": Program("rabbitmq", "amqp://...", """
import os
from celery import Celery
def charge(*order): os.write(1, f"handled {order}\\n".encode())  # a worker logs what is printed
""", """
app.worker_main(["worker", "--pool", "solo"])
"""),
    "confluent-kafka": Program("kafka", "...", _BILL + """
from confluent_kafka import Consumer, KafkaException, Producer
producer = Producer({"bootstrap.servers": "..."})
producer.produce("orders", b'{"order_id": 7}')
producer.flush()
running = True
"""),
    "faststream": Program("kafka", "localhost:9092", """
import asyncio
from faststream import FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
class Order(BaseModel):
    order_id: int
async def charge(order): print("handled", order, flush=True)
""", """
@app.after_startup
async def send():
    async def repeat():  # a new group begins behind what was sent before it was there
        while True:
            await broker.publish({"order_id": 7}, "orders")
            await asyncio.sleep(0.5)
    app.sending = asyncio.create_task(repeat())
asyncio.run(app.run())
"""),
    "kombu": Program("rabbitmq", "amqp://...", """
from kombu import Connection
""", """
print("handled", message.payload, flush=True)
"""),
    "pika": Program("rabbitmq", "amqp://...", _BILL + """
import pika
sending = pika.BlockingConnection(pika.URLParameters("amqp://...")).channel()
sending.queue_declare("orders", durable=True)
sending.basic_publish("", "orders", b'{"order_id": 7}')
"""),
}  # fmt: skip


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_the_other_side_works(page: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """As it stands on the page, but for the address, it handles order 7."""
    (snippet,) = [one.text for one in snippets_of(PAGES / f"{page}.md") if one.language == "py"]
    program = PROGRAMS[page]
    broker: RabbitMQ | Kafka = request.getfixturevalue(program.broker)
    text = "\n".join([program.before, snippet, program.after])
    assert program.address in snippet
    if isinstance(broker, Kafka):
        settings = {"profile": "p", "profiles": {"p": {"backend": "kafka",
                    "bootstrap_servers": [broker.url]}}, "channels": {"orders": {}}}  # fmt: skip
        with gearshift.open(settings=settings) as bus:
            bus.declare("orders")
    (tmp_path / "shown.py").write_text(text.replace(f'"{program.address}"', f'"{broker.url}"'))
    said = tmp_path / "said"
    with said.open("w") as file, subprocess.Popen(
        [sys.executable, "shown.py"], cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        try:
            handled = re.compile(r"^handled .*7", re.M)
            assert until(lambda: handled.search(said.read_text()) or process.poll())
            assert handled.search(said.read_text()), said.read_text()
        finally:
            process.kill()
