"""Kafka in KRaft mode from its published jars, one node as broker and controller."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.cache import cache_folder, one_at_a_time
from native_brokers.errors import BrokerUnavailable
from native_brokers.ports import LOOPBACK, require_free
from native_brokers.probes import kafka_answers
from native_brokers.process import Process, run_or_raise

VERSION = "4.3.1"
_COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_ARTIFACTS = (
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.kafka", "kafka-tools", VERSION),  # StorageTool, which formats the data folder
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),  # without it nothing is logged
)
_FORMAT_TIMEOUT_S = 60.0

# A single node holds every replica. Few partitions for the internal topics and sessions that end
# within seconds: tests restart this broker and wait for it to notice members that died.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INTERNAL",
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "num.partitions": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # The controller takes a killed broker for alive, and refuses the new one, for this long.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1500",
    "group.share.min.session.timeout.ms": "1000",
    "group.share.session.timeout.ms": "6000",
    "group.share.min.heartbeat.interval.ms": "500",
    "group.share.heartbeat.interval.ms": "1500",
}
_LOGGING = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c{1})%n
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
logger.config.name = org.apache.kafka.common.config
logger.config.level = WARN
"""


#: For a Java program that ends soon: half the processor time until it is there.
_FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_HEAP = ("-Xms256m", "-Xmx512m")


class Kafka(Broker):
    """A Kafka node of its own, beside any other on the machine, with share groups on."""

    name: ClassVar[str] = "Kafka"
    port_count: ClassVar[int] = 3

    def __init__(
        self,
        directory: Path | None = None,
        *,
        advertised: str | None = None,
        settings: Mapping[str, str] | None = None,
        features: Mapping[str, int] | None = None,
        listeners: Mapping[str, int] | None = None,
        fast_start: bool = True,
    ) -> None:
        """Keep data and logs in `directory`, or in a private folder that `stop` removes.

        `advertised` is the `host:port` that clients are told to use, for a proxy in front of this
        broker's `port`. `settings` are server properties that go over the ones chosen here.
        `features` are levels that a new data folder is formatted with, such as `share.version`.
        `listeners` are further ports for clients by security protocol, such as `SASL_SSL`; what
        they need beyond that, certificates for instance, `settings` must give. Without
        `fast_start` the server becomes as fast as it can be, later: to measure it.
        """
        super().__init__(directory)
        self._advertised = advertised
        self._settings = dict(settings or {})
        self._features = dict(features or {})
        self._listeners = dict(listeners or {})
        self._options = _HEAP + (_FAST_START if fast_start else ())

    @classmethod
    def install(cls) -> None:
        """Fetch Kafka's jars with Maven into the cache folder of this user.

        Returns at once if they are there, else blocks for some 15 seconds; runs at the same time
        wait for one another. Raises `BrokerUnavailable`, which names the command to run, if Java
        or Maven is missing or the jars cannot be had.
        """
        _java()
        with one_at_a_time(_jars().name):
            if not _jars().exists():
                _fetch_jars()

    @property
    def url(self) -> str:
        """The bootstrap address, `host:port`, of the broker itself and not of a proxy."""
        return f"{LOOPBACK}:{self.port}"

    def tool(self, name: str, *args: str) -> str:
        """Run one of Kafka's own command-line tools, by its class, on this node; blocks.

        Returns what it prints. Raises `BrokerUnavailable` with that if it fails or takes over a
        minute.
        """
        self._running()
        assert self._directory is not None
        command = [*_java_command(self._directory, *_FAST_START), f"org.apache.kafka.tools.{name}"]
        try:
            done = subprocess.run(
                [*command, "--bootstrap-server", self.url, *args],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailable(f"{name}: no answer in a minute") from error
        if done.returncode != 0:
            raise BrokerUnavailable(f"{name}: {done.stdout}")
        return done.stdout

    def _launch(self, directory: Path) -> Process:
        if not _jars().exists():
            raise BrokerUnavailable(
                "Kafka's jars are missing; run: python -m native_brokers install --only kafka"
            )
        require_free(self._ports)
        properties = directory / "server.properties"
        lines = (f"{key}={value}\n" for key, value in self._properties(directory).items())
        properties.write_text("".join(lines))
        (directory / "log4j2.properties").write_text(_LOGGING)
        if not (directory / "data" / "meta.properties").exists():
            self._format(directory, properties)
        return Process(
            [*_java_command(directory, *self._options), "kafka.Kafka", str(properties)],
            env=os.environ,
            directory=directory,
            log=self.log,
        )

    def _answers(self) -> bool:
        return kafka_answers(self.port)

    def _properties(self, directory: Path) -> dict[str, str]:
        client, internal, controller = (f"{LOOPBACK}:{port}" for port in self._ports)
        # The coordinators of transactions and share groups talk to the broker over its internal
        # listener, so that a proxy that tests break cuts off clients only.
        further = "".join(f",{name}://{LOOPBACK}:{port}" for name, port in self._listeners.items())
        protocols = "".join(f",{name}:{name}" for name in self._listeners)
        addresses = {
            "listeners": (
                f"CLIENT://{client},INTERNAL://{internal},CONTROLLER://{controller}{further}"
            ),
            "advertised.listeners": (
                f"CLIENT://{self._advertised or client},INTERNAL://{internal},"
                f"CONTROLLER://{controller}{further}"
            ),
            "listener.security.protocol.map": (
                f"{_SETTINGS['listener.security.protocol.map']}{protocols}"
            ),
            "controller.quorum.bootstrap.servers": controller,
            "log.dirs": str(directory / "data"),
        }
        return {**_SETTINGS, **addresses, **self._settings}

    def _format(self, directory: Path, properties: Path) -> None:
        command = _java_command(directory, *_FAST_START)
        command += ["kafka.tools.StorageTool", "format", "--standalone"]
        command += ["--cluster-id", _cluster_id(), "--config", str(properties)]
        for feature, level in self._features.items():
            command += ["--feature", f"{feature}={level}"]
        try:
            with self.log.open("ab") as log:
                subprocess.run(
                    command,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=_FORMAT_TIMEOUT_S,
                    check=True,
                )
        except subprocess.SubprocessError as error:
            raise BrokerUnavailable(
                f"Kafka could not format its data folder; {self._log_tail()}"
            ) from error


def _jars() -> Path:
    return cache_folder() / f"kafka-{VERSION}"


def _fetch_jars() -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable(
            "Kafka's jars are fetched with Maven, which is missing; "
            "run: apt-get install -y --no-install-recommends maven"
        )
    # Renamed when complete, so that the folder is there in full or not at all.
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="fetching-") as unfinished:
        pom = Path(unfinished) / "pom.xml"
        pom.write_text(_pom())
        jars = Path(unfinished) / "jars"
        command = [maven, "--batch-mode", "--quiet", "--file", str(pom), _COPY_GOAL]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        run_or_raise(
            command,
            "Maven could not fetch Kafka's jars; mend that and run: "
            "python -m native_brokers install --only kafka",
        )
        jars.rename(_jars())


def _pom() -> str:
    dependencies = "\n".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in _ARTIFACTS
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>gearshift</groupId>"
        "<artifactId>kafka-jars</artifactId><version>1</version>"
        f"<dependencies>\n{dependencies}\n</dependencies></project>\n"
    )


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise BrokerUnavailable(
            "Kafka needs Java 17 or later, which is missing; "
            "run: apt-get install -y --no-install-recommends default-jre-headless"
        )
    return java


def _java_command(directory: Path, *options: str) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}"
    return [_java(), *options, logging, "-cp", f"{_jars()}/*"]


def _cluster_id() -> str:
    """Return a random id that does not begin with a hyphen, which would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
