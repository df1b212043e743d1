"""Gearshift for asyncio: the same objects, whose methods are awaited.

::

    async with aio.open() as bus, bus.producer("orders") as orders:
        await orders.send({"order_id": 123}, key="ada")
        async with bus.consumer("orders") as consumer:
            async for delivery in consumer:
                await delivery.ack()

It is a thin face of the same machinery: no thread waits for a call, and what a broker's client
reports wakes the event loop once for each burst. An object belongs to the event loop on which it
was made; there may be several, in several threads. A loop that stands still for a while loses
nothing, as other threads keep connections, leases and memberships alive.
"""

from gearshift.aio.bus import Bus, open_bus
from gearshift.aio.consumer import Consumer
from gearshift.aio.delivery import Delivery
from gearshift.aio.producer import Producer

open = open_bus

__all__ = ["Bus", "Consumer", "Delivery", "Producer", "open"]
