"""The RabbitMQ backend on real brokers: what HAZARDS calls for, one sentence a test."""
