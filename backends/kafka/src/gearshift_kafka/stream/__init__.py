"""Streams on Kafka: consumer groups, and readers without a group."""
