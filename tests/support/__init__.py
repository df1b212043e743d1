"""What the tests of several folders share: pytest hooks and helpers. Imported as ``support``."""
