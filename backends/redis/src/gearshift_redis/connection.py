"""Making clients, and looking whether the server keeps what it confirms."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, ResponseError
from redis.retry import Retry

from gearshift.errors import NotSupported
from gearshift_redis.moving import MovingConnection, MovingTlsConnection
from gearshift_redis.settings import Settings

__all__ = ["check_persistence", "connect"]

logger = logging.getLogger("gearshift.redis")


def connect(settings: Settings, on_moved: Callable[[], object] = lambda: None) -> Redis:
    """A client of one connection that never reconnects by itself. Raises redis-py's errors.

    ``on_moved`` is called whenever a part of a command or of an answer has moved.
    """
    host, port = settings.address
    more: dict[str, Any] = {}
    if settings.tls:
        more = {
            "ssl_ca_certs": settings.tls_ca_file and str(settings.tls_ca_file),
            "ssl_certfile": settings.tls_cert_file and str(settings.tls_cert_file),
            "ssl_keyfile": settings.tls_key_file and str(settings.tls_key_file),
            "ssl_cert_reqs": "none" if settings.tls_insecure_skip_verify else "required",
            "ssl_check_hostname": not settings.tls_insecure_skip_verify,
        }
    pool = ConnectionPool(
        connection_class=MovingTlsConnection if settings.tls else MovingConnection,
        on_moved=on_moved,
        host=host,
        port=port,
        db=settings.database,
        username=settings.username,
        password=settings.password.reveal() if settings.password else None,
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="gearshift",
        **more,
    )
    client = Redis(connection_pool=pool, single_connection_client=True)
    client.auto_close_connection_pool = True
    try:
        client.ping()
    except BaseException:
        client.close()
        raise
    return client


def check_persistence(client: Redis, settings: Settings) -> None:
    """Raises NotSupported for a server that forgets or evicts; warns where it cannot be asked."""
    if settings.allow_forgetful_server:
        return
    try:
        answer: dict[Any, Any] = client.config_get("appendonly", "appendfsync", "maxmemory-policy")
    except (NoPermissionError, ResponseError):
        logger.warning("this user may not ask the server whether it keeps what it confirms")
        return
    found = {_text(name): _text(value) for name, value in answer.items()}
    if found.get("appendonly") != "yes":
        raise NotSupported(
            "the server keeps nothing over a restart: appendonly is not set",
            hint="set appendonly yes and appendfsync always on the server, "
            "or allow_forgetful_server = true in the profile",
        )
    policy = found.get("maxmemory-policy", "")
    if policy.startswith("allkeys"):
        raise NotSupported(
            f"a server with maxmemory-policy {policy} throws messages away when it is full",
            hint="set maxmemory-policy noeviction on the server, "
            "or allow_forgetful_server = true in the profile",
        )
    if found.get("appendfsync") != "always":
        logger.warning("a power loss may cost the last second: set appendfsync always")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
