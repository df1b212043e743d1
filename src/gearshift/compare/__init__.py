"""The same seeded workload under several brokers and semantics, with a ledger of every message.

One file, one job: ``ledger`` (what happened), ``findings`` (what it shows), ``analysis`` (from the
one to the other, pure).
"""
