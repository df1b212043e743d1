"""Running handlers: an app, its processes and threads."""
