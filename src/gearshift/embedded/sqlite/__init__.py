"""The ``sqlite`` backend: both semantics in one file, durable, for any number of processes.

=============  ====================================================================================
``schema``     the tables, and opening the file
``rows``       a Message as columns and back
``writer``     the one that writes: many submissions, one transaction, one fsync
``store``      what the drivers of one Backend share; waiting for a change by any process
``alive``      telling a dead process from a slow one
``members``    consumers as rows: joining, leases, putting out the dead, rebalancing
``raw``        sqlite3 by hand, for ``gearshift bench``
``producer``   ``queue``  ``stream``  ``admin``: the drivers;  ``errors``: ``classify``
=============  ====================================================================================
"""

from __future__ import annotations

from gearshift.capabilities import Durability
from gearshift.driver import DRIVER_API, BackendPlugin, BaseChannelSettings
from gearshift.driver.plugin import hookimpl
from gearshift.embedded.capabilities import declared
from gearshift.embedded.sqlite.backend import Backend
from gearshift.embedded.sqlite.raw_client import raw_client
from gearshift.embedded.sqlite.settings import Settings
from gearshift.message import Semantics

__all__ = ["Backend", "Settings", "gearshift_backend"]


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin behind ``backend = "sqlite"``."""
    return BackendPlugin(
        name="sqlite",
        driver_api=DRIVER_API,
        summary="one durable file shared by the processes of one machine; no broker",
        settings=Settings,
        channel_settings=BaseChannelSettings,
        capabilities=declared(Durability.BROKER_RESTART),
        default_semantics=Semantics.QUEUE,
        connect=Backend,
        url_schemes={"sqlite": lambda url: {"path": url[len("sqlite://") :]}},
        raw_client=raw_client,
    )
