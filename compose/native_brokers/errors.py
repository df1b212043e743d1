"""The errors of this package."""

from __future__ import annotations


class BrokerUnavailable(RuntimeError):
    """A broker cannot be installed, started or reached; the message names the next step."""


class NotInstalled(BrokerUnavailable):
    """Software is missing that this user may not install; the message names the command."""
