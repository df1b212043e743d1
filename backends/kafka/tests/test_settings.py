"""What a profile may say of a Kafka: each thing that would break a promise is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gearshift.secret import Secret
from gearshift_kafka.settings import ChannelSettings, NativeSettings, Settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plugin.library.paths", "x.so"),
        ("sasl.oauthbearer.token.endpoint.url", "file:///etc/passwd"),
        ("retention.ms", 1),
        ("acks", 1),
        ("enable.idempotence", False),
        ("max.in.flight", 6),
        ("queue.buffering.max.messages", 10),
        ("transactional.id", "t"),
        ("sasl.password", "p"),
        ("ssl.key.password", "p"),
        ("on_delivery", "f"),
        ("test.mock.num.brokers", 1),
        ("fetch.min.bytes", 5),
        ("lingr.ms", 5),
        ("batch.size", "many"),
    ],
)
def test_a_producer_setting_that_breaks_a_promise_is_refused(key: str, value: Any) -> None:
    """Its name is in the text."""
    with pytest.raises(ValueError, match=key):
        NativeSettings(producer={key: value})


@pytest.mark.parametrize("key", ["enable.auto.commit", "group.id", "auto.offset.reset"])
def test_a_consumer_setting_that_breaks_a_promise_is_refused(key: str) -> None:
    """Positions and groups are Gearshift's."""
    with pytest.raises(ValueError, match=key):
        NativeSettings(consumer={key: "x"})


@pytest.mark.parametrize("key", ["max.poll.interval.ms", "session.timeout.ms"])
def test_a_setting_of_either_group_protocol_is_taken(key: str) -> None:
    """One of the two is refused with the classic protocol, the other with the newer."""
    assert NativeSettings(consumer={key: 6000}).consumer == {key: 6000}


def test_a_reader_takes_what_a_consumer_does_except_the_life_of_members() -> None:
    """What it fetches is tuned alike; how long it may be silent is nobody's business."""
    native = NativeSettings(consumer={"max.poll.interval.ms": 6000, "fetch.min.bytes": 2})
    settings = Settings(bootstrap_servers=("h:1",), native=native)
    consumer, reader = settings.client("consumer"), settings.client("reader")
    assert consumer == reader | {"max.poll.interval.ms": 6000}
    assert reader["fetch.min.bytes"] == 2


@pytest.mark.parametrize(
    "given",
    [
        {"sasl_username": "u", "sasl_password": Secret("hidden")},
        {"sasl_mechanism": "PLAIN"},
        {"tls_ca_file": Path("/dev/null")},
        {"tls": True, "tls_ca_file": Path("/does/not/exist")},
        {"tls": True, "tls_key_file": Path("/dev/null")},
        {"tls_insecure_skip_verify": True},
        {"secrets": {"sasl.password": Secret("hidden")}},
        {"client_id": " "},
        {"group_instance_id": ""},
        {"bootstrap_servers": ()},
        {"bootstrap_servers": ("kafka://u:hidden@h:1",)},
        {"bootstrap_servers": ("u:hidden@h:1",)},
        {"delivery_timeout_s": float("nan")},
    ],
    ids=lambda given: "-".join(given),
)
def test_a_contradiction_is_refused_without_telling_a_secret(given: dict[str, Any]) -> None:
    """Credentials without mechanism, a CA without TLS, a URL for an address, and the like."""
    with pytest.raises(ValueError) as caught:
        Settings(**({"bootstrap_servers": ("h:1",)} | given))
    assert "hidden" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("sasl_", "tls", "secrets", *given))


def test_certificates_are_checked_unless_somebody_says_otherwise() -> None:
    """And SASL over TLS is one protocol of its own."""
    settings = Settings(
        bootstrap_servers=("h:1",),
        tls=True,
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="u",
        sasl_password=Secret("p"),
    )
    conf = settings.client("producer")
    assert conf["enable.ssl.certificate.verification"] is True
    assert conf["security.protocol"] == "SASL_SSL"


@pytest.mark.parametrize("given", [{"config": {"a": "b"}}, {"partitions": 2}])
def test_an_adopted_topic_is_not_shaped(given: dict[str, Any]) -> None:
    """It is used as it is."""
    with pytest.raises(ValueError, match="adopted"):
        ChannelSettings(topic="t", **given)
