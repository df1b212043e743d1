"""Harnesses for the real brokers: shared ones for what does no harm, own ones to be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from support.settings import profile_of, write_settings
from support.waiting import PATIENCE_S

from gearshift import config, plugins
from gearshift.conformance import Faults, Harness, shared
from gearshift.conformance.proxy import Proxy
from gearshift.message import Semantics
from native_brokers import Broker, Kafka, Kafka43, RabbitMQ, RabbitMQ40, RabbitMQ43, Redis


class Server(NamedTuple):
    """What a backend is tested on; ``settings`` make it notice soon what is gone, and ``lease_s``
    is how soon it then takes a worker that stands still for dead. ``known_failures`` are the kit's,
    of its queues."""

    backend: str
    kind: type[Broker]
    settings: str = ""
    edition: str = ""
    lease_s: float = 30.0
    known_failures: Mapping[str, str] = MappingProxyType({})


_SOON_LEFT = 'native.consumer = { "max.poll.interval.ms" = 8000 }'
SERVERS = {
    "rabbitmq": Server("rabbitmq", RabbitMQ, "heartbeat_s = 5", "3", lease_s=5),
    "rabbitmq4": Server("rabbitmq", RabbitMQ43, "heartbeat_s = 5", "4.3", lease_s=5),
    "kafka": Server("kafka", Kafka, _SOON_LEFT, "4.4", 8),
    "redis": Server("redis", Redis, "lease_s = 5", lease_s=5),
}
#: Releases that only `make conformance` tests, to save time.
EARLIER = {
    "rabbitmq4.0": Server("rabbitmq", RabbitMQ40, "heartbeat_s = 5", "4.0", lease_s=5),
    "kafka4.3": Server("kafka", Kafka43, _SOON_LEFT, "4.3", 8),
}


def offered(servers: dict[str, Server]) -> list[tuple[str, Semantics]]:
    """Every semantics that the backends offer, on each of the servers."""
    return [
        (name, semantics)
        for name, server in servers.items()
        for semantics in plugins.load(server.backend).capabilities
    ]


def embedded(
    backend: str, semantics: Semantics, folder: Path, *, lease_s: float = 30.0, **fields: Any
) -> Harness:
    """A harness on the memory or the sqlite backend; ``fields`` are further ones of Harness.

    Other processes reach SQLite, and nothing but this one reaches memory.
    """
    in_file = f'path = "kit.db"\nlease_s = {lease_s}' if backend == "sqlite" else ""
    file = write_settings(folder, f'backend = "{backend}"\n{in_file}')
    plugin = plugins.load(backend)
    given = {"plugin": shared(plugin) if backend == "memory" else plugin, "patience_s": PATIENCE_S}
    return Harness(
        config=config.load(file), semantics=semantics, lease_s=lease_s, **(given | fields)
    )


def unbroken(backend: str, semantics: Semantics, folder: Path) -> Harness:
    """A harness for the whole kit on an embedded backend, whose workers alone can be broken."""
    return embedded(
        backend,
        semantics,
        folder,
        faults=Faults(broker=None, cable=None, workers=backend == "sqlite"),
        pace=0.3,
        lease_s=6.0 if backend == "sqlite" else 2.0,  # memory has none to lose
    )


@contextmanager
def breakable(server: Server, semantics: Semantics, folder: Path) -> Iterator[Harness]:
    """A harness on a broker of its own behind a proxy, quick to notice what is gone."""
    broker = server.kind()
    with Proxy(("127.0.0.1", 0)) as proxy:
        if issubclass(server.kind, Kafka):
            broker = server.kind(advertised=f"127.0.0.1:{proxy.port}")
        with broker:
            proxy.target = ("127.0.0.1", broker.port)
            url = broker.url.replace(f":{broker.port}", f":{proxy.port}")
            file = write_settings(folder, f"{profile_of(broker, url)}\n{server.settings}")
            yield Harness(
                config=config.load(file),
                semantics=semantics,
                faults=Faults(broker=broker, cable=proxy, workers=True),
                lease_s=server.lease_s,
                patience_s=PATIENCE_S,
                pace=0.3,
                edition=server.edition,
                known_failures=server.known_failures if semantics is Semantics.QUEUE else {},
            )


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an embedded backend."""
    return str(request.param)


def on_embedded(changed: Callable[[Harness], Harness] = lambda harness: harness) -> Any:
    """The fixture ``gearshift_backend`` for both semantics of ``backend``."""

    @pytest.fixture(scope="module", params=list(Semantics))
    def gearshift_backend(
        request: pytest.FixtureRequest, backend: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Harness:
        return changed(unbroken(backend, request.param, tmp_path_factory.mktemp("kit")))

    return gearshift_backend


def on_servers(
    servers: dict[str, Server], changed: Callable[[Harness], Harness] = lambda harness: harness
) -> Any:
    """The fixture ``gearshift_backend`` for every semantics that the backends offer, on every
    server, each a broker of its own that is broken for real."""

    @pytest.fixture(scope="module", params=offered(servers), ids="-".join)
    def gearshift_backend(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Harness]:
        name, semantics = request.param
        with breakable(servers[name], semantics, tmp_path_factory.mktemp("kit")) as harness:
            yield changed(harness)

    return gearshift_backend
