"""The hooks a plugin implements. ``from gearshift.hookspecs import hookimpl`` is all it needs."""

from __future__ import annotations

import pluggy

from gearshift.driver import BackendPlugin

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "gearshift"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def gearshift_backend() -> BackendPlugin:
    """The backend that this plugin's entry point names. Must not do any I/O."""
    raise NotImplementedError
