"""Exit codes of the ``gearshift`` command and of its worker processes."""

from __future__ import annotations

from gearshift.errors import (
    ConfigError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidMessage,
    NotSupported,
    PermissionDenied,
    PluginError,
    TopologyError,
    UsageError,
)

__all__ = ["FAILED", "MISSING_CAPABILITY", "UNREACHABLE", "WRONG_SETTINGS", "exit_code"]

FAILED = 1
WRONG_SETTINGS = 2
UNREACHABLE = 3
MISSING_CAPABILITY = 4

_CODES: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
    (WRONG_SETTINGS, (ConfigError, PluginError, UsageError, InvalidMessage, TopologyError)),
    (UNREACHABLE, (ConnectionFailed, PermissionDenied, DeadlineExceeded)),
    (MISSING_CAPABILITY, (NotSupported,)),
)


def exit_code(error: BaseException) -> int:
    """The code for ``error``; 1 for one that has no code of its own."""
    return next((code for code, kinds in _CODES if isinstance(error, kinds)), FAILED)
