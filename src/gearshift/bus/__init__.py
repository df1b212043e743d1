"""An open broker: what is configured, what exists, what is open."""

from gearshift.bus.bus import Bus
from gearshift.bus.opening import open_bus

__all__ = ["Bus", "open_bus"]
