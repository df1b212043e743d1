"""The whole kit on real RabbitMQ and Kafka, each a broker of its own that is broken for real."""

import pytest
from conformance.conftest import SERVERS, on_servers

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

gearshift_backend = on_servers(SERVERS)
