"""RabbitMQ, one private node for each object, alone or in a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.errors import BrokerUnavailable
from native_brokers.ports import LOOPBACK, require_free, wait_for_port
from native_brokers.probes import amqp_answers
from native_brokers.process import Process
from native_brokers.releases import FolderRelease, Release, SystemRelease
from native_brokers.software import Software, system_path

_EPMD_TIMEOUT_S = 10.0
_CTL_TIMEOUT_S = 180.0
_ASK_AGAIN_S = 0.5
_COOKIE = ".erlang.cookie"

# Strings of digits are what erl_call shows whole and unescaped.
_NAMES = """\
[binary_to_list(binary:encode_hex(Name)) || {resource, _, _, Name} <-
    rabbit_amqqueue:list_names() ++ rabbit_exchange:list_names()]"""


class RabbitMQ(Broker):
    """A RabbitMQ node of its own, beside any other on the machine, for the user guest."""

    name: ClassVar[str] = "RabbitMQ"
    port_count: ClassVar[int] = 3

    _release: ClassVar[Release] = SystemRelease()

    def __init__(
        self,
        directory: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        first: RabbitMQ | None = None,
    ) -> None:
        """Keep data and logs in `directory`, or in a private folder that `stop` removes.

        `settings` are further lines of rabbitmq.conf. Run by root, the server runs as the user
        rabbitmq, who is given the folder and must be able to reach it. With `first`, a node of the
        same release that runs, the first start joins its cluster.
        """
        super().__init__(directory)
        self._settings = dict(settings or {})
        self._first = first

    @classmethod
    def software(cls) -> tuple[Software, ...]:
        """The release's package."""
        return (cls._release.software,)

    @property
    def url(self) -> str:
        """The AMQP address of the virtual host `/`, for the user guest."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/%2F"

    @property
    def node(self) -> str:
        """The node's name in Erlang. Final as the ports are, for it is part of the data."""
        # The private port mapper keeps it from clashing with that of another cluster.
        return f"gearshift{'' if self._first is None else self.port}@localhost"

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl with `args` against this node and return its output; blocks.

        Raises `BrokerUnavailable` with that output if the command fails, or takes over three
        minutes.
        """
        return self._run("rabbitmqctl", "--quiet", *args)

    def evaluate(self, expressions: str) -> str:
        """Have the node evaluate Erlang `expressions` and return what the last gives; blocks.

        In milliseconds, where rabbitmqctl takes a second of a processor. Raises as `ctl`.
        """
        answer = self._asked(expressions)
        if not answer.startswith("{ok, "):
            raise BrokerUnavailable(f"{expressions}: {answer}")
        return answer.removeprefix("{ok, ").rstrip().removesuffix("}")

    def _asked(self, expressions: str, times: int = 3) -> str:
        """Return erl_call's answer. A busy node may not take its connection at once; nothing was
        evaluated then, so it may be asked again."""
        try:
            return self._run("erl_call", "-n", self.node, "-e", said=f"{expressions}.\n")
        except BrokerUnavailable as error:
            if times == 1 or "failed to connect to node" not in str(error):
                raise
        time.sleep(_ASK_AGAIN_S)
        return self._asked(expressions, times - 1)

    def text(self, expression: str) -> str:
        """Return what Erlang `expression` gives as the node writes it in full. As `evaluate`."""
        written = f'iolist_to_binary(io_lib:format("~0p", [{expression}]))'
        coded = self.evaluate(f"binary_to_list(binary:encode_hex({written}))")
        return bytes.fromhex(coded.strip('"')).decode()

    def change_release(self, release: type[RabbitMQ]) -> None:
        """Have the next start run the programs of another `release`, on the data that there are."""
        self._release = release._release  # type: ignore[misc]  # this node's alone

    def names(self) -> set[str]:
        """Return the names of all queues and exchanges but the built-in ones. As `evaluate`."""
        coded = re.findall('"([0-9A-F]*)"', self.evaluate(_NAMES))
        names = {bytes.fromhex(name).decode() for name in coded}
        return {name for name in names if not name.startswith("amq.")}

    def _run(self, program: str, *args: str, said: str = "") -> str:
        """Return what a program of the release prints that is told `said`."""
        self._running()
        assert self._directory is not None
        account = self._release.account()
        command = f"{program} {' '.join(args)}"
        try:
            done = subprocess.run(
                [*self._release.argv(program, self._directory), *args],
                env=self._environment(self._directory),
                cwd=self._directory,
                input=said,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_CTL_TIMEOUT_S,
                user=account.user,
                group=account.group,
                extra_groups=account.extra_groups,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailable(f"{command}: no answer in {_CTL_TIMEOUT_S:g} s") from error
        if done.returncode != 0:
            raise BrokerUnavailable(f"{command}: {done.stdout}")
        return done.stdout

    def _launch(self, directory: Path) -> Process:
        server = self._release.argv("rabbitmq-server", directory)
        environment = self._environment(directory)
        amqp_port, distribution_port, _ = self._ports
        require_free((amqp_port, distribution_port))
        self._release.prepare(directory)
        settings = {"listeners.tcp.1": f"{LOOPBACK}:{amqp_port}", **self._settings}
        if self._first is not None:
            settings |= self._join(self._first, directory)
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (directory / "rabbitmq.conf").write_text("".join(lines))
        (directory / "enabled_plugins").write_text("[].\n")
        self._start_epmd(directory, environment)
        return Process(
            server,
            env=environment,
            directory=directory,
            log=self.log,
            account=self._release.account(),
        )

    def _answers(self) -> bool:
        return amqp_answers(self.port, "guest", "guest")

    def _start_epmd(self, directory: Path, environment: dict[str, str]) -> None:
        """Start the cluster's own port mapper, which stays until `stop` of the first node.

        Erlang would start one by itself: a daemon that nobody ends and all nodes share.
        """
        if self._first is not None or any(helper.running() for helper in self._helpers):
            return
        epmd_port = self._epmd_port
        require_free([epmd_port])
        program = self._release.argv("epmd", directory)
        epmd = Process(
            [*program, "-address", LOOPBACK, "-port", str(epmd_port)],
            env=environment,
            directory=directory,
            log=directory / "epmd.log",
            account=self._release.account(),
        )
        self._helpers.append(epmd)
        wait_for_port(epmd_port, _EPMD_TIMEOUT_S)

    def _join(self, first: RabbitMQ, directory: Path) -> dict[str, str]:
        """Give the node the cluster's cookie; return the settings that name the cluster."""
        assert first._directory is not None
        given, cookie = first._directory / _COOKIE, directory / _COOKIE
        if not cookie.exists():
            shutil.copy(given, cookie)
            os.chown(cookie, given.stat().st_uid, given.stat().st_gid)
        backend = {"cluster_formation.peer_discovery_backend": "classic_config"}
        return backend | {"cluster_formation.classic_config.nodes.1": first.node}

    @property
    def _epmd_port(self) -> int:
        return (self._first or self)._ports[2]

    def _environment(self, directory: Path) -> dict[str, str]:
        """Return the whole environment of the node and of rabbitmqctl.

        Nothing is inherited: a RABBITMQ_ variable meant for the system's own node would point
        this one at its data. The files named here that do not exist stand for those in /etc.
        """
        distribution_port = self._ports[1]
        folder = self._release.seen(directory)
        return {
            "PATH": system_path(),
            "LANG": "C.UTF-8",
            "HOME": str(folder),  # for .erlang.cookie, which Erlang makes
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            # Makes the start script become the Erlang VM, so that our child is the server itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


class RabbitMQ43(RabbitMQ):
    """The same with RabbitMQ 4.3, beside the system's own. Needs root, and mounts nothing for good.

    It sees no files but those of its data folder.
    """

    name: ClassVar[str] = "RabbitMQ43"
    _release: ClassVar[Release] = FolderRelease("forky")


class RabbitMQ40(RabbitMQ):
    """The same with RabbitMQ 4.0; see `RabbitMQ43`."""

    name: ClassVar[str] = "RabbitMQ40"
    _release: ClassVar[Release] = FolderRelease("trixie")
