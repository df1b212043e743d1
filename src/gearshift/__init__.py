"""One Producer/Consumer interface over message brokers; the broker is a line of configuration.

::

    import gearshift

    with gearshift.open() as bus:
        with bus.producer("orders") as orders:
            orders.send({"task": "process_order", "order_id": 123}, key="ada")
        with bus.consumer("orders") as inbox:
            for delivery in inbox.iterate(idle_timeout_s=1.0):
                print("processing", delivery.value["order_id"])
                delivery.ack()
"""

import logging as _logging

from gearshift import errors
from gearshift.bus import Bus
from gearshift.bus import open_bus as open
from gearshift.capabilities import Capabilities
from gearshift.config import Config
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import GroupStatus, Start, StartAt
from gearshift.errors import GearshiftError, SendFailed
from gearshift.message import Headers, Message, Position, Receipt, Semantics
from gearshift.producer import Producer
from gearshift.rehearsal import rehearsing
from gearshift.worker.app import App
from gearshift.worker.dispatch import Reject, Retry
from gearshift.worker.worker import Worker

__all__ = [
    "App",
    "Bus",
    "Capabilities",
    "Config",
    "Consumer",
    "Delivery",
    "GearshiftError",
    "GroupStatus",
    "Headers",
    "Message",
    "Position",
    "Producer",
    "Receipt",
    "Reject",
    "Retry",
    "Semantics",
    "SendFailed",
    "Start",
    "StartAt",
    "Worker",
    "errors",
    "open",
    "rehearsing",
]

__version__ = "0.1.0"

_logging.getLogger("gearshift").addHandler(_logging.NullHandler())
