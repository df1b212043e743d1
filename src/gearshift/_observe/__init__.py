"""Watching a broker at work, for ``compare`` and ``conformance``: workers, threads, logs."""
