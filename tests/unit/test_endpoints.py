"""URLs and addresses: taken apart by us, so that no client's exception repeats a password."""

from __future__ import annotations

import traceback

import pytest

from gearshift.driver.settings import (
    Endpoint,
    first_remote,
    is_loopback,
    parse_host_port,
    parse_url,
)
from gearshift.secret import Secret

SCHEMES = {"amqp": 5672, "amqps": 5671}
CANARY = "hunter2canary"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://h", Endpoint(scheme="amqp", host="h", port=5672)),
        ("amqps://h", Endpoint(scheme="amqps", host="h", port=5671)),
        ("AMQP://h", Endpoint(scheme="amqp", host="h", port=5672)),
        ("amqp://h:1", Endpoint(scheme="amqp", host="h", port=1)),
        ("amqp://h:65535", Endpoint(scheme="amqp", host="h", port=65535)),
        ("amqp://h/", Endpoint(scheme="amqp", host="h", port=5672, path="")),
        ("amqp://h/%2F", Endpoint(scheme="amqp", host="h", port=5672, path="/")),
        ("amqp://h/a%2Fb", Endpoint(scheme="amqp", host="h", port=5672, path="a/b")),
        ("amqp://[::1]:99/v", Endpoint(scheme="amqp", host="::1", port=99, path="v")),
        ("amqp://[::1]", Endpoint(scheme="amqp", host="::1", port=5672)),
        ("amqp://u@h", Endpoint(scheme="amqp", host="h", port=5672, username="u")),
        (
            "amqp://u:@h",
            Endpoint(scheme="amqp", host="h", port=5672, username="u", password=Secret("")),
        ),
        (
            "amqp://us%40er:p%2F%3A%40%C3%BC+100%25@h:7/v",
            Endpoint(
                scheme="amqp",
                host="h",
                port=7,
                username="us@er",
                password=Secret("p/:@ü+100%"),
                path="v",
            ),
        ),
    ],
)
def test_a_url_is_taken_apart_and_unquoted(url: str, expected: Endpoint) -> None:
    assert parse_url(url, schemes=SCHEMES) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "missing scheme, expected amqp:// or amqps://"),
        ("localhost:5672", "missing scheme"),
        (f"app:{CANARY}@localhost", "missing scheme"),
        ("http://h", "unknown scheme 'http', expected amqp:// or amqps://"),
        (f"app:{CANARY}@h://", "unknown scheme, expected"),
        ("://h", "unknown scheme"),
        ("amqp://", "no host name"),
        (f"amqp://app:{CANARY}@", "no host name"),
        (f"amqp://:{CANARY}", "no host name"),
        (f"amqp://app:{CANARY}", "not a port"),
        (f"amqp://app:{CANARY}/v", "not a port"),
        ("amqp://app:1234567890", "port is not from 1 to 65535"),
        ("amqp://h:0", "port 0 is not from 1 to 65535"),
        ("amqp://h:65536", "port 65536 is not from"),
        ("amqp://h:-1", "not a port"),
        ("amqp://h:٣", "not a port"),
        ("amqp://h:" + "9" * 5000, "port is not from"),
        (f"amqp://app:{CANARY}/x@h", "percent-encode it"),
        (f"amqp://app:{CANARY}@x@h", "percent-encode it"),
        (f"amqp://app:{CANARY}:x@h", "percent-encode it"),
        (f"amqp://app:{CANARY}?x@h", "percent-encoded"),
        (f"amqp://app:{CANARY}#x@h", "percent-encoded"),
        (f"amqp://app:{CANARY} x@h", "space"),
        (f"amqp://app:{CANARY}@h\n", "control character"),
        (f"amqp://app:{CANARY}@h x", "space"),
        (f"amqp://app:{CANARY}%FF@h", "not UTF-8"),
        (f"amqp://{CANARY}%FF@h", "not UTF-8"),
        ("amqp://h//a/b", "the path has two parts"),
        (f"amqp://app/se/{CANARY}", "the path has two parts"),
        ("amqp://::1", "no host name"),
        ("amqp://[::1", "not [IPv6]:port"),
        ("amqp://[::1]5672", "not [IPv6]:port"),
        (f"amqp://[{CANARY}]:5672", "not [IPv6]:port"),
        ("amqp://h1,h2", "has a ','"),
        ("amqp://h%41", "no host name"),
    ],
)
def test_a_malformed_url_is_refused_by_field_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_url(url, schemes=SCHEMES, field="server")
    assert str(caught.value).startswith("server: ")
    assert says in str(caught.value)
    frames = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error!r}{error}{vars(error)}"
        error = error.__cause__ or error.__context__
    assert CANARY not in frames


def test_an_endpoint_does_not_show_its_password() -> None:
    endpoint = parse_url(f"amqp://app:{CANARY}@h", schemes=SCHEMES)
    assert CANARY not in f"{endpoint} {endpoint!r}"
    assert endpoint.password is not None
    assert endpoint.password.reveal() == CANARY


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("h:1", ("h", 1)),
        ("h", ("h", 9092)),
        ("[fe80::1]:9", ("fe80::1", 9)),
        ("10.0.0.1:9", ("10.0.0.1", 9)),
    ],
)
def test_an_address_is_host_and_port(address: str, expected: tuple[str, int]) -> None:
    assert parse_host_port(address, default_port=9092, field="servers") == expected


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("h", "'h' has no port, write host:port"),
        ("h:", "'h' has no port"),
        ("[::1]", "'::1' has no port"),
        ("", "no host name"),
        (":9092", "no host name"),
        ("h/x:9092", "no host name"),
        ("http://h:9092", "without scheme"),
        (f"app:{CANARY}@h:9092", "without scheme and credentials"),
        ("a:1,b:2", "one host:port"),
        ("h:9092 ", "not a port"),
        (" h:9092", "no host name"),
        ("h\0:9092", "no host name"),
    ],
)
def test_a_malformed_address_is_refused_by_field(address: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_host_port(address, default_port=None, field="servers")
    assert str(caught.value).startswith("servers: ")
    assert says in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "::1"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "10.0.0.1", "example.org", "localhost.example.org", "0.0.0.0"]
)
def test_any_other_host_is_remote(host: str) -> None:
    assert not is_loopback(host)


def test_first_remote_names_the_first_host_that_is_elsewhere() -> None:
    assert first_remote([("localhost", 1), ("a", 2), ("b", 3)]) == "a"
    assert first_remote([("localhost", 1)]) is None
    assert first_remote([]) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://h?heartbeat=10", "use heartbeat_s for heartbeat"),
        (f"amqp://u:{CANARY}@h/v?x=1&HEARTBEAT=9", "use heartbeat_s for heartbeat"),
        ("amqp://h/v?x=1", "use the settings beside it"),
        ("amqp://a,b/v", "put the others into hosts"),
        (f"amqp://u:{CANARY}@a:1,b:2", "put the others into hosts"),
        (f"amqp://u:{CANARY}@a:1/,amqp://b:2/", "put the others into hosts"),
    ],
)
def test_what_other_clients_read_in_a_url_is_a_setting_here(url: str, says: str) -> None:
    """It is not taken for a part of the path, and the error names the setting to use."""
    with pytest.raises(ValueError, match=says) as caught:
        parse_url(url, schemes=SCHEMES, parameters={"heartbeat": "heartbeat_s"}, more_hosts="hosts")
    assert CANARY not in str(caught.value)
