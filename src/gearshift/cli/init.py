"""``gearshift init``: the first gearshift.toml, with every profile as an example."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from gearshift.cli.context import Session, note, with_session
from gearshift.cli.errors import CommandFailed
from gearshift.config.document import FILE_NAME

__all__ = ["command"]

#: The profile of the template for each backend that it shows.
_PROFILES = {"sqlite": "dev", "rabbitmq": "rabbit", "kafka": "kafka"}

_TEMPLATE = """\
# Settings of Gearshift. Check them with: gearshift doctor

# The one line that changes the broker; GEARSHIFT_PROFILE=kafka in the environment does it too.
profile = "@profile@"

# ── Profiles: one broker each ────────────────────────────────────────────────────────────────────

[profiles.dev]                   # embedded and durable, no server
backend = "sqlite"
path = ".gearshift/dev.db"       # relative to this file

[profiles.rabbit]                # pip install gearshift-rabbitmq
backend = "rabbitmq"
url = "amqp://app:${RABBIT_PASSWORD}@localhost:5672/%2F"    # ${...}: from the environment

[profiles.kafka]                 # pip install gearshift-kafka
backend = "kafka"
bootstrap_servers = ["localhost:9092"]
# With a password:
# tls = true
# sasl_mechanism = "SCRAM-SHA-512"
# sasl_username = "app"
# sasl_password = "${KAFKA_PASSWORD}"
@other@
# ── Channels: the same for every broker ──────────────────────────────────────────────────────────

[channels.orders]
semantics = "queue"              # "queue": work to be done; "stream": a log that can be read again
# groups = ["billing", "audit"]  # every group gets every message; without this there is one
# max_attempts = 5               # then the message goes to the dead letters,
# dead_letter = "orders.dead"    # which is this channel
# requires = ["redelivery", "dead_letter"]   # refuse to start on a backend that cannot do these
"""

_OTHER = """
[profiles.@name@]
backend = "@name@"
"""


@click.command("init")
@click.option(
    "--backend", default="sqlite", show_default=True, metavar="NAME",
    help="The backend to start with.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@with_session
def command(session: Session, backend: str, force: bool) -> None:
    """Write a commented gearshift.toml into this folder.

    It has an example profile for each broker; --backend says which one is selected.
    """
    file = Path(session.config_path or FILE_NAME)
    text = _text(backend)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise CommandFailed(
            f"{file} exists; nothing was changed", hint="--force overwrites it", exit_code=2
        ) from None
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", exit_code=2) from None
    note(f"Wrote {file}. Next:\n{_next_steps(backend)}")


def _text(backend: str) -> str:
    other = ""
    if backend not in _PROFILES:
        _require_installed(backend)
        other = _OTHER.replace("@name@", backend)
    profile = _PROFILES.get(backend, backend)
    return _TEMPLATE.replace("@profile@", profile).replace("@other@", other)


def _require_installed(backend: str) -> None:
    """Raise BackendNotFound, with what it could mean, for a name that is not a backend's."""
    from gearshift import plugins

    if backend not in {entry.name for entry in plugins.available()}:
        plugins.load(backend)


def _next_steps(backend: str) -> str:
    from gearshift import plugins

    steps = {
        "gearshift doctor": "check settings, connection and channels",
        """echo '{"id": 1}' | gearshift send orders""": "send a message",
        "gearshift ls": "see it wait",
    }
    if backend not in {entry.name for entry in plugins.available()}:
        steps = {f"pip install gearshift-{backend}": "the backend"} | steps
    return "\n".join(f"  {command_line:<42}  {what}" for command_line, what in steps.items())
