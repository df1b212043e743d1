"""What operators watch: metrics for Prometheus, and whether a process does its work.

==============  ===================================================================================
``prometheus``  the metrics, as a collector for a registry; needs ``gearshift[prometheus]``
``tracing``     spans and metrics for OpenTelemetry: a plugin; needs ``gearshift[otel]``
``health``      what is wrong with a bus, in sentences; nothing if it consumes and gets on
``server``      both over HTTP: ``/metrics`` and ``/healthz``; ``gearshift run --metrics`` uses it
==============  ===================================================================================

Metrics and health read ``Bus.stats``, which costs next to nothing whether or not anybody looks.
"""
