"""Queues on Kafka: share groups (KIP-932), with retries that wait without holding a lock."""
