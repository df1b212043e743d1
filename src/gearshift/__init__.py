"""One Producer/Consumer interface over message brokers."""
