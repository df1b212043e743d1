"""Kafka in KRaft mode from its published jars, one node as broker and controller."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.cache import cache_folder
from native_brokers.errors import BrokerUnavailable, NotInstalled
from native_brokers.ports import LOOPBACK, accepts, require_free
from native_brokers.probes import kafka_answers
from native_brokers.process import Process, run_or_raise
from native_brokers.software import JAVA, MAVEN, Software

_COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_LOGGER = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4")  # else nothing is logged
_FORMAT_TIMEOUT_S = 60.0
_DUMP_TIMEOUT_S = 60.0
_OLDEST_JAVA = 17

# A single node holds every replica. Few partitions for the internal topics, sessions that end
# within seconds, assignments at once: tests restart this broker, and wait for members to be missed
# and for others to come.
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
    # For this long the controller takes a killed broker for alive and refuses the new one. But one
    # that a busy machine keeps waiting for longer loses its partitions.
    "broker.session.timeout.ms": "9000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.assignment.interval.ms": "0",
    "group.share.min.session.timeout.ms": "1000",
    "group.share.session.timeout.ms": "6000",
    "group.share.min.heartbeat.interval.ms": "500",
    "group.share.heartbeat.interval.ms": "500",
    "group.share.assignment.interval.ms": "0",
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
    version: ClassVar[str] = "4.4.0"

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
    def software(cls) -> tuple[Software, ...]:
        """Java, unless JAVA_HOME names one, the jars of this version, and its classes."""
        ours = (Jars(cls.version), Classes(cls.version))
        return ours if os.environ.get("JAVA_HOME") else (JAVA, *ours)

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
        command = self._java_command(self._directory, *_FAST_START)
        command += [f"org.apache.kafka.tools.{name}", "--bootstrap-server", self.url, *args]
        try:
            done = subprocess.run(
                command,
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
        require_free([*self._ports, *self._listeners.values()])
        properties = directory / "server.properties"
        lines = (f"{key}={value}\n" for key, value in self._properties(directory).items())
        properties.write_text("".join(lines))
        (directory / "log4j2.properties").write_text(_LOGGING)
        if not (directory / "data" / "meta.properties").exists():
            self._format(directory, properties)
        return Process(
            [
                *self._java_command(directory, *self._options, *Classes(self.version).options()),
                "kafka.Kafka",
                str(properties),
            ],
            env=os.environ,
            directory=directory,
            log=self.log,
        )

    def _answers(self) -> bool:
        # The further ports open one by one after the first, and if one cannot the server ends.
        return kafka_answers(self.port) and all(map(accepts, self._listeners.values()))

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
        classes = Classes(self.version).options()
        command = self._java_command(directory, *_FAST_START, *classes)
        command += ["kafka.tools.StorageTool", "format", *self._format_as()]
        command += ["--config", str(properties)]
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
                f"Kafka could not format its data folder; {self.log_tail()}"
            ) from error

    def _format_as(self) -> list[str]:
        """Return the options of the format that say of which cluster the node is."""
        return ["--standalone", "--cluster-id", new_cluster_id()]

    def _java_command(self, directory: Path, *options: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}"
        return [_java(), *options, logging, "-cp", f"{Jars(self.version).folder}/*"]


class Kafka43(Kafka):
    """The same with Kafka 4.3."""

    name: ClassVar[str] = "Kafka43"
    version: ClassVar[str] = "4.3.1"


@dataclass(frozen=True)
class Jars(Software):
    """One version's jars in a folder of the cache, from Maven."""

    version: str

    @property
    def title(self) -> str:
        """See `Software`."""
        return f"Kafka {self.version} with Maven, half a minute"

    @property
    def folder(self) -> Path:
        """Where they are."""
        return cache_folder() / f"kafka-{self.version}"

    @property
    def _lock(self) -> str:
        return self.folder.name

    def is_there(self) -> bool:
        """See `Software`."""
        return self.folder.exists()

    def _fetch(self) -> None:
        MAVEN.install()
        # Renamed when complete, so that the folder is there in full or not at all.
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="fetching-") as unfinished:
            pom = Path(unfinished) / "pom.xml"
            pom.write_text(_pom(self.version))
            jars = Path(unfinished) / "jars"
            command = [MAVEN.path(), "--batch-mode", "--quiet", "--file", str(pom), _COPY_GOAL]
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
            run_or_raise(command, "Maven could not fetch Kafka's jars; mend that and try again")
            jars.rename(self.folder)


@dataclass(frozen=True)
class Classes(Software):
    """What a server of one version has loaded by the time it serves: the next starts in half."""

    version: str

    @property
    def title(self) -> str:
        """See `Software`."""
        return f"the classes of Kafka {self.version} from a first start, a quarter of a minute"

    @property
    def _file(self) -> Path:
        return cache_folder() / f"kafka-{self.version}-java-{_java_version(_java())}.jsa"

    @property
    def _lock(self) -> str:
        return f"kafka-{self.version}-classes"

    def is_there(self) -> bool:
        """See `Software`."""
        try:
            return self._file.exists()
        except NotInstalled:  # Java is not there yet
            return False

    def options(self) -> tuple[str, ...]:
        """What tells Java to use them. Another Java, or other jars, are left alone by it."""
        return (f"-XX:SharedArchiveFile={self._file}",) if self.is_there() else ()

    def _fetch(self) -> None:
        class FirstStart(Kafka):
            version = self.version

            @classmethod
            def software(cls) -> tuple[Software, ...]:
                return ()

        unfinished = self._file.with_suffix(".unfinished")
        server = FirstStart()
        server._options += (f"-XX:ArchiveClassesAtExit={unfinished}",)
        with server:
            assert server._process is not None
            server._process.terminate(_DUMP_TIMEOUT_S)
        if not unfinished.exists():
            unfinished.touch()  # this Java keeps none, and leaves an empty file alone
        unfinished.rename(self._file)


def _pom(version: str) -> str:
    artifacts = (
        ("org.apache.kafka", "kafka_2.13", version),
        ("org.apache.kafka", "kafka-tools", version),  # StorageTool, which formats the data folder
        _LOGGER,
    )
    dependencies = "\n".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{release}</version></dependency>"
        for group, artifact, release in artifacts
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>gearshift</groupId>"
        "<artifactId>kafka-jars</artifactId><version>1</version>"
        f"<dependencies>\n{dependencies}\n</dependencies></project>\n"
    )


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin/java") if home else Path(JAVA.path())
    major = _java_version(str(java)).partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST_JAVA:
        raise NotInstalled(
            f"{java} is Java {major}, and Kafka needs {_OLDEST_JAVA} or later; "
            "install that and name its folder in JAVA_HOME"
        )
    return str(java)


def _java_version(java: str) -> str:
    # Each Java since 9 says in this file which it is.
    release = Path(java).resolve().parents[1] / "release"
    found = re.search(r'JAVA_VERSION="([\d.]+)', release.read_text()) if release.exists() else None
    return found[1] if found else "unknown"


def new_cluster_id() -> str:
    """Return a random id that does not begin with a hyphen, which would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
