"""RabbitMQ, one private node for each object."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.errors import BrokerUnavailable
from native_brokers.ports import LOOPBACK, require_free, wait_for_port
from native_brokers.probes import amqp_answers
from native_brokers.process import Process
from native_brokers.releases import FolderRelease, Release, SystemRelease, system_path

_EPMD_TIMEOUT_S = 10.0
_CTL_TIMEOUT_S = 60.0


class RabbitMQ(Broker):
    """A RabbitMQ node of its own, beside any other on the machine, for the user guest."""

    name: ClassVar[str] = "RabbitMQ"
    port_count: ClassVar[int] = 3

    _release: ClassVar[Release] = SystemRelease()

    def __init__(
        self, directory: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """Keep data and logs in `directory`, or in a private folder that `stop` removes.

        `settings` are further lines of rabbitmq.conf. Run by root, the server runs as the user
        rabbitmq, who is given the folder and must be able to reach it.
        """
        super().__init__(directory)
        self._settings = dict(settings or {})

    @classmethod
    def install(cls) -> None:
        """Obtain the release's package, without starting its service.

        Returns at once if it is there, else blocks for about a minute. Raises `BrokerUnavailable`,
        which names the command to run, if this user may not or it fails.
        """
        cls._release.install()

    @property
    def url(self) -> str:
        """The AMQP address of the virtual host `/`, for the user guest."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/%2F"

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl with `args` against this node and return its output; blocks.

        Raises `BrokerUnavailable` with that output if the command fails or takes over a minute.
        """
        self._running()
        assert self._directory is not None
        account = self._release.account()
        command = f"rabbitmqctl {' '.join(args)}"
        try:
            done = subprocess.run(
                [*self._release.argv("rabbitmqctl", self._directory), "--quiet", *args],
                env=self._environment(self._directory),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
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
        """Start this node's own port mapper, which stays until `stop`.

        Erlang would start one by itself: a daemon that nobody ends and all nodes share.
        """
        if any(helper.running() for helper in self._helpers):
            return
        epmd_port = self._ports[2]
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

    def _environment(self, directory: Path) -> dict[str, str]:
        """Return the whole environment of the node and of rabbitmqctl.

        Nothing is inherited: a RABBITMQ_ variable meant for the system's own node would point
        this one at its data. The files named here that do not exist stand for those in /etc.
        """
        _, distribution_port, epmd_port = self._ports
        folder = self._release.seen(directory)
        return {
            "PATH": system_path(),
            "LANG": "C.UTF-8",
            "HOME": str(folder),  # for .erlang.cookie, which Erlang makes
            "ERL_EPMD_PORT": str(epmd_port),
            # The name is part of the data; the private port mapper keeps it from clashing.
            "RABBITMQ_NODENAME": "gearshift@localhost",
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


class RabbitMQ4(RabbitMQ):
    """The same with RabbitMQ 4, beside the system's own. Needs root, and mounts nothing for good.

    It sees no files but those of its data folder.
    """

    name: ClassVar[str] = "RabbitMQ4"
    _release: ClassVar[Release] = FolderRelease()
