"""The kit on the embedded backends."""

from conformance.conftest import on_embedded

gearshift_backend = on_embedded()
