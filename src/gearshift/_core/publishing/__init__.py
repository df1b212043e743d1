"""From ``send`` to a confirmed receipt."""
