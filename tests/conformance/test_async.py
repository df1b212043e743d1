"""The kit through the async face, on the embedded backends; real brokers: ``async_brokers.py``."""

from conformance.async_face import awaited
from conformance.conftest import on_embedded

gearshift_backend = on_embedded(awaited)
