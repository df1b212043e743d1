"""The RabbitMQ backend of Gearshift."""
