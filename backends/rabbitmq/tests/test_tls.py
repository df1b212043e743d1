"""amqps against a real broker with an authority of its own: verified unless told not to."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import make_certificates
from support.waiting import take

import gearshift
from gearshift.errors import AuthenticationFailed, ConfigError, ConnectionFailed
from gearshift.operations.doctor import Status, examine
from native_brokers import RabbitMQ
from native_brokers.ports import reserve_ports

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    """Two authorities; a server certificate of the first for ``broker.test`` and no other name.

    Not below pytest's folder, which the broker's user cannot enter.
    """
    folder = make_certificates(Path(tempfile.mkdtemp()), "DNS:broker.test")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tls_port() -> int:
    """Where the broker speaks TLS."""
    return reserve_ports(1)[0]


@pytest.fixture(scope="module")
def broker(certificates: Path, tls_port: int) -> Iterator[RabbitMQ]:
    """A broker with that certificate, which also has a port without."""
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{tls_port}",
        "ssl_options.cacertfile": str(certificates / "authority.pem"),
        "ssl_options.certfile": str(certificates / "server.pem"),
        "ssl_options.keyfile": str(certificates / "server.key"),
    }
    with RabbitMQ(settings=settings) as started:
        yield started


@pytest.fixture
def tls_url(broker: RabbitMQ, tls_port: int) -> str:
    """The amqps address of that broker."""
    return f"amqps://guest:guest@127.0.0.1:{tls_port}/%2F"


def open_bus(url: str, profile: str) -> gearshift.Bus:
    file = Path("gearshift.toml")
    file.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "rabbitmq"\nurl = "{url}"\n{profile}\n'
    )
    return gearshift.open(file)


def test_a_trusted_certificate_for_the_right_name_is_enough(
    tls_url: str, certificates: Path
) -> None:
    """Sending and receiving over TLS, verified against the given authority and name."""
    profile = f'tls_ca_file = "{certificates}/authority.pem"\ntls_server_name = "broker.test"'
    with open_bus(tls_url, profile) as bus:
        bus.producer("tls").send({"n": 1})
        (delivery,) = take(bus.consumer("tls"), 1)
        assert delivery.value == {"n": 1}
        delivery.ack()


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ("", "unable to get local issuer|self.signed"),
        ('tls_ca_file = "{}/stranger.pem"\ntls_server_name = "broker.test"', "certificate"),
        ('tls_ca_file = "{}/authority.pem"', "mismatch"),
        ('tls_ca_file = "{}/authority.pem"\ntls_server_name = "other.test"', "mismatch"),
    ],
    ids=["no authority", "another authority", "address is not in it", "another name"],
)
def test_a_certificate_that_does_not_fit_is_one_clear_error(
    tls_url: str, certificates: Path, profile: str, reason: str
) -> None:
    """No wait mends it, and the error says what to set."""
    with (
        open_bus(tls_url, profile.format(certificates)) as bus,
        pytest.raises(ConnectionFailed, match=reason) as caught,
    ):
        bus.producer("tls", timeout_s=20)
    assert "not trusted" in str(caught.value)
    assert "tls_ca_file" in str(caught.value)
    assert not caught.value.retryable


def test_verification_is_off_only_where_a_setting_says_so_and_that_warns(
    tls_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """tls_insecure_skip_verify connects to anybody, and the log says it also on this machine."""
    caplog.set_level(logging.WARNING)
    with open_bus(tls_url, "tls_insecure_skip_verify = true") as bus:
        bus.producer("tls").send({"n": 1})
    assert "tls_insecure_skip_verify" in caplog.text


def test_plain_text_to_a_tls_port_is_unreachable_and_says_where(tls_url: str) -> None:
    """The wrong scheme ends as one error with host and port, without a hang."""
    with (
        open_bus(tls_url.replace("amqps", "amqp"), "connect_timeout_s = 2.0") as bus,
        pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:\d+") as caught,
    ):
        bus.producer("tls", timeout_s=1.0)
    assert "amqps://" in str(caught.value.hint)
    (failed,) = [each for each in examine("gearshift.toml") if each.status is Status.FAILED]
    assert (failed.step, failed.hint) == ("auth", caught.value.hint)


def test_a_missing_authority_file_is_refused_before_any_io() -> None:
    """The error names the setting and the file."""
    with pytest.raises(ConfigError, match=r"tls_ca_file.*cannot read.*no\.pem"):
        open_bus("amqps://localhost/", 'tls_ca_file = "no.pem"')


def test_a_wrong_password_over_tls_is_told_as_such(tls_url: str, certificates: Path) -> None:
    """At once, without the password, and doctor names the fix."""
    trusting = f'tls_ca_file = "{certificates}/authority.pem"\ntls_server_name = "broker.test"'
    wrong = tls_url.replace("guest:guest", "guest:canary-77")
    with open_bus(wrong, trusting) as bus, pytest.raises(AuthenticationFailed) as caught:
        bus.producer("tls", timeout_s=60)
    assert "canary" not in str(caught.value)
    (failed,) = [each for each in examine("gearshift.toml") if each.status is Status.FAILED]
    assert (failed.step, failed.hint) == ("auth", caught.value.hint)
    assert "password" in str(failed.hint)
    assert "canary" not in failed.detail


def test_tls_to_a_plain_port_is_told_as_such(broker: RabbitMQ) -> None:
    """At once: no wait mends it."""
    with (
        open_bus(broker.url.replace("amqp:", "amqps:"), "") as bus,
        pytest.raises(ConnectionFailed, match="speaks plain text") as caught,
    ):
        bus.producer("tls", timeout_s=60)
    assert "amqp://" in str(caught.value.hint)
    (failed,) = [each for each in examine("gearshift.toml") if each.status is Status.FAILED]
    assert (failed.step, failed.hint) == ("auth", caught.value.hint)
