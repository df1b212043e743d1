"""The ``memory`` backend: both semantics inside one process, for tests and notebooks.

What is stored belongs to the Backend object: producers and consumers of one bus meet, two buses do
not, and when the bus is closed everything is gone.
"""

from __future__ import annotations

from gearshift.capabilities import Durability
from gearshift.driver import DRIVER_API, BackendPlugin, BaseChannelSettings
from gearshift.driver.plugin import hookimpl
from gearshift.embedded.capabilities import declared
from gearshift.embedded.memory.backend import Backend
from gearshift.embedded.memory.settings import Settings
from gearshift.message import Semantics

__all__ = ["Backend", "Settings", "gearshift_backend"]


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin behind ``backend = "memory"``."""
    return BackendPlugin(
        name="memory",
        driver_api=DRIVER_API,
        summary="inside this process, for tests and notebooks; nothing survives it",
        settings=Settings,
        channel_settings=BaseChannelSettings,
        capabilities=declared(Durability.NOTHING),
        default_semantics=Semantics.QUEUE,
        connect=Backend,
        url_schemes={"memory": lambda url: {}},
    )
