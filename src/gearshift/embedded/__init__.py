"""Two backends without a broker: ``memory`` (one process), ``sqlite`` (one file, many of them).

Both offer both semantics. ``declared`` and ``partitions`` are what they share as facts, ``stream``
is the one LogDriver for both; everything else is a folder per backend (docs/design/0051).
"""
