"""Real RabbitMQ, Kafka and Redis on this machine without containers, for tests that break them."""

from __future__ import annotations

from native_brokers.broker import Broker
from native_brokers.errors import BrokerUnavailable
from native_brokers.kafka import Kafka
from native_brokers.rabbitmq import RabbitMQ, RabbitMQ4
from native_brokers.redis import Redis

__all__ = ["Broker", "BrokerUnavailable", "Kafka", "RabbitMQ", "RabbitMQ4", "Redis"]
