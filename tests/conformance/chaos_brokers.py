"""The kit on real brokers under chaos; `make conformance` names this file."""

import pytest
from conformance.conftest import SERVERS, on_servers
from conformance.misfortunes import test_what_chaos_does_is_declared, under_chaos

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

gearshift_backend = on_servers(SERVERS, under_chaos)

__all__ = ["gearshift_backend", "test_what_chaos_does_is_declared"]
