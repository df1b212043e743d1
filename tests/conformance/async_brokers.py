"""The whole kit through the async face on real brokers; `make conformance` names this file."""

import pytest
from conformance.async_face import awaited
from conformance.conftest import SERVERS, on_servers

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

gearshift_backend = on_servers(SERVERS, awaited)
