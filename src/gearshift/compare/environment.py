"""The versions and the machine that a run was made with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform

__all__ = ["machine", "versions"]

#: Distributions whose version decides what is seen.
_CLIENTS = ("gearshift", "gearshift-rabbitmq", "pika", "gearshift-kafka", "confluent-kafka")


def versions() -> dict[str, str]:
    """Of Python and of every distribution that decides what is seen."""
    found = {"python": platform.python_version()}
    for name in _CLIENTS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, str]:
    """The system, its processor and cores."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": str(os.cpu_count() or "unknown"),
    }
