"""Messages <-> AMQP: encoding, decoding, and what a foreign message keeps on its way."""
