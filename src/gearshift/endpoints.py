"""Reading addresses out of settings: URLs and ``host:port`` pairs. Raises ValueError without secrets.

Client libraries put what they cannot parse into their exceptions, password and all; so URLs are
taken apart here and clients get the parts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from gearshift.secret import Secret

__all__ = ["Endpoint", "is_loopback", "parse_host_port", "parse_url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The parts of a URL, unquoted. ``path`` has no leading slash; None if there was no slash."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: Secret | None = None
    path: str | None = None


def parse_url(url: str, *, schemes: dict[str, int], field: str = "url") -> Endpoint:
    """Take ``scheme://user:password@host:port/path`` apart; ``schemes`` gives each default port."""
    scheme, separator, rest = url.partition("://")
    choices = " or ".join(f"{name}://" for name in schemes)
    if not separator:
        raise ValueError(f"{field}: missing scheme, expected {choices}")
    if scheme not in schemes:
        raise ValueError(f"{field}: unknown scheme {scheme[:20]!r}, expected {choices}")
    if any(mark in rest for mark in "?#"):
        raise ValueError(f"{field}: '?' and '#' are not used here; percent-encode them in credentials")
    authority, slash, path = rest.partition("/")
    credentials, at, address = authority.rpartition("@")
    if "@" in path or credentials.count("@") or credentials.count(":") > 1:
        raise ValueError(
            f"{field}: the user name or password has an unescaped '/', '@' or ':'; "
            "percent-encode it (%2F, %40, %3A)"
        )
    if slash and "/" in path:
        raise ValueError(f"{field}: path '/{path}' has more than one part; percent-encode '/' as %2F")
    username, colon, password = credentials.partition(":")
    host, port = parse_host_port(address, default_port=schemes[scheme], field=field)
    return Endpoint(
        scheme=scheme,
        host=host,
        port=port,
        username=unquote(username) if at else None,
        password=Secret(unquote(password)) if colon else None,
        path=unquote(path) if slash else None,
    )


def parse_host_port(address: str, *, default_port: int | None, field: str) -> tuple[str, int]:
    """Read ``host``, ``host:port`` or ``[v6]:port``; the port must be 1 to 65535."""
    if address.startswith("["):
        host, bracket, tail = address[1:].partition("]")
        port_text = tail.removeprefix(":")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"{field}: {address!r} is not [IPv6]:port")
    else:
        host, _, port_text = address.partition(":")
    if not host or any(character.isspace() for character in host):
        raise ValueError(f"{field}: {address!r} has no host name")
    if not port_text:
        if default_port is None:
            raise ValueError(f"{field}: {address!r} has no port, write host:port")
        return host, default_port
    if not port_text.isascii() or not port_text.isdigit() or not 1 <= int(port_text) <= 65535:
        raise ValueError(f"{field}: port {port_text[:10]!r} of {host!r} is not a number from 1 to 65535")
    return host, int(port_text)


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def first_remote(endpoints: Sequence[tuple[str, int]]) -> str | None:
    """The first host that is not this machine, for warnings about plain text; None if all are."""
    return next((host for host, _ in endpoints if not is_loopback(host)), None)
