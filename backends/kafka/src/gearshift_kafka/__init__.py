"""The Apache Kafka backend of Gearshift."""
