"""What a user can set: a profile and a channel's native table."""

from __future__ import annotations

from gearshift.driver import BaseChannelSettings
from gearshift.driver.settings import (
    Endpoint,
    Secret,
    TlsSettings,
    move_credentials,
    parse_url,
    require_range,
)

__all__ = ["SCHEMES", "ChannelSettings", "Settings"]

SCHEMES = {"redis": 6379, "rediss": 6379}

#: What URLs of redis-py have after '?', and what to use instead.
PARAMETERS = {
    "db": "the url's path (redis://host/0)",
    "socket_timeout": "timeout_s",
    "socket_connect_timeout": "timeout_s",
    "ssl_ca_certs": "tls_ca_file",
    "ssl_certfile": "tls_cert_file",
    "ssl_keyfile": "tls_key_file",
    "ssl_cert_reqs": "tls_insecure_skip_verify",
}


class Settings(TlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile with ``backend = "redis"``."""

    url: str = "redis://localhost:6379/0"
    """``redis://user:password@host:port/database``, ``rediss://`` for TLS; without a path it is
    database 0.

    The password moves into ``password`` at once, so nothing that shows ``url`` shows a secret.
    """

    username: str | None = None
    """The ACL user; without it that of the url, or the server's default user."""

    password: Secret | None = None
    """The user's password, unless the url has it."""

    timeout_s: float = 5.0
    """How long each answer of the server may take."""

    lease_s: float = 10.0
    """How long a consumer may show no sign of life before others get what it had."""

    allow_forgetful_server: bool = False
    """Accept a server that keeps nothing over a restart, or may evict messages.

    Broker: ``appendonly``, ``maxmemory-policy``.
    """

    def __post_init__(self) -> None:
        move_credentials(self, self._endpoint())
        path = self._endpoint().path or "0"
        if not (path.isascii() and path.isdigit()):
            raise ValueError("url: what follows the '/' is not the number of a database")
        require_range(self, "timeout_s", 0.5, 10.0)
        require_range(self, "lease_s", 2.0, 3600.0)
        self.check_tls(self.tls, use="write the url as rediss://")
        if self.tls:
            self.check_tls_context()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        endpoint = self._endpoint()
        return endpoint.host, endpoint.port

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._endpoint().path or 0)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted: the scheme says so."""
        return self._endpoint().scheme == "rediss"

    def _endpoint(self) -> Endpoint:
        return parse_url(self.url, schemes=SCHEMES, parameters=PARAMETERS)


class ChannelSettings(BaseChannelSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A channel's ``native.redis`` table."""

    stream: str | None = None
    """An existing stream to use as it is: each group of the channel is a consumer group of it, and
    nothing is ever deleted from it.

    Broker: ``XADD``, ``XREADGROUP``.
    """

    body_field: str = "body"
    """The field of an entry that holds the body; the others become headers."""

    @property
    def others_read(self) -> bool:
        """True for an adopted stream."""
        return self.stream is not None

    @property
    def adopts(self) -> str | None:
        """The stream that is not made by us."""
        return f"stream {self.stream!r}" if self.stream else None

    def __post_init__(self) -> None:
        for field in ("stream", "body_field"):
            if getattr(self, field) == "":
                raise ValueError(f"{field}: is empty")
