"""Harnesses for the real brokers: shared ones for what does no harm, own ones to be broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gearshift import config
from gearshift.conformance import Faults, Harness
from gearshift.conformance.proxy import Proxy
from gearshift.message import Semantics
from native_brokers import Broker, Kafka, RabbitMQ


@contextmanager
def breakable(kind: type[Broker], semantics: Semantics, folder: Path) -> Iterator[Harness]:
    """A harness on a broker of its own behind a proxy, quick to notice what is gone."""
    broker = kind()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        if kind is Kafka:
            broker = Kafka(advertised=f"127.0.0.1:{proxy.port}")
            proxy.target = ("127.0.0.1", broker.port)
        with broker:
            yield Harness(
                config=_config(broker, proxy.port, folder, _QUICK[kind]),
                semantics=semantics,
                faults=Faults(broker=broker, cable=proxy, workers=True, lease_s=30.0),
                patience_s=60.0,
                pace=0.3,
            )


KINDS: dict[str, type[Broker]] = {"rabbitmq": RabbitMQ, "kafka": Kafka}

_QUICK = {RabbitMQ: "heartbeat_s = 5", Kafka: ""}


def _config(broker: Broker, port: int, folder: Path, more: str) -> config.Config:
    if isinstance(broker, Kafka):
        profile = f'backend = "kafka"\nbootstrap_servers = ["127.0.0.1:{port}"]'
    else:
        profile = f'backend = "rabbitmq"\nurl = "{broker.url}"'.replace(str(broker.port), str(port))
    file = folder / "gearshift.toml"
    file.write_text(f"[profiles.kit]\n{profile}\n{more}\n")
    return config.load(file)
