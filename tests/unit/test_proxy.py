"""The proxy of the kit: what it does to connections, and that it leaves none behind."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest

from gearshift.conformance.proxy import Proxy
from native_brokers.ports import reserve_ports


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A server that accepts by its backlog alone."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server


def is_closed(client: socket.socket) -> bool:
    """Whether the other side has closed or reset; waits for it."""
    client.settimeout(30)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("cut", [False, True], ids=["open", "cut"])
def test_a_proxy_that_closes_while_clients_come_leaks_no_socket(
    target: socket.socket, cut: bool
) -> None:
    """Also what is just being accepted is closed: pytest would report an unclosed socket."""
    for _ in range(20):
        with Proxy(target.getsockname()) as proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port))
            if cut:
                proxy.cut()
        with client:
            assert is_closed(client)
    gc.collect()


def test_bytes_pass_until_they_are_held(target: socket.socket) -> None:
    """Held bytes are neither lost nor passed on before their release."""
    with Proxy(target.getsockname()) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port))
        server, _ = target.accept()
        with client, server:
            server.settimeout(30)
            client.sendall(b"a")
            assert server.recv(1) == b"a"
            proxy.hold()
            client.sendall(b"b")
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.recv(1)
            server.settimeout(30)
            proxy.release()
            assert server.recv(1) == b"b"


def test_a_target_that_is_down_closes_its_clients() -> None:
    """As soon as it is known."""
    address = ("127.0.0.1", *reserve_ports(1))
    with Proxy(address) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as client:
        assert is_closed(client)
