"""The whole kit on releases that `make test` leaves out; `make conformance` names this file."""

import pytest
from conformance.conftest import EARLIER, on_servers

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

gearshift_backend = on_servers(EARLIER)
