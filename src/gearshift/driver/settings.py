"""Addresses, credentials and TLS files in the settings of backends. Errors hold no secret.

Client libraries put what they cannot parse into their exceptions, password and all; so URLs are
taken apart here and clients get the parts.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec

from gearshift.secret import Secret as Secret

__all__ = [
    "Endpoint",
    "Secret",
    "TlsSettings",
    "first_remote",
    "host_port",
    "is_loopback",
    "move_credentials",
    "parse_host_port",
    "parse_url",
    "require_range",
]

_NOT_IN_HOSTS = frozenset(" /\\?#[]%\"'<>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The parts of a URL, unquoted. ``path`` has no leading slash; None if there was no slash."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: Secret | None = None
    path: str | None = None


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a profile for TLS: a backend's settings extend this."""

    tls_ca_file: Path | None = None
    """Certificates of the authorities to trust (PEM); without it the system's."""

    tls_cert_file: Path | None = None
    """Certificate of this client (PEM), where the broker asks for one."""

    tls_key_file: Path | None = None
    """Private key of ``tls_cert_file`` (PEM), unless that file holds it too."""

    tls_insecure_skip_verify: bool = False
    """Accept any certificate. Only for tests: anybody may then be the broker."""

    def check_tls(self, used: bool, *, use: str) -> None:
        """Raise ValueError for what cannot be read, or has no effect because TLS is not ``used``.

        ``use`` says how it would be, such as "set tls = true".
        """
        for field in TlsSettings.__struct_fields__:
            if getattr(self, field) and not used:
                raise ValueError(f"{field}: only used with TLS, {use}")
        for field in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
            path: Path | None = getattr(self, field)
            try:
                _ = path and path.read_bytes()
            except OSError as error:
                raise ValueError(f"{field}: cannot read {str(path)!r} ({error.strerror})") from None
        if self.tls_key_file and not self.tls_cert_file:
            raise ValueError("tls_key_file: needs tls_cert_file beside it")

    def check_tls_context(self) -> None:
        """Raise ValueError if the files do not make a context."""
        try:
            self.tls_context()
        except OSError as error:
            field = "tls_cert_file" if self.tls_cert_file else "tls_ca_file"
            raise ValueError(f"{field}: not a usable PEM file ({type(error).__name__})") from None

    def tls_context(self) -> ssl.SSLContext:
        """A client's context of these files. Raises OSError."""
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls_insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.tls_cert_file:
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        return context


def move_credentials(settings: Any, endpoint: Endpoint) -> None:
    """Move user name and password out of ``url`` into the fields of ``settings`` for them.

    ``endpoint`` is the parsed URL. Nothing that shows the URL shows a secret then.
    """
    for field in ("username", "password"):
        in_url, beside = getattr(endpoint, field), getattr(settings, field)
        if in_url and beside is not None:
            raise ValueError(f"{field}: given in url too, keep one of them")
        msgspec.structs.force_setattr(settings, field, in_url or beside)
    scheme, _, rest = settings.url.partition("://")
    msgspec.structs.force_setattr(settings, "url", f"{scheme}://{rest.rpartition('@')[2]}")


def parse_url(
    url: str,
    *,
    schemes: dict[str, int],
    field: str = "url",
    parameters: Mapping[str, str] | None = None,
    more_hosts: str | None = None,
) -> Endpoint:
    """Take ``scheme://user:password@host:port/path`` apart; ``schemes`` gives each default port.

    ``?name=value`` and several hosts are refused. ``parameters`` are the settings to use instead,
    by the names that other clients' URLs have; ``more_hosts`` is the one for further hosts.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    choices = " or ".join(f"{name}://" for name in schemes)
    if not separator:
        raise ValueError(f"{field}: missing scheme, expected {choices}")
    if scheme not in schemes:
        # Not shown unless it looks like one: of "user:pw@host" anything may stand in its place.
        named = f" {scheme!r}" if scheme.isalnum() else ""
        raise ValueError(f"{field}: unknown scheme{named}, expected {choices}")
    if not rest.isprintable() or " " in rest:
        raise ValueError(f"{field}: has a space or control character; percent-encode it")
    place, question, query = rest.partition("?")
    if question and "@" not in query:
        _refuse_parameters(query, parameters or {}, field)
    if question or "#" in place:
        raise ValueError(f"{field}: write '?' and '#' percent-encoded (%3F, %23)")
    if "," in place.rpartition("@")[2]:
        other = f"; put the others into {more_hosts}" if more_hosts else ""
        raise ValueError(f"{field}: has a ',', but one host stands here{other}")
    authority, slash, path = rest.partition("/")
    credentials, at, address = authority.rpartition("@")
    if "@" in path or credentials.count("@") or credentials.count(":") > 1:
        raise ValueError(
            f"{field}: the user name or password has an unescaped '/', '@' or ':'; "
            "percent-encode it (%2F, %40, %3A)"
        )
    if slash and "/" in path:
        raise ValueError(f"{field}: the path has two parts; percent-encode its '/' as %2F")
    username, colon, password = credentials.partition(":")
    host, port = parse_host_port(address, default_port=schemes[scheme], field=field)
    return Endpoint(
        scheme=scheme,
        host=host,
        port=port,
        username=_unquoted(username, field) if at else None,
        password=Secret(_unquoted(password, field)) if colon else None,
        path=_unquoted(path, field) if slash else None,
    )


def parse_host_port(address: str, *, default_port: int | None, field: str) -> tuple[str, int]:
    """Read ``host``, ``host:port`` or ``[v6]:port``; the port must be 1 to 65535.

    Errors repeat a host or port only if it looks like one: of a mistyped URL it may be a password.
    """
    if "://" in address or "@" in address:
        raise ValueError(f"{field}: write host:port, without scheme and credentials")
    if "," in address:
        raise ValueError(f"{field}: has a ','; one host:port stands here")
    split = _bracketed if address.startswith("[") else _plain
    host, port_text = split(address, field)
    if not port_text:
        if default_port is None:
            raise ValueError(f"{field}: {host!r} has no port, write host:port")
        return host, default_port
    if not port_text.isascii() or not port_text.isdigit():
        raise ValueError(f"{field}: what follows ':' is not a port, a number from 1 to 65535")
    if len(port_text) > 6 or not 1 <= int(port_text) <= 65535:
        shown = f" {port_text}" if len(port_text) <= 6 else ""
        raise ValueError(f"{field}: port{shown} is not from 1 to 65535")
    return host, int(port_text)


def host_port(host: str, port: int) -> str:
    """The address that ``parse_host_port`` reads: brackets are around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def first_remote(endpoints: Sequence[tuple[str, int]]) -> str | None:
    """The first host that is not this machine, for warnings about plain text; None if all are."""
    return next((host for host, _ in endpoints if not is_loopback(host)), None)


def _refuse_parameters(query: str, settings: Mapping[str, str], field: str) -> NoReturn:
    names = [pair.partition("=")[0].lower() for pair in query.split("&")]
    known = [f"{settings[name]} for {name}" for name in names if name in settings]
    use = ", ".join(known) or "the settings beside it"
    raise ValueError(f"{field}: has parameters after '?', which are not read here; use {use}")


def _plain(address: str, field: str) -> tuple[str, str]:
    host, _, port = address.partition(":")
    if not host or not host.isprintable() or set(host) & _NOT_IN_HOSTS:
        raise ValueError(f"{field}: has no host name, write host:port")
    return host, port


def _bracketed(address: str, field: str) -> tuple[str, str]:
    """``[v6]`` or ``[v6]:port``; the address without brackets (it has ':' and perhaps '%zone')."""
    host, bracket, tail = address[1:].partition("]")
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        bracket = ""
    if not bracket or (tail and not tail.startswith(":")):
        raise ValueError(f"{field}: is not [IPv6]:port")
    return host, tail.removeprefix(":")


def _unquoted(text: str, field: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:  # it holds the bytes, so it must not become the context
        pass
    raise ValueError(f"{field}: what is percent-encoded in it is not UTF-8")


def require_range(settings: msgspec.Struct, field: str, least: float, most: float) -> None:
    """Raise ValueError, as a ``__post_init__`` does, unless ``field`` is ``least`` to ``most``."""
    value = getattr(settings, field)
    if not least <= value <= most:
        raise ValueError(f"{field}: {value} is out of range, use {least:g} to {most:g}")
