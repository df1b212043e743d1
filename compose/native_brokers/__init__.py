"""Real RabbitMQ, Kafka and Redis on this machine without containers, for tests that break them."""

from __future__ import annotations

from native_brokers.broker import Broker, running_brokers
from native_brokers.errors import BrokerUnavailable, NotInstalled
from native_brokers.kafka import Kafka, Kafka43
from native_brokers.kafka_cluster import KafkaCluster
from native_brokers.postgresql import PostgreSQL
from native_brokers.prometheus import Prometheus
from native_brokers.rabbitmq import RabbitMQ, RabbitMQ40, RabbitMQ43
from native_brokers.rabbitmq_cluster import RabbitMQCluster
from native_brokers.redis import Redis

__all__ = [
    "Broker",
    "BrokerUnavailable",
    "Kafka",
    "Kafka43",
    "KafkaCluster",
    "NotInstalled",
    "PostgreSQL",
    "Prometheus",
    "RabbitMQ",
    "RabbitMQ40",
    "RabbitMQ43",
    "RabbitMQCluster",
    "Redis",
    "running_brokers",
]
