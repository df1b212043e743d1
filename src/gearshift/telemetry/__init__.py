"""What operators watch: metrics for Prometheus, and whether a process does its work.

==============  ===================================================================================
``prometheus``  the metrics, as a collector for a registry; needs ``gearshift[prometheus]``
``health``      what is wrong with a bus, in sentences; nothing if it consumes and gets on
``server``      both over HTTP: ``/metrics`` and ``/healthz``; ``gearshift run --metrics`` uses it
==============  ===================================================================================

All of it reads ``Bus.stats``, which costs next to nothing whether or not anybody looks.
"""
