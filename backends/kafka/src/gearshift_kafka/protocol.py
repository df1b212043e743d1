"""Raw requests of Kafka's protocol, for what the client does not tell.

Each goes over a connection of its own, before any login, and carries no credentials.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

from gearshift.errors import ConnectionFailed

__all__ = ["misfit", "share_version"]

_TIMEOUT_S = 1.0
_MOST_BYTES = 1_000_000

#: ApiVersions, version 3, correlation id 1, no client id; then the client's name and version.
_FEATURES = struct.pack(">hhihb", 18, 3, 1, -1, 0) + b"\x0agearshift\x020\x00"
_EPOCH, _FINALIZED = 1, 2

#: Requests: api key, version, correlation id, no client id, and for Metadata a list of no topics.
_API_VERSIONS = struct.pack(">hhih", 18, 0, 1, -1)
_METADATA = struct.pack(">hhihi", 3, 1, 1, -1, 0)


def _ask(endpoint: tuple[str, int], request: bytes, *, tls: bool) -> bytes | None:
    """The answer to a request with the correlation id 1, behind that; None if there is none.

    Blocks for a few seconds at most.
    """
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(endpoint, timeout=_TIMEOUT_S))
        connection = stack.enter_context(_unverified().wrap_socket(plain)) if tls else plain
        connection.sendall(struct.pack(">i", len(request)) + request)
        stream = stack.enter_context(connection.makefile("rb"))
        head = stream.read(8)
        if len(head) == 8 and head[4:] == struct.pack(">i", 1):
            (size,) = struct.unpack(">i", head[:4])
            return stream.read(min(size - 4, _MOST_BYTES))
    return None


def misfit(endpoint: tuple[str, int], *, tls: bool, sasl: bool) -> ConnectionFailed | None:
    """Why a server that takes connections does not serve us; None if that cannot be said for sure.

    The client cannot tell, as it sees connections that end, and those of a broker that is stopping
    end in the same way. So the server is asked by requests older than any broker in use.

    Blocks for a few seconds at most. Sends no credentials.
    """
    where = f"{endpoint[0]}:{endpoint[1]}"
    if not _ask(endpoint, _API_VERSIONS, tls=tls):
        if not _ask(endpoint, _API_VERSIONS, tls=not tls):
            return None
        if tls:
            return _lasting(
                f"{where} speaks plain text, not TLS", "set tls = false, or use its port for TLS"
            )
        return _lasting(f"{where} speaks TLS, not plain text", "set tls = true")
    if not sasl and not _ask(endpoint, _METADATA, tls=tls):
        return _lasting(
            f"{where} answers only clients that have logged in",
            "set sasl_mechanism, sasl_username and sasl_password",
        )
    return None


def _lasting(text: str, hint: str) -> ConnectionFailed:
    return ConnectionFailed(text, hint=f"{hint}, in the profile", retryable=False)


def share_version(endpoint: tuple[str, int], *, tls: bool) -> int | None:
    """The cluster's level of the feature ``share.version``; None if it cannot be known."""
    answer = _ask(endpoint, _FEATURES, tls=tls)
    try:
        return None if answer is None else _share_version(_Reader(answer))
    except (struct.error, IndexError):
        return None


def _share_version(answer: _Reader) -> int | None:
    if answer.number("h"):
        return None  # older than this version of the request
    for _ in range(answer.unsigned() - 1):
        answer.skip(6)
        answer.fields()
    answer.skip(4)
    fields = answer.fields()
    if _EPOCH not in fields or fields[_EPOCH].number("q") < 0:
        return None
    finalized = fields.get(_FINALIZED)
    level = 0
    for _ in range(finalized.unsigned() - 1 if finalized else 0):
        assert finalized is not None
        name = finalized.take(finalized.unsigned() - 1)
        highest, _lowest = finalized.number("h"), finalized.number("h")
        finalized.fields()
        if name == b"share.version":
            level = highest
    return level


class _Reader:
    """Reads Kafka's types. Raises struct.error or IndexError at the end of its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        self._at += size

    def number(self, kind: str) -> int:
        value: int = struct.unpack(">" + kind, self.take(struct.calcsize(kind)))[0]
        return value

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def fields(self) -> dict[int, _Reader]:
        """Tagged fields."""
        return {
            self.unsigned(): _Reader(self.take(self.unsigned())) for _ in range(self.unsigned())
        }


def _unverified() -> ssl.SSLContext:
    """Nothing is sent that a stranger must not see."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
