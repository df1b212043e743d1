"""Finding out why it does not work: each step from the settings to a message that came back.

The steps are ``STEPS``. One that fails says what the cause is and what to do; those that need it
are not run. Nothing is created but the round trip's own channel, which is deleted again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gearshift import config as configuration
from gearshift import plugins
from gearshift.bus import Bus, open_bus
from gearshift.config import Config
from gearshift.driver import BackendPlugin, GroupStatus
from gearshift.driver.settings import host_port
from gearshift.errors import ConnectionFailed, DeadlineExceeded, GearshiftError, UnknownChannel
from gearshift.hooks.registry import check_installed
from gearshift.operations.cleanup import delete_channels, finish

__all__ = ["STEPS", "Check", "Status", "examine"]

_CONNECT_TIMEOUT_S = 3.0
_ROUND_TRIP_TIMEOUT_S = 15.0

#: What is checked, in order, and what to do if an error brings no hint of its own.
_FIXES = {
    "config": "correct the settings; gearshift config show lists them",
    "plugin": "correct the profile's settings, or uninstall the plugin",
    "tcp": "start the server, or correct its address in the profile",
    "auth": "correct user name, password or TLS settings in the profile",
    "topology": "correct the channel's settings, or delete the channel and let it be made again",
    "copies": "see the servers' logs",
    "round trip": "see the server's log; --no-round-trip leaves this step out",
}

#: Up to ``auth`` each needs the one before.
STEPS = tuple(_FIXES)


class Status(StrEnum):
    """The end of a check. SKIPPED: there is nothing to check. NOT_RUN: a failure before it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``hint`` is the fix, ``error`` what has failed.

    ``subject`` is the server or channel that it is about. No text holds a secret.
    """

    step: str
    status: Status
    detail: str
    subject: str | None = None
    hint: str | None = None
    error: Exception | None = None


def examine(
    path: str | Path | None = None,
    *,
    profile: str | None = None,
    channels: Sequence[str] = (),
    round_trip: bool = True,
) -> Iterator[Check]:
    """Run every step; yields what it finds as it goes. Blocks for some seconds per step.

    ``path`` and ``profile`` are those of ``gearshift.open``; ``channels`` are looked at instead of
    the configured ones. Raises nothing: errors are findings.
    """
    broken: str | None = None
    with contextlib.ExitStack() as stack:
        examination = _Examination(path, profile, channels, round_trip, stack)
        for step in STEPS:
            if broken is not None:
                yield Check(step, Status.NOT_RUN, f"needs {broken}")
                continue
            for check in examination.guarded(step):
                if step in STEPS[:4] and check.status is Status.FAILED:
                    broken = step
                yield check


class _Examination:
    """The steps, each a method of its name, and what earlier ones found for later ones."""

    settings: Config
    backend: BackendPlugin
    bus: Bus

    def __init__(
        self,
        path: str | Path | None,
        profile: str | None,
        channels: Sequence[str],
        round_trip: bool,
        stack: contextlib.ExitStack,
    ) -> None:
        self._path = path
        self._profile = profile
        self._channels = channels
        self._with_round_trip = round_trip
        self._stack = stack
        self._masked: Callable[[str], str] = str

    def guarded(self, step: str) -> Iterator[Check]:
        """The step's findings; what it raises is one of them."""
        try:
            yield from getattr(self, step.replace(" ", "_"))()
        except Exception as error:
            yield self.failure(step, error)

    def failure(self, step: str, error: Exception, subject: str | None = None) -> Check:
        """The finding that ``error`` is, without secrets."""
        ours = error if isinstance(error, GearshiftError) else None
        text = ours.message if ours else f"{type(error).__name__}: {error}"
        detail = self._masked(f"{subject}: {text}" if subject else text)
        hint = self._masked((ours.hint if ours else None) or _FIXES[step])
        return Check(step, Status.FAILED, detail, subject, hint, error)

    # ── steps ──

    def config(self) -> Iterator[Check]:
        self.settings = loaded = configuration.load(self._path, profile=self._profile)
        self._masked = loaded.masked
        where = str(loaded.file) if loaded.file else "no gearshift.toml, defaults"
        detail = f"profile {loaded.profile!r} (from {loaded.profile_origin}), {where}"
        yield Check("config", Status.OK, detail)

    def plugin(self) -> Iterator[Check]:
        self.backend = plugin = self.settings.load_plugin()
        checked = check_installed()
        for hooks, error in checked:
            if error is not None:
                yield self.failure("plugin", error, f"{hooks.name} of {hooks}")
            else:
                found = f"{hooks.name} of {hooks} adds hooks"
                yield Check("plugin", Status.OK, found, hooks.name)
        if any(error is not None for _, error in checked):
            return  # no bus can be opened
        self.bus = open_bus(config=self.settings)
        self._stack.callback(self.bus.close, 5.0)
        if over := self.settings.over:
            detail = f"{self.settings.stack}: {plugin.summary}"
            hint = f"for production select profile {over.profile!r} itself"
            yield Check("plugin", Status.WARNING, detail, self.settings.backend, hint)
            return
        entry = next(entry for entry in plugins.available() if entry.name == plugin.name)
        detail = f"{plugin.name} from {entry}: {plugin.summary}"
        yield Check("plugin", Status.OK, detail, plugin.name)

    def tcp(self) -> Iterator[Check]:
        endpoints = self.bus.endpoints()
        if not endpoints:
            yield Check("tcp", Status.SKIPPED, "embedded, there is no server")
            return
        problems = _unreachable(endpoints)
        some_answer = len(problems) < len(endpoints)
        for endpoint in endpoints:
            subject, problem = host_port(*endpoint), problems.get(endpoint)
            if problem is None:
                yield Check("tcp", Status.OK, f"{subject} accepts connections", subject)
            elif some_answer:
                detail = f"{subject}: {problem}; others answer"
                yield Check("tcp", Status.WARNING, detail, subject, _FIXES["tcp"])
            else:
                yield self.failure("tcp", ConnectionFailed(problem), subject)

    def auth(self) -> Iterator[Check]:
        yield Check("auth", Status.OK, self._masked(self.bus.server()))

    def topology(self) -> Iterator[Check]:
        if not self._names():
            yield Check("topology", Status.SKIPPED, "no channel is configured")
        for name in self._names():
            try:
                yield Check("topology", Status.OK, self._channel(name), name)
            except Exception as error:
                yield self.failure("topology", error, name)

    def copies(self) -> Iterator[Check]:
        conditions = self.bus.replication(self._names()) if self.bus.endpoints() else None
        if conditions is None:
            detail = "not told by this backend" if self.bus.endpoints() else "embedded, one copy"
            yield Check("copies", Status.SKIPPED, detail)
        for condition in conditions or ():
            status = Status.OK if condition.hint is None else Status.WARNING
            hint = condition.hint and self._masked(condition.hint)
            yield Check("copies", status, self._masked(condition.text), condition.subject, hint)

    def round_trip(self) -> Iterator[Check]:
        if not self._with_round_trip:
            yield Check("round trip", Status.SKIPPED, "--no-round-trip")
            return
        name = f"gearshift-doctor-{uuid.uuid4().hex[:12]}"
        try:
            self._send_and_receive(name)
        finally:
            problems = finish(lambda: delete_channels(self.bus, name))
        detail = f"sent, received and settled one message on a {self.bus.semantics(name)}"
        yield Check("round trip", Status.OK, detail)
        for problem in problems:
            hint = "delete it with the broker's own tools"
            yield Check("round trip", Status.WARNING, self._masked(problem), name, hint)

    # ── inside ──

    def _names(self) -> list[str]:
        """The channels that are looked at."""
        return list(self._channels or self.settings.channels)

    def _channel(self, name: str) -> str:
        """The state of one channel. Creates nothing; raises what opening it would."""
        # What it requires, what the backend checks, and what this server has.
        largest = self.bus.capabilities(name, live=True).max_message_bytes
        semantics = self.bus.semantics(name)
        if not self.bus.exists(name):
            if self.settings.channels and name not in self.settings.channels:
                self.bus.declare(name, create=False)  # raises, with what the name could mean
            self._require_adopted(name)
            groups = ", ".join(self.settings.channel(name).groups) or "the default one"
            more = f" with groups: {groups}" if semantics == "queue" else ""
            return f"{name}: not there; a {semantics} would be created{more}"
        states = self.bus.groups(name)
        missing = [state.group for state in states if _is_unknown(state)]
        if not missing:
            self.bus.declare(name)  # all is there: this compares, and raises what differs
        present = [state.group for state in states if not _is_unknown(state)]
        parts = [f"{name}: {semantics}", f"groups: {', '.join(present) or 'none yet'}"]
        parts.append(f"messages of up to {largest:,} bytes")
        if missing:
            parts.append(f"would be created: {', '.join(missing)}")
        return "; ".join(parts)

    def _require_adopted(self, name: str) -> None:
        """Raise UnknownChannel if the channel, which is not there, is not ours to make."""
        if adopts := self.settings.native_for(name, self.backend).adopts:
            raise UnknownChannel(
                f"{adopts} is missing; it is adopted, so Gearshift does not create it",
                hint=f"create it on the broker, or take it out of native.{self.backend.name}",
            )

    def _send_and_receive(self, name: str) -> None:
        ephemeral = self.bus.capabilities(name).ephemeral_group
        with (
            self.bus.consumer(name, ephemeral=ephemeral, create=True) as consumer,
            self.bus.producer(name, create=True) as producer,
        ):
            consumer.ready(_ROUND_TRIP_TIMEOUT_S)
            receipt = producer.send({"from": "gearshift doctor"}, timeout_s=_ROUND_TRIP_TIMEOUT_S)
            received = consumer.receive(timeout_s=_ROUND_TRIP_TIMEOUT_S)
            if [delivery.id for delivery in received] != [receipt.id]:
                raise DeadlineExceeded(
                    f"the message was stored, but did not come back in {_ROUND_TRIP_TIMEOUT_S:g} s"
                )
            received[0].ack()
            consumer.flush(_ROUND_TRIP_TIMEOUT_S)


def _is_unknown(state: GroupStatus) -> bool:
    """True if the broker tells nothing of the group, as of one that does not exist."""
    fields = (state.ready, state.in_flight, state.lag, state.oldest_age_s, state.consumers)
    return all(field is None for field in fields)


# ── Sockets ──────────────────────────────────────────────────────────────────────────────────────


def _unreachable(endpoints: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The servers that take no connection, and why. All are tried at once.

    On daemon threads: looking up a name has no timeout, and nobody should wait for it at exit.
    """
    silent = f"no answer in {_CONNECT_TIMEOUT_S:g} s; a firewall, or another address"
    found: dict[tuple[str, int], str | None] = dict.fromkeys(endpoints, silent)

    def connect(endpoint: tuple[str, int]) -> None:
        found[endpoint] = _problem(endpoint, silent)

    threads = [
        threading.Thread(target=connect, args=(endpoint,), name="gearshift-doctor", daemon=True)
        for endpoint in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_CONNECT_TIMEOUT_S + 1.0)
    return {endpoint: problem for endpoint, problem in found.items() if problem is not None}


def _problem(endpoint: tuple[str, int], silent: str) -> str | None:
    try:
        with contextlib.closing(socket.create_connection(endpoint, timeout=_CONNECT_TIMEOUT_S)):
            return None
    except TimeoutError:
        return silent
    except socket.gaierror as error:
        return f"the host name cannot be resolved ({error.strerror})"
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"cannot connect: {reason}"
