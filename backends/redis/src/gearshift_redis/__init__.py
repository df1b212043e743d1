"""The Redis Streams backend of Gearshift. Loaded through its entry point, ``plugin``."""
