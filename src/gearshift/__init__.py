"""One Producer/Consumer interface over message brokers; the broker is a line of configuration.

::

    import gearshift

    with gearshift.open() as bus:
        with bus.producer("orders") as orders:
            orders.send({"task": "process_order", "order_id": 123}, key="ada")
        with bus.consumer("orders") as consumer:
            for delivery in consumer.iterate(idle_timeout_s=1.0):
                print("processing", delivery.value["order_id"])
                delivery.ack()
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gearshift import errors
    from gearshift.bus import Bus
    from gearshift.bus import open_bus as open
    from gearshift.capabilities import Capabilities
    from gearshift.config import Config
    from gearshift.consumer import Consumer
    from gearshift.delivery import Delivery
    from gearshift.driver import GroupStatus, Start
    from gearshift.errors import GearshiftError, SendFailed
    from gearshift.message import Headers, Message, Position, Receipt, Semantics
    from gearshift.producer import Producer
    from gearshift.rehearsal import rehearsing
    from gearshift.worker.app import App
    from gearshift.worker.dispatch import BatchFailed, Reject, Retry
    from gearshift.worker.worker import Worker

__all__ = [
    "App",
    "BatchFailed",
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
    "Worker",
    "errors",
    "open",
    "rehearsing",
]

__version__ = "0.1.0"

#: Module → the public names in it. Imported when first used: a program that only has ``gearshift``
#: in its imports, such as the command line's help, does not pay for a broker.
_NAMES = {
    "bus": ("Bus",),
    "capabilities": ("Capabilities",),
    "config": ("Config",),
    "consumer": ("Consumer",),
    "delivery": ("Delivery",),
    "driver": ("GroupStatus", "Start"),
    "errors": ("GearshiftError", "SendFailed"),
    "message": ("Headers", "Message", "Position", "Receipt", "Semantics"),
    "producer": ("Producer",),
    "rehearsal": ("rehearsing",),
    "worker.app": ("App",),
    "worker.dispatch": ("BatchFailed", "Reject", "Retry"),
    "worker.worker": ("Worker",),
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return _import_module("gearshift.errors")
    if name == "open":
        return _import_module("gearshift.bus").open_bus
    for module, names in _NAMES.items():
        if name in names:
            value: object = getattr(_import_module(f"gearshift.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'gearshift' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
