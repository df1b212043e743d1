"""Hooks: what plugins add around sending, receiving, handling and settling.

A plugin is a module or an object whose functions are marked with ``hookimpl`` and called like one
of ``gearshift.hooks.specs``. An application's own are given to ``gearshift.open(plugins=[...])`` or
``gearshift.App(plugins=[...])``; an installed one is found by its entry point of the group
``gearshift.plugins``.
"""

from gearshift.driver.plugin import hookimpl
from gearshift.hooks.specs import ConnectionEvent, Outgoing

__all__ = ["ConnectionEvent", "Outgoing", "hookimpl"]
