"""From a driver's messages to settled deliveries."""
