"""The portable layer: what every broker gets, whatever its driver does. Private."""
