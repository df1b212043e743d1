"""TLS and SASL on a real Kafka: right settings work, a wrong one is one error with its fix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import make_certificates
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from support.waiting import until

import gearshift
from gearshift.errors import AuthenticationFailed, ConnectionFailed
from gearshift.operations.doctor import Status, examine
from native_brokers import Kafka
from native_brokers.ports import reserve_ports

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

SECRET = "canary-9d41"
JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Secured:
    """A broker whose ports want TLS, TLS and PLAIN, or SCRAM without TLS."""

    broker: Kafka
    folder: Path
    tls: int
    tls_plain: int
    scram: int

    def set_scram_password(self, password: str) -> None:
        """The password of ``app`` from now on."""
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        user = UserScramCredentialUpsertion("app", credentials, password.encode())
        admin = AdminClient({"bootstrap.servers": self.broker.url})
        for change in admin.alter_user_scram_credentials([user]).values():
            change.result(20)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Its certificate is for 127.0.0.1 and no name; the user is ``app``."""
    folder = make_certificates(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")
    keystore = folder / "keystore.pem"
    keystore.write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())
    tls, tls_plain, scram = reserve_ports(3)
    broker = Kafka(
        listeners={"SSL": tls, "SASL_SSL": tls_plain, "SASL_PLAINTEXT": scram},
        settings={
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{JAAS}.plain.PlainLoginModule required user_app="{SECRET}";'
            ),
            "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": (
                f"{JAAS}.scram.ScramLoginModule required;"
            ),
            # Who stays connected must show the password again, so often.
            "listener.name.sasl_plaintext.scram-sha-256.connections.max.reauth.ms": "1000",
        },
    )
    with broker:
        yielded = Secured(broker, folder, tls, tls_plain, scram)
        yielded.set_scram_password(SECRET)
        yield yielded


def write(port: int, profile: str, host: str = "127.0.0.1") -> Path:
    file = Path("gearshift.toml")
    file.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "kafka"\n'
        f'bootstrap_servers = ["{host}:{port}"]\n{profile}\n'
    )
    return file


def trusting(secured: Secured) -> str:
    return f'tls = true\ntls_ca_file = "{secured.folder}/authority.pem"\n'


def login(mechanism: str, password: str = SECRET) -> str:
    return f'sasl_mechanism = "{mechanism}"\nsasl_username = "app"\nsasl_password = "{password}"\n'


def refusal(file: Path) -> ConnectionFailed:
    """The one error that opening ends in; doctor finds the same, with the same fix."""
    with gearshift.open(file) as bus, pytest.raises(ConnectionFailed) as caught:
        bus.producer("secured", timeout_s=60)
    error = caught.value
    assert not error.retryable
    assert SECRET not in str(error)
    (failed,) = [each for each in examine(file) if each.status is Status.FAILED]
    assert failed.step == "auth"
    assert failed.hint == error.hint
    assert SECRET not in failed.detail
    return error


@pytest.mark.parametrize("kind", ["TLS", "TLS and PLAIN", "SCRAM"])
def test_right_settings_send_and_receive(secured: Secured, kind: str) -> None:
    """A stream through each kind of port, group and all."""
    port, profile = {
        "TLS": (secured.tls, trusting(secured)),
        "TLS and PLAIN": (secured.tls_plain, trusting(secured) + login("PLAIN")),
        "SCRAM": (secured.scram, login("SCRAM-SHA-256")),
    }[kind]
    with gearshift.open(write(port, profile)) as bus:
        bus.producer("secured").send({"n": kind})
        with bus.consumer("secured", group=kind.replace(" ", "-")) as consumer:
            for delivery in consumer.iterate(idle_timeout_s=20):
                delivery.ack()
                if delivery.value == {"n": kind}:
                    return
    pytest.fail("it did not come")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_told_as_such(secured: Secured, mechanism: str) -> None:
    """Whichever mechanism; the password is in no text."""
    plain = mechanism == "PLAIN"
    profile = (trusting(secured) if plain else "") + login(mechanism, f"{SECRET}x")
    error = refusal(write(secured.tls_plain if plain else secured.scram, profile))
    assert isinstance(error, AuthenticationFailed)
    assert "sasl_password" in str(error.hint)


@pytest.mark.parametrize(
    ("host", "authority"),
    [("127.0.0.1", "stranger"), ("127.0.0.1", None), ("localhost", "authority")],
    ids=["another authority", "no authority", "another name"],
)
def test_a_certificate_that_does_not_fit_is_told_as_such(
    secured: Secured, host: str, authority: str | None
) -> None:
    """It is not trusted, and the fix names both settings that may be wrong."""
    profile = "tls = true\n"
    if authority is not None:
        profile += f'tls_ca_file = "{secured.folder}/{authority}.pem"\n'
    error = refusal(write(secured.tls, profile, host))
    assert "not trusted" in str(error)
    assert "tls_ca_file" in str(error.hint)
    assert "bootstrap_servers" in str(error.hint)


def test_plain_text_to_a_tls_port_is_told_as_such(secured: Secured) -> None:
    """The client only sees connections that end; the server is asked what it speaks."""
    error = refusal(write(secured.tls, ""))
    assert "speaks TLS" in str(error)
    assert "tls = true" in str(error.hint)


def test_tls_to_a_plain_port_is_told_as_such(secured: Secured) -> None:
    """The other way round."""
    error = refusal(write(secured.broker.port, trusting(secured)))
    assert "speaks plain text" in str(error)
    assert "tls = false" in str(error.hint)


def test_no_login_where_one_is_needed_is_told_as_such(secured: Secured) -> None:
    """The broker just hangs up on such a client."""
    error = refusal(write(secured.tls_plain, trusting(secured)))
    assert "logged in" in str(error)
    assert "sasl_mechanism" in str(error.hint)


def test_a_mechanism_that_is_not_offered_is_told_as_such(secured: Secured) -> None:
    """And which ones are."""
    error = refusal(write(secured.tls_plain, trusting(secured) + login("SCRAM-SHA-256")))
    assert "PLAIN" in str(error)
    assert "sasl_mechanism" in str(error.hint)


def test_a_password_that_is_wrong_for_a_while_is_waited_for(secured: Secured) -> None:
    """A consumer that has been at work says why it hears nothing, and goes on by itself."""
    with gearshift.open(write(secured.scram, login("SCRAM-SHA-256"))) as bus:
        bus.producer("secured").send("before")
        with bus.consumer("secured", group="waits") as consumer:
            consumer.ready()
            secured.set_scram_password("another")
            try:
                stats = bus.stats
                assert until(
                    lambda: "refused the credentials" in (stats().receiving[0].disconnected or "")
                )
            finally:
                secured.set_scram_password(SECRET)
            bus.producer("secured", timeout_s=60).send("after", timeout_s=60)
            for delivery in consumer.iterate(idle_timeout_s=60):
                delivery.ack()
                if delivery.value == "after":
                    return
    pytest.fail("it did not come")


def test_a_broker_that_is_down_for_a_while_is_no_wrong_setting(secured: Secured) -> None:
    """Over TLS and SASL too, producer and consumer go on when it is back. Last: it restarts it."""
    profile = trusting(secured) + login("PLAIN")
    with gearshift.open(write(secured.tls_plain, profile)) as bus:
        producer, consumer = bus.producer("secured"), bus.consumer("secured", group="patient")
        consumer.ready()
        secured.broker.kill()
        waiting = producer.submit("after", timeout_s=60)
        secured.broker.start()
        assert waiting.result(60)
        deadline = time.monotonic() + 60
        while True:
            for delivery in consumer.receive(100, timeout_s=30):
                delivery.ack()
                if delivery.value == "after":
                    return
            assert time.monotonic() < deadline, "the consumer did not go on"
