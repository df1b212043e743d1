"""The hooks that a plugin implements: it marks its functions with ``hookimpl``."""

from __future__ import annotations

import pluggy

from gearshift.driver.contract import BackendPlugin

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "gearshift"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def gearshift_backend() -> BackendPlugin:
    """The backend that this plugin's entry point names. Must not do any I/O."""
    raise NotImplementedError
