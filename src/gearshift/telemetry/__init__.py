"""What operators watch: metrics for Prometheus, and whether a process does its work.

==============  ===================================================================================
``metrics``     the table of all metrics; ``depths`` asks the broker for what only it knows
``prometheus``  the metrics, as a collector for a registry; needs ``gearshift[prometheus]``
``otel``        the metrics for OpenTelemetry: a plugin; needs ``gearshift[otel]``
``tracing``     spans for OpenTelemetry: a plugin; needs ``gearshift[otel]``
``health``      what is wrong with a bus, in sentences; nothing if it consumes and gets on
``server``      both over HTTP: ``/metrics`` and ``/healthz``; ``gearshift run --metrics`` uses it
==============  ===================================================================================

Metrics and health read ``Bus.stats``, which costs next to nothing whether or not anybody looks.
"""
