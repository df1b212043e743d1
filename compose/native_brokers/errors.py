"""The one error of this package."""

from __future__ import annotations


class BrokerUnavailable(RuntimeError):
    """A broker cannot be installed, started or reached; the message names the next step."""
