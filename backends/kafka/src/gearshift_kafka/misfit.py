"""What a server expects that the profile does not say: TLS, plain text, SASL.

The client cannot tell: it sees connections that end. Neither can a guess: those of a broker that
is stopping end in the same way. So the server itself is asked, by two requests of Kafka's protocol
that are older than any broker in use.
"""

from __future__ import annotations

import struct

from gearshift.errors import ConnectionFailed
from gearshift_kafka.probe import ask

__all__ = ["misfit"]

#: Requests: api key, version, correlation id, no client id, and for Metadata a list of no topics.
_API_VERSIONS = struct.pack(">hhih", 18, 0, 1, -1)
_METADATA = struct.pack(">hhihi", 3, 1, 1, -1, 0)


def misfit(endpoint: tuple[str, int], *, tls: bool, sasl: bool) -> ConnectionFailed | None:
    """Why a server that takes connections does not serve us; None if that cannot be said for sure.

    Blocks for a few seconds at most. Sends no credentials.
    """
    where = f"{endpoint[0]}:{endpoint[1]}"
    if not _answers(endpoint, _API_VERSIONS, tls=tls):
        if not _answers(endpoint, _API_VERSIONS, tls=not tls):
            return None
        if tls:
            return _lasting(
                f"{where} speaks plain text, not TLS", "set tls = false, or use its port for TLS"
            )
        return _lasting(f"{where} speaks TLS, not plain text", "set tls = true")
    if not sasl and not _answers(endpoint, _METADATA, tls=tls):
        return _lasting(
            f"{where} answers only clients that have logged in",
            "set sasl_mechanism, sasl_username and sasl_password",
        )
    return None


def _lasting(text: str, hint: str) -> ConnectionFailed:
    return ConnectionFailed(text, hint=f"{hint}, in the profile", retryable=False)


def _answers(endpoint: tuple[str, int], request: bytes, *, tls: bool) -> bool:
    return ask(endpoint, request, tls=tls) is not None
