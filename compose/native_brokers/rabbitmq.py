"""RabbitMQ from the system's packages, one private node for each object."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.cache import one_at_a_time
from native_brokers.errors import BrokerUnavailable
from native_brokers.ports import LOOPBACK, require_free, wait_for_port
from native_brokers.probes import amqp_answers
from native_brokers.process import Account, Process

_APT_INSTALL = "apt-get update && apt-get install -y --no-install-recommends rabbitmq-server"
# Debian starts a service that it installs unless policy-rc.d says no (exit code 101).
_APT_INSTALL_ONLY = f"""
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
{_APT_INSTALL}
"""
# Debian's /usr/sbin scripts insist on root and on the system's one log file; those behind do not.
_DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER = "rabbitmq"
_EPMD_TIMEOUT_S = 10.0
_CTL_TIMEOUT_S = 60.0


class RabbitMQ(Broker):
    """A RabbitMQ node of its own, beside any other on the machine, for the user guest."""

    name: ClassVar[str] = "RabbitMQ"
    port_count: ClassVar[int] = 3

    def __init__(self, directory: Path | None = None) -> None:
        """Keep data and logs in `directory`, or in a private folder that `stop` removes.

        Run by root, the server runs as the user rabbitmq, who is given the folder and must be
        able to reach it.
        """
        super().__init__(directory)

    @staticmethod
    def install() -> None:
        """Install the package rabbitmq-server with apt, without starting its service.

        Returns at once if it is there, else blocks for about a minute. Raises `BrokerUnavailable`,
        which names the command to run, if this user may not or apt fails.
        """
        with one_at_a_time("rabbitmq"):
            if _scripts_folder() is not None:
                return
            if shutil.which("apt-get") is None or os.geteuid() != 0:
                raise BrokerUnavailable(
                    "RabbitMQ is not installed and only root can do it with apt; "
                    f"run: sudo sh -c '{_APT_INSTALL}'"
                )
            done = subprocess.run(
                ["sh", "-ec", _APT_INSTALL_ONLY],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode != 0 or _scripts_folder() is None:
                raise BrokerUnavailable(
                    f"apt could not install RabbitMQ; mend that and run: {_APT_INSTALL}\n"
                    + "\n".join(done.stdout.splitlines()[-20:])
                )

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
        account = _server_account()
        command = f"rabbitmqctl {' '.join(args)}"
        try:
            done = subprocess.run(
                [_script("rabbitmqctl"), "--quiet", *args],
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
        account = _server_account()
        server = _script("rabbitmq-server")
        environment = self._environment(directory)
        amqp_port, distribution_port, _ = self._ports
        require_free((amqp_port, distribution_port))
        _give(directory, account)
        _require_reachable(directory, account)
        (directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {LOOPBACK}:{amqp_port}\n")
        (directory / "enabled_plugins").write_text("[].\n")
        self._start_epmd(directory, environment, account)
        return Process(
            [server], env=environment, directory=directory, log=self.log, account=account
        )

    def _answers(self) -> bool:
        return amqp_answers(self.port, "guest", "guest")

    def _start_epmd(self, directory: Path, environment: dict[str, str], account: Account) -> None:
        """Start this node's own port mapper, which stays until `stop`.

        Erlang would start one by itself: a daemon that nobody ends and all nodes share.
        """
        if any(helper.running() for helper in self._helpers):
            return
        epmd_port = self._ports[2]
        require_free([epmd_port])
        epmd = Process(
            ["epmd", "-address", LOOPBACK, "-port", str(epmd_port)],
            env=environment,
            directory=directory,
            log=directory / "epmd.log",
            account=account,
        )
        self._helpers.append(epmd)
        wait_for_port(epmd_port, _EPMD_TIMEOUT_S)

    def _environment(self, directory: Path) -> dict[str, str]:
        """Return the whole environment of the node and of rabbitmqctl.

        Nothing is inherited: a RABBITMQ_ variable meant for the system's own node would point
        this one at its data. The files named here that do not exist stand for those in /etc.
        """
        _, distribution_port, epmd_port = self._ports
        return {
            "PATH": f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "HOME": str(directory),  # for .erlang.cookie, which Erlang makes
            "ERL_EPMD_PORT": str(epmd_port),
            # The name is part of the data; the private port mapper keeps it from clashing.
            "RABBITMQ_NODENAME": "gearshift@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(directory / "schema"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_LOGS": "-",
            # Makes the start script become the Erlang VM, so that our child is the server itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


def _scripts_folder() -> Path | None:
    if (_DEBIAN_SCRIPTS / "rabbitmq-server").exists():
        return _DEBIAN_SCRIPTS
    found = shutil.which("rabbitmq-server")
    return None if found is None else Path(found).parent


def _script(name: str) -> str:
    folder = _scripts_folder()
    if folder is None:
        raise BrokerUnavailable(
            "RabbitMQ is not installed; run: python -m native_brokers install --only rabbitmq"
        )
    return str(folder / name)


def _server_account() -> Account:
    """Return the package's user when root asks: a server has no business running as root."""
    if os.geteuid() != 0:
        return Account()
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return Account()
    return Account(user.pw_uid, user.pw_gid)


def _give(directory: Path, account: Account) -> None:
    if account.user is not None and account.group is not None:
        os.chown(directory, account.user, account.group)


def _require_reachable(directory: Path, account: Account) -> None:
    found = subprocess.run(
        ["test", "-w", str(directory)],
        cwd="/",
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    )
    if found.returncode != 0:
        raise BrokerUnavailable(
            f"the user {_USER}, whom the server runs as, cannot reach {directory}; "
            "name a folder below ones that everybody may enter, or none for a private one"
        )
