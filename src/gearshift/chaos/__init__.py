"""The ``chaos`` backend: another profile's broker on a bad day, as bad as its capabilities allow.

It stands over that profile's drivers and does to a running service what the rules of
``gearshift.misfortunes`` let the broker do, and nothing else: see docs/design/0049.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gearshift.chaos.backend import ChaosBackend
from gearshift.chaos.settings import Settings
from gearshift.driver import DRIVER_API, Backend, BackendPlugin, BaseChannelSettings
from gearshift.driver.plugin import hookimpl
from gearshift.message import Semantics

__all__ = ["ChaosBackend", "Settings", "gearshift_backend"]


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin behind ``backend = "chaos"``."""
    return BackendPlugin(
        name="chaos",
        driver_api=DRIVER_API,
        summary="another profile's broker on a bad day, for staging",
        settings=Settings,
        channel_settings=BaseChannelSettings,
        capabilities={},
        default_semantics=Semantics.QUEUE,
        connect=_refuse,
        wrap=_over,
    )


def _over(below: BackendPlugin, connect: Callable[[], Backend]) -> BackendPlugin:
    def connect_both(settings: Settings) -> ChaosBackend:
        return ChaosBackend(connect(), settings, below.capabilities)

    return replace(
        below,
        summary="does to messages what this broker may do on a bad day; not for production",
        settings=Settings,
        connect=connect_both,
        raw_client=None,
    )


def _refuse(_: Settings) -> Backend:
    raise AssertionError("chaos stands over another backend")
