"""Queue semantics on RabbitMQ: quorum queues, retries, and what was lost with a consumer."""
