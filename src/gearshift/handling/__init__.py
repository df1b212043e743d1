"""What happens to a message besides being handled: one concern a module, none of a broker's."""
