"""Stream semantics on RabbitMQ's stream queues: partitions, positions, members, owners."""
