"""A canary in the place of every secret shows nowhere: whatever is done, whatever fails.

What configuration alone shows is in ``tests/unit/test_config``, the command line's output in
``tests/cli``. Here it is the backends, on the way to a server and refused by it.
"""

from __future__ import annotations

import copy
import logging
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gearshift
from gearshift import plugins
from gearshift.config import load
from gearshift.errors import ConfigError, GearshiftError
from gearshift.operations.doctor import examine
from gearshift.secret import Secret
from native_brokers import Kafka, RabbitMQ

CANARY = "canary/swordfish@secret"
QUOTED = "canary%2Fswordfish%40secret"

#: Any of these in a text gives it away, in whatever spelling.
TELLTALES = ("canary", "swordfish")

#: Where a secret can stand in a profile; {server} is host:port.
PROFILES = {
    "rabbitmq url": 'backend = "rabbitmq"\nurl = "amqp://app:' + QUOTED + '@{server}/%2F"',
    "rabbitmq url from environment": 'backend = "rabbitmq"\n'
    'url = "amqp://app:${SECRET}@{server}/%2F"',
    "rabbitmq password": 'backend = "rabbitmq"\nurl = "amqp://{server}"\nusername = "app"\n'
    'password = "' + CANARY + '"',
    "kafka sasl": 'backend = "kafka"\nbootstrap_servers = ["{server}"]\nconnect_timeout_s = 0.5\n'
    'sasl_mechanism = "SCRAM-SHA-256"\nsasl_username = "app"\nsasl_password = "' + CANARY + '"',
    "kafka sasl from environment": 'backend = "kafka"\nbootstrap_servers = ["{server}"]\n'
    'connect_timeout_s = 0.5\nsasl_mechanism = "PLAIN"\nsasl_username = "app"\n'
    'sasl_password = "${SECRET}"',
    "kafka key password": 'backend = "kafka"\nbootstrap_servers = ["{server}"]\n'
    'connect_timeout_s = 0.5\ntls = true\nsecrets = { "ssl.key.password" = "' + CANARY + '" }',
}

#: Secrets that were written in a way that does not work: the error must not repeat them.
MISTAKES = [
    'backend = "rabbitmq"\nurl = "amqp://app:' + CANARY + '@localhost/"',
    'backend = "rabbitmq"\nurl = "amqp://app:canary/swordfish"',
    'backend = "rabbitmq"\nurl = "app:' + CANARY + '@localhost"',
    'backend = "rabbitmq"\nurl = "amqp://app:' + QUOTED + '@localhost/a/b"',
    'backend = "rabbitmq"\nurl = "amqp://app:' + QUOTED + '@localhost:99999"',
    'backend = "rabbitmq"\nurl = "amqp://a:b@h"\npassword = "' + CANARY + '"',
    'backend = "rabbitmq"\nhosts = ["app:' + CANARY + '@b:1"]',
    'backend = "rabbitmq"\npassword = ["' + CANARY + '"]',
    'backend = "rabbitmq"\npasword = "' + CANARY + '"',
    'backend = "kafka"\nbootstrap_servers = ["app:' + CANARY + '@h:1"]',
    'backend = "kafka"\nbootstrap_servers = ["h:1"]\nsasl_password = "' + CANARY + '"',
    'backend = "kafka"\nbootstrap_servers = ["h:1"]\nsasl_password = ["' + CANARY + '"]',
    'backend = "kafka"\nbootstrap_servers = ["h:1"]\n'
    'native.producer = { "ssl.key.password" = "' + CANARY + '" }',
    'backend = "kafka"\nbootstrap_servers = ["h:1"]\n'
    'native.producer = { "sasl.password" = "' + CANARY + '" }',
    'backend = "kafka"\nbootstrap_servers = ["h:1"]\nsecrets = { "token" = "' + CANARY + '" }',
    'backend = "rabbitmq"\npasswrd = "' + CANARY + '"',
    'backend = "kafka"\nbootstrap_servers = ["h:1"]\nsasl_pasword = "' + CANARY + '"',
    'backend = "sqlite"\npassword = "' + CANARY + '"',
]


#: Each kind of setting that a channel has.
CHANNEL = {
    "semantics": "queue", "groups": ["a"], "max_attempts": 5, "dead_letter": "orders.dead",
    "requires": ["redelivery"], "rate_limit": "5/s", "codec": "auto",
    "native": {"rabbitmq": {"exchange": "x"}, "kafka": {"topic": "t"}, "redis": {"stream": "s"}},
}  # fmt: skip


class Seen:
    """Everything that a program could show, gathered while a block runs."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, *things: object) -> None:
        """``str`` and ``repr`` of each; of an error also its chain with tracebacks."""
        for thing in things:
            self.texts += [str(thing), repr(thing)]
            if isinstance(thing, BaseException):
                self.texts.append("".join(traceback.format_exception(thing)))
                chain: BaseException | None = thing
                while chain is not None:
                    self.texts += [repr(chain.args), repr(vars(chain))]
                    chain = chain.__cause__ or chain.__context__

    def attempt(self, call: Callable[[], object]) -> None:
        """Run ``call``, and add what it returns or raises."""
        try:
            self.add(call())
        except Exception as error:
            self.add(error)

    def require_clean(self) -> None:
        """No text gives the canary away."""
        for text in self.texts:
            assert not any(part in text for part in TELLTALES), text


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Gathers logs and warnings too; the secret is in the environment."""
    monkeypatch.setenv("SECRET", CANARY)
    caplog.set_level(logging.DEBUG)
    gathered = Seen()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield gathered
    gathered.texts += [str(warning.message) for warning in warned]
    for record in caplog.records:
        gathered.texts.append(logging.Formatter().format(record))
    gathered.require_clean()


def _settings(project: Path, profile: str, server: str) -> None:
    text = profile.replace("{server}", server)
    (project / "gearshift.toml").write_text(f"[profiles.p]\n{text}\n[channels.orders]\n")


def _use_everything(seen: Seen) -> None:
    """Whatever a program does with a bus whose server refuses it, with all that it may print."""
    with gearshift.open() as bus:
        plugin = plugins.load(bus.backend)
        seen.add(bus, bus.config, bus.config.rows(), bus.config.rows(plugin), bus._backend)
        seen.add(bus.config.settings_for(plugin), bus.endpoints())
        seen.attempt(lambda: bus.producer("orders", timeout_s=0.1))
        seen.attempt(lambda: bus.consumer("orders", timeout_s=0.1))
        seen.attempt(lambda: bus._backend.producer(bus._topology.spec("orders")))
        seen.attempt(bus._backend.admin)
    seen.add(*examine(round_trip=False))


@pytest.mark.parametrize("where", PROFILES)
def test_a_server_that_is_down(
    seen: Seen, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens there: the address is named, the secret is not."""
    monkeypatch.setattr("gearshift.bus.operating.OPEN_TIMEOUT_S", 0.1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        _settings(tmp_path, PROFILES[where], f"127.0.0.1:{unused.getsockname()[1]}")
        _use_everything(seen)
    assert any("127.0.0.1" in text for text in seen.texts)


@pytest.mark.parametrize("profile", MISTAKES)
def test_a_secret_in_the_wrong_place(seen: Seen, tmp_path: Path, profile: str) -> None:
    """The error names the setting, with the value masked."""
    _settings(tmp_path, profile, "localhost:1")
    with pytest.raises(ConfigError) as caught:
        gearshift.open()
    seen.add(caught.value, *examine())
    config = load()
    seen.add(config, config.rows(plugins.load(config.backend)))


def _shown(settings: Mapping[str, Any]) -> object:
    return load(settings=settings).rows()


def _misplaced(settings: Any, secret: str) -> Iterator[Any]:
    """Copies of ``settings`` with ``secret`` instead of one value or name, for each of them."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield {k: secret if k == key else v for k, v in settings.items()}
            yield {secret if k == key else k: v for k, v in settings.items()}
            yield from (settings | {key: inner} for inner in _misplaced(value, secret))
    elif isinstance(settings, list):
        yield [secret, *settings[1:]]


@pytest.mark.parametrize("backend", ["rabbitmq", "kafka", "redis", "sqlite", "memory"])
@pytest.mark.parametrize(
    "secret",
    ["${SECRET}", "${OTHER}", f"amqp://app:{QUOTED}@h/v", "amqp://app:canary", f"app:{CANARY}@h:1",
     "amqp://h/?password=canary"],
)  # fmt: skip
def test_a_secret_in_any_wrong_place(
    seen: Seen, backend: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a value or as a name, of whatever: a variable's content, or a URL with a password."""
    monkeypatch.setenv("OTHER", CANARY)
    profile: dict[str, Any] = {"backend": backend}
    if backend == "kafka":
        profile["bootstrap_servers"] = ["h:1"]
    base = {"profile": "p", "profiles": {"p": profile}, "channels": {"orders": CHANNEL}}
    wrong = [
        base | {"profiles": {"p": profile | {field.encode_name: value}}}
        for field in msgspec.structs.fields(plugins.load(backend).settings)
        for value in (secret, [secret], {"linger.ms": secret})
    ]
    if backend == "memory":  # what is not of the backend, once
        wrong = [*_misplaced(base, secret)]
    for settings in wrong:
        for call in (gearshift.open, _shown):
            try:
                seen.add(call(settings))
            except GearshiftError as error:  # and no other
                seen.add(error)


@pytest.mark.broker
@pytest.mark.parametrize("where", [name for name in PROFILES if "rabbitmq" in name])
def test_credentials_that_rabbitmq_refuses(
    seen: Seen, tmp_path: Path, where: str, rabbitmq: RabbitMQ
) -> None:
    """The real refusal, through pika and its logs."""
    _settings(tmp_path, PROFILES[where], f"127.0.0.1:{rabbitmq.port}")
    _use_everything(seen)
    assert any("refused the credentials" in text for text in seen.texts)


@pytest.mark.broker
@pytest.mark.parametrize("where", [name for name in PROFILES if "kafka sasl" in name])
def test_credentials_that_kafka_does_not_want(
    seen: Seen, tmp_path: Path, where: str, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener without SASL ends the handshake, through librdkafka and its logs."""
    monkeypatch.setattr("gearshift.bus.operating.OPEN_TIMEOUT_S", 0.1)
    _settings(tmp_path, PROFILES[where], kafka.url)
    _use_everything(seen)


def test_a_secret_is_masked_whatever_is_done_with_it() -> None:
    """Formatted, copied, in containers, in an f-string with a width; it is never pickled."""
    secret = Secret(CANARY)
    for text in (
        f"{secret}", f"{secret!r}", f"{secret:>30}", "%s %r" % (secret, secret), str([secret]),  # noqa: UP031
        str({"x": secret}), str(copy.copy([secret])),
    ):  # fmt: skip
        assert "***" in text
        assert CANARY not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert (secret.reveal(), secret == Secret(CANARY), bool(Secret(""))) == (CANARY, True, False)


def test_the_search_finds_a_canary() -> None:
    """Else these tests could not fail."""
    for thing in (CANARY, ConfigError(QUOTED), [CANARY], _raised()):
        seen = Seen()
        seen.add(thing)
        with pytest.raises(AssertionError):
            seen.require_clean()


def _raised() -> BaseException:
    try:
        raise ConfigError("masked") from ValueError(CANARY)
    except ConfigError as error:
        return error
