"""Every bad input ends in one clear error that names the field, the value and the fix.

What is wrong with the file itself, with channels and with names is in ``tests/unit/test_config``;
the command line's own is in ``tests/cli``.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.buses import OpenBus

import gearshift
from gearshift import errors
from gearshift.exit_codes import exit_code
from gearshift.message import Message

SECRET = "s3cr/t@word"

RABBIT = 'backend = "rabbitmq"\n'
KAFKA = 'backend = "kafka"\n'
SERVERS = KAFKA + 'bootstrap_servers = ["localhost:9092"]\n'

#: A profile's settings, the setting that the error names, and words of it or of its hint.
BAD_PROFILES = [
    # addresses
    (RABBIT + 'url = "localhost:5672"', "url", "missing scheme, expected amqp:// or amqps://"),
    (RABBIT + 'url = "http://localhost"', "url", "unknown scheme 'http', expected amqp://"),
    (RABBIT + 'url = "amqp://localhost:99999"', "url", "port 99999 is not from 1 to 65535"),
    (RABBIT + 'url = "amqp://localhost:0"', "url", "port 0 is not from 1"),
    (RABBIT + 'url = "amqp://localhost:port"', "url", "what follows ':'"),
    (RABBIT + f'url = "amqp://u:{SECRET}@h/"', "url", "percent-encode it"),
    (RABBIT + 'url = "amqp://localhost/a/b"', "url", "percent-encode its '/' as %2F"),
    (RABBIT + 'url = "amqp://h/?heartbeat=10"', "url", "heartbeat_s"),
    (RABBIT + 'url = "amqp://a:1,b:2/"', "url", 'hosts = ["host:port"]'),
    (RABBIT + 'hosts = ["b:x"]', "hosts", "is not a port"),
    (KAFKA + "bootstrap_servers = []", "bootstrap_servers", 'write ["host:9092"]'),
    (KAFKA + 'bootstrap_servers = [""]', "bootstrap_servers", "write host:port"),
    (KAFKA + 'bootstrap_servers = ["http://h:1"]', "bootstrap_servers", "without a scheme"),
    (KAFKA + 'bootstrap_servers = ["h"]', "bootstrap_servers", "has no port"),
    (KAFKA + 'bootstrap_servers = ["h:0"]', "bootstrap_servers", "port 0 is not from 1"),
    (KAFKA + f'bootstrap_servers = ["u:{SECRET}@h:1"]', "bootstrap_servers", "sasl_username"),
    (KAFKA, "bootstrap_servers", "is missing"),
    # credentials and TLS
    (RABBIT + 'url = "amqp://a:b@h"\nusername = "c"', "username", "keep one of them"),
    (RABBIT + 'tls_ca_file = "ca.pem"', "tls_ca_file", "only used with TLS"),
    (RABBIT + 'url = "amqps://h"\ntls_ca_file = "no.pem"', "tls_ca_file", "cannot read"),
    (RABBIT + 'url = "amqps://h"\ntls_ca_file = "."', "tls_ca_file", "cannot read"),
    (RABBIT + 'url = "amqps://h"\ntls_key_file = "key.pem"', "tls_key_file", "needs tls_cert_file"),
    (RABBIT + "tls_insecure_skip_verify = true", "tls_insecure_skip_verify", "amqps://"),
    (SERVERS + f'sasl_password = "{SECRET}"', "sasl_mechanism", "is missing"),
    (SERVERS + 'sasl_mechanism = "PLAIN"', "sasl_username", "needs sasl_username and"),
    (
        SERVERS + 'sasl_mechanism = "GSSAPI"',
        "sasl_mechanism",
        "expected one of 'OAUTHBEARER', 'PLAIN'",
    ),
    (SERVERS + 'tls_ca_file = "ca.pem"', "tls_ca_file", "set tls = true"),
    (SERVERS + 'tls = true\ntls_ca_file = "no.pem"', "tls_ca_file", "cannot read"),
    # numbers
    (RABBIT + "heartbeat_s = 0", "heartbeat_s", "use 1 to 300 seconds"),
    (RABBIT + "connect_timeout_s = nan", "connect_timeout_s", "use seconds over 0"),
    (RABBIT + "connect_timeout_s = inf", "connect_timeout_s", "use seconds over 0"),
    (RABBIT + "connect_timeout_s = -1", "connect_timeout_s", "use seconds over 0"),
    (SERVERS + "delivery_timeout_s = nan", "delivery_timeout_s", "use 1 to 3600"),
    (SERVERS + "linger_s = -1", "linger_s", "use 0 to 10"),
    ('backend = "sqlite"\nlease_s = 0', "lease_s", "positive number of seconds"),
    ('backend = "sqlite"\nbusy_timeout_s = inf', "busy_timeout_s", "positive number of seconds"),
    ('backend = "sqlite"\npath = ":memory:"', "path", "use backend = 'memory'"),
    ('backend = "sqlite"\npath = "."', "path", "name a file in it"),
    # what contradicts our promises, or has no place on a client
    (SERVERS + 'native.producer = { acks = "1" }', "native.producer", "not yours to set"),
    (
        SERVERS + 'native.producer = { "max.in.flight" = 6 }',
        "native.producer",
        "contradicts idempotence",
    ),
    (
        SERVERS + 'native.consumer = { "retention.ms" = 6 }',
        "native.consumer",
        "is a setting of the broker or topic",
    ),
    (
        SERVERS + 'native.producer = { "plugin.library.paths" = "x.so" }',
        "native.producer",
        "loading native code",
    ),
    (
        SERVERS + 'native.producer = { "batch.sise" = 5 }',
        "native.producer",
        "did you mean 'batch.size'?",
    ),
    (SERVERS + f'secrets = {{ "ssl.key.pasword" = "{SECRET}" }}', "secrets", "is not one of"),
    # the same for all
    (RABBIT + "hartbeat_s = 5", "hartbeat_s", "did you mean 'heartbeat_s'?"),
    (SERVERS + 'compression = "brotli"', "compression", "expected one of 'gzip'"),
    (RABBIT + 'password = "${NO_SUCH_VARIABLE}"', "password", "NO_SUCH_VARIABLE is not set"),
]


@pytest.mark.parametrize(("profile", "field", "words"), BAD_PROFILES, ids=lambda value: value[:60])
def test_a_bad_profile(tmp_path: Path, profile: str, field: str, words: str) -> None:
    """File and line, the setting, its value with secrets masked, and what to write; exit code 2."""
    (tmp_path / "gearshift.toml").write_text(f"[profiles.p]\n{profile}\n")
    (tmp_path / "key.pem").write_text("")
    with pytest.raises(errors.ConfigError) as caught:
        gearshift.open()
    text = str(caught.value)
    assert re.match(rf"gearshift\.toml:\d+: profiles\.p\.{re.escape(field)}\b", text)
    assert words in text
    assert not any(part in text for part in ("s3cr", "t@word"))
    assert exit_code(caught.value) == 2


#: A channel's settings, on which profile, and the words of the refusal.
BAD_CHANNELS = [
    ('semantics = "queue"\npartitions = 4', "sqlite", "partitions = 4: is for streams"),
    ('semantics = "queue"\nretention_s = 60', "kafka", "retention_s = 60: is for streams"),
    ('codec = "jsno"', "sqlite", "unknown codec 'jsno' (hint: did you mean 'json'?"),
    ("max_processing_s = 1800", "rabbitmq", "consumer_timeout"),
    ("max_attempts = 501", "rabbitmq", "max_attempts is 501"),
    ('native.rabbitmq = { queue = "" }', "rabbitmq", "must be 1 to 255 bytes"),
    ('native.rabbitmq = { routing_key = "x" }', "rabbitmq", "name the exchange too"),
    ('native.rabbitmq = { quue = "x" }', "rabbitmq", "did you mean 'queue'?"),
    ('groups = ["a", "b"]\nnative.rabbitmq = { queue = "x" }', "rabbitmq", "adopts one queue"),
    ('native.kafka = { topic = " " }', "kafka", 'topic = " ": is blank'),
    ("native.kafka = { replication_factor = 0 }", "kafka", "use 1 to 32767"),
]


@pytest.mark.parametrize(("settings", "backend", "words"), BAD_CHANNELS)
def test_a_bad_channel(tmp_path: Path, settings: str, backend: str, words: str) -> None:
    """Refused without any connection: there is no server here."""
    profile = SERVERS if backend == "kafka" else f'backend = "{backend}"\n'
    (tmp_path / "gearshift.toml").write_text(
        f"[profiles.p]\n{profile}[channels.orders]\n{settings}\n"
    )
    with (
        pytest.raises((errors.ConfigError, errors.NotSupported)) as caught,
        gearshift.open() as bus,
    ):
        bus.producer("orders")
    assert words in str(caught.value)
    assert "orders" in str(caught.value)


# ── messages ─────────────────────────────────────────────────────────────────────────────────────

LONG = "x" * 300

#: What is sent, the error's type, and its words. ``events`` is a stream, the others queues.
BAD_MESSAGES: list[tuple[str, Any, dict[str, Any], type[Exception], str]] = [
    ("binary", "text", {}, errors.EncodeError, "codec is 'bytes' and cannot encode str"),
    ("binary", {"a": 1}, {}, errors.EncodeError, "codec is 'bytes' and cannot encode dict"),
    ("texts", {"a": 1}, {}, errors.EncodeError, "codec is 'text' and cannot encode dict"),
    ("texts", "\ud800", {}, errors.EncodeError, "lone surrogates"),
    ("orders", object(), {}, errors.EncodeError, "cannot encode object as JSON"),
    ("orders", {"a": float("nan")}, {}, errors.EncodeError, "nan, which JSON cannot carry"),
    ("orders", [float("inf")], {}, errors.EncodeError, "inf, which JSON cannot carry"),
    ("orders", None, {}, errors.NotSupported, "send b'' for an empty body"),
    ("orders", bytes(64 * 2**20 + 1), {}, errors.MessageTooLarge, "67108865 bytes"),
    ("orders", bytes(64 * 2**20 + 1), {}, errors.MessageTooLarge, "the limit is 67108864"),
    ("orders", Message("text"), {}, errors.InvalidMessage, "Message.body must be bytes, got str"),  # type: ignore[arg-type]
    ("orders", 1, {"key": 5}, errors.InvalidMessage, "key must be str, bytes or None, got int"),
    ("orders", 1, {"key": "\ud800"}, errors.InvalidMessage, "not valid Unicode"),
    ("orders", 1, {"headers": {5: "x"}}, errors.InvalidMessage, "header name must be str, got 5"),
    ("orders", 1, {"headers": {"": "x"}}, errors.InvalidMessage, "header name '' is not valid"),
    ("orders", 1, {"headers": {"a\0": "x"}}, errors.InvalidMessage, r"'a\x00' is not valid"),
    ("orders", 1, {"headers": {"a\r\nb": 1}}, errors.InvalidMessage, r"'a\r\nb' is not valid"),
    ("orders", 1, {"headers": {"a": 1.5}}, errors.InvalidMessage, "'a' has a value of type float"),
    ("orders", 1, {"headers": {"a": 2**63}}, errors.InvalidMessage, "'a' is over 64 bits"),
    ("orders", 1, {"headers": {"gearshift-x": 1}}, errors.InvalidMessage, "'gearshift-x' is res"),
    ("orders", 1, {"headers": "text"}, errors.InvalidMessage, "must be a mapping or (name, value)"),
    ("orders", 1, {"timestamp_ms": -1}, errors.InvalidMessage, "timestamp_ms -1 is out of range"),
    ("orders", 1, {"timestamp_ms": 1.5}, errors.InvalidMessage, "timestamp_ms must be a whole"),
    ("orders", 1, {"id": ""}, errors.InvalidMessage, "id must be a non-empty str"),
    ("orders", 1, {"content_type": "a\nb"}, errors.InvalidMessage, "content_type must be"),
]  # fmt: skip

MESSAGE_CHANNELS = """
[channels.orders]
semantics = "queue"
[channels.binary]
codec = "bytes"
[channels.texts]
codec = "text"
[channels.json]
codec = "json"
"""


@pytest.fixture
def opened(open_bus: OpenBus) -> gearshift.Bus:
    """A bus whose channels have codecs."""
    return open_bus(MESSAGE_CHANNELS)


@pytest.mark.parametrize("how", ["send", "send_many", "submit"])
@pytest.mark.parametrize(("channel", "value", "fields", "kind", "words"), BAD_MESSAGES)
def test_a_bad_message(
    opened: gearshift.Bus,
    channel: str,
    value: Any,
    fields: dict[str, Any],
    kind: type[Exception],
    words: str,
    how: str,
) -> None:
    """Refused before anything is stored, and what comes after it is sent as ever."""
    with opened.producer(channel) as producer:
        with pytest.raises(errors.GearshiftError) as caught:
            _send(producer, how, value, fields)
        error = caught.value
        if isinstance(error, gearshift.SendFailed):
            (error,) = (e for e in error.results if isinstance(e, errors.GearshiftError))
        assert type(error) is kind
        assert words in str(error)
        assert not error.retryable
        producer.send(b"good" if channel == "binary" else "good")
    assert [state.ready for state in opened.groups(channel)] == [1]


def _send(producer: gearshift.Producer, how: str, value: Any, fields: dict[str, Any]) -> None:
    if how == "send_many":
        producer.send_many([producer.message(value, **fields) if fields else value])
    else:
        getattr(producer, how)(value, **fields)


def test_a_message_has_its_own_fields(opened: gearshift.Bus) -> None:
    """They would be ignored beside it."""
    with opened.producer("orders") as producer, pytest.raises(errors.InvalidMessage) as caught:
        producer.send(Message(b""), key="k")
    assert "a Message has its own key" in str(caught.value)


#: Body, content type, what the caller wants, and the words.
BAD_BODIES = [
    (b"{", "application/json", Any, "JSON body does not decode"),
    (b"\xff", "application/json", Any, "JSON body does not decode"),
    (b"[" * 100_000, "application/json", Any, "nested too deeply"),
    (b"\xff", "text/plain", Any, "body is not UTF-8 text: byte 0"),
    (b'{"a": 1}', "application/json", int, "JSON body does not decode for int"),
    (b"x", "application/x-unknown", int, "JSON body does not decode for int"),
    (b" " * (64 * 2**20 + 1), "application/json", Any, "over the limit"),
]


@pytest.mark.parametrize(("body", "content_type", "target", "words"), BAD_BODIES)
def test_a_body_that_does_not_decode(
    body: bytes, content_type: str, target: Any, words: str
) -> None:
    """One error, and nothing else is raised by whatever a stranger has sent."""
    from gearshift.codecs import codec_named, decode

    with pytest.raises(errors.DecodeError) as caught:
        decode(codec_named("auto"), body, content_type, target)
    assert words in str(caught.value)


def test_an_unknown_content_type_stays_bytes(opened: gearshift.Bus) -> None:
    """It is never guessed at."""
    with opened.producer("orders") as producer, opened.consumer("orders") as inbox:
        producer.send(b"\x80\x04K\x01.", content_type="application/python-pickle")
        (delivery,) = inbox.receive(timeout_s=10)
        assert delivery.value == b"\x80\x04K\x01."
        delivery.ack()


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "x" * 250, "a b", "ä", None, 5])
def test_a_name_that_no_broker_takes(opened: gearshift.Bus, name: Any) -> None:
    """Of a channel and of a group; long ones are shortened in the text."""
    for make in (
        lambda: opened.producer(name),
        lambda: opened.consumer(name),
        lambda: opened.consumer("orders", group=name) if name is not None else opened.consumer(""),
    ):
        with pytest.raises(errors.InvalidMessage) as caught:
            make()
        assert len(str(caught.value)) < 250


# ── lifecycle ────────────────────────────────────────────────────────────────────────────────────


def _settled_twice(bus: gearshift.Bus) -> None:
    delivery = _delivery(bus)
    delivery.ack()
    delivery.reject()


def _settled_after_close(bus: gearshift.Bus) -> None:
    with bus.producer("orders") as producer:
        producer.send(1)
    with bus.consumer("orders") as inbox:
        (delivery,) = inbox.receive(timeout_s=10)
    delivery.ack()


def _used_after_close(bus: gearshift.Bus) -> None:
    producer = bus.producer("orders")
    producer.close()
    producer.send(1)


def _received_after_close(bus: gearshift.Bus) -> None:
    inbox = bus.consumer("orders")
    inbox.close()
    inbox.receive(timeout_s=0)


def _closed_bus(bus: gearshift.Bus) -> None:
    bus.close()
    bus.producer("orders")


def _sent_in_a_loop(bus: gearshift.Bus) -> None:
    with bus.producer("orders") as producer:

        async def main() -> None:
            producer.send(1)

        asyncio.run(main())


def _received_in_a_loop(bus: gearshift.Bus) -> None:
    with bus.consumer("orders") as inbox:

        async def main() -> None:
            inbox.receive(timeout_s=0)

        asyncio.run(main())


def _delivery(bus: gearshift.Bus) -> gearshift.Delivery[Any]:
    with bus.producer("orders") as producer:
        producer.send(1)
    return bus.consumer("orders").receive(timeout_s=10)[0]


MISUSES: list[tuple[Callable[[gearshift.Bus], object], type[Exception], str]] = [
    (_settled_twice, errors.AlreadySettled, "was settled before, with ack()"),
    (_settled_after_close, errors.StaleDelivery, "will be delivered again"),
    (_used_after_close, errors.Closed, "this producer is closed"),
    (_received_after_close, errors.Closed, "this consumer is closed"),
    (_closed_bus, errors.Closed, "this bus is closed"),
    (_sent_in_a_loop, errors.BlockingInEventLoop, "use submit"),
    (_received_in_a_loop, errors.BlockingInEventLoop, "use a worker thread"),
    (lambda bus: bus.consumer("orders", prefetch=0), errors.ConfigError, "use 1 to 10000"),
    (lambda bus: bus.consumer("orders").receive(0), errors.UsageError, "use 1 or more"),
    (lambda bus: bus.consumer("orders").receive("5"), errors.UsageError, "max_messages '5'"),  # type: ignore[arg-type]
    (lambda bus: bus.consumer("orders", start="soon"), errors.ConfigError, '"earliest"'),
    (lambda bus: bus.consumer("orders", group="nosuch"), errors.UnknownGroup, "not one of this"),
    (lambda bus: bus.producer("ordrs"), errors.UnknownChannel, "did you mean 'orders'?"),
    (lambda bus: bus.consumer("orders").seek(gearshift.Start()), errors.NotSupported, "no history"),
    (lambda bus: gearshift.Start.at_time(datetime(2026, 1, 1)), errors.UsageError, "no time zone"),
    (lambda bus: _delivery(bus).retry(-1.0), errors.UsageError, "use 0 to 604800"),
    (lambda bus: _delivery(bus).retry(float("nan")), errors.UsageError, "use 0 to 604800"),
]


@pytest.mark.parametrize(("misuse", "kind", "words"), MISUSES)
def test_a_misuse(
    opened: gearshift.Bus,
    misuse: Callable[[gearshift.Bus], object],
    kind: type[Exception],
    words: str,
) -> None:
    """The right type, and words that say what to do."""
    with pytest.raises(kind) as caught:
        misuse(opened)
    assert words in str(caught.value)


def test_use_after_fork(opened: gearshift.Bus) -> None:
    """A connection belongs to the process that made it: a child fails fast, the parent goes on."""
    producer, inbox = opened.producer("orders"), opened.consumer("orders")
    child = os.fork()
    if child == 0:
        try:
            fails_fast = _is_refused(lambda: producer.send(1, timeout_s=5.0))
            os._exit(0 if fails_fast and _is_refused(lambda: inbox.receive(timeout_s=5.0)) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    receipt = producer.send(1)
    assert [delivery.id for delivery in inbox.receive(timeout_s=10)] == [receipt.id]


def _is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except errors.Forked as error:
        return "in the child" in str(error)
    return False
