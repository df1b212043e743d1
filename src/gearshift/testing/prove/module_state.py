"""What a process remembers: the variables of the handlers' modules, which its death forgets."""

from __future__ import annotations

import copy
import logging
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

from gearshift.bus import Bus
from gearshift.worker.app import App

__all__ = ["ModuleState"]

#: What two processes may share, or what takes no part in handling messages.
_HARMLESS = (
    FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, App, Bus, logging.Logger,
    threading.local, Path, re.Pattern, date, timedelta, Enum, property, staticmethod,
)  # fmt: skip
_SCALARS = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset)
_CONTAINERS = (list, dict, set, deque, bytearray)


@dataclass(frozen=True, slots=True)
class _Variable:
    """A name, and how its object is read and put back."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], None]


class ModuleState:
    """Plain variables that handlers can reach: of their modules, and of the functions around them.

    Containers, and objects of classes of the same modules, are emptied and filled where they are,
    so that whoever holds them sees it. Connections, clients and locks are left alone; ``clients``
    are their names: each process would have its own.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        self.clients: list[str] = []
        self._variables: list[_Variable] = []
        self._caches: list[Callable[[], None]] = []
        self._modules: set[str] = set()
        self._found: set[int] = set()
        for function in functions:
            self._add(function)
        self._first = self.saved()

    def saved(self) -> dict[int, Any]:
        """A copy of every variable, to be given to ``restore``."""
        found: dict[int, Any] = {}
        for number, variable in enumerate(self._variables):
            try:
                found[number] = copy.deepcopy(variable.get())
            except Exception:  # it holds what cannot be copied, a connection say
                continue
        return found

    def restore(self, saved: dict[int, Any]) -> None:
        """Put back what was saved."""
        for number, value in saved.items():
            _put(self._variables[number], value)

    def begin(self) -> None:
        """As when the program had just started."""
        self.restore(self._first)
        for clear in self._caches:
            clear()

    def forget(self, state: Callable[[], Any] | None) -> list[str]:
        """Forget what dies with the process, and return the names of what changed by that.

        What ``state`` shows is kept: it stands for what outlives the process, such as a table.
        """
        forgotten = []
        now = self.saved()
        for number in now.keys() & self._first.keys():
            variable, before = self._variables[number], _shown(state)
            if variable.get() == self._first[number]:
                continue
            _put(variable, self._first[number])
            if _shown(state) != before:
                _put(variable, now[number])
            else:
                forgotten.append(variable.name)
        for clear in self._caches:
            clear()
        return sorted(forgotten)

    def exchange(self, saved: dict[int, Any], state: Callable[[], Any] | None) -> None:
        """Go on in the process whose memory is ``saved``; what ``state`` shows stays as it is."""
        for number, value in saved.items():
            variable = self._variables[number]
            before = _shown(state)
            now = copy.deepcopy(variable.get())
            _put(variable, value)
            if _shown(state) != before:
                _put(variable, now)

    def outliving(self, state: Callable[[], Any] | None) -> dict[int, Any]:
        """What has changed and outlives the process, for ``restore`` in another one."""
        now = self.saved()
        self.forget(state)
        changed = {
            number: value
            for number, value in self.saved().items()
            if number not in self._first or value != self._first[number]
        }
        self.restore(now)
        return changed

    def _add(self, function: Any) -> None:
        function = getattr(function, "__func__", function)
        function = getattr(function, "__wrapped__", function)
        if not isinstance(function, FunctionType) or id(function) in self._found:
            return
        self._found.add(id(function))
        self._add_module(function.__module__)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            self._add_cell(name, cell)

    def _add_module(self, name: str) -> None:
        if name in self._modules or name not in sys.modules:
            return
        self._modules.add(name)
        names = vars(sys.modules[name])
        for key, value in list(names.items()):
            if not key.startswith("__"):
                put = partial(names.__setitem__, key)
                self._add_variable(key, value, partial(names.get, key), put)

    def _add_cell(self, name: str, cell: CellType) -> None:
        def put(value: Any) -> None:
            cell.cell_contents = value

        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        self._add_variable(name, value, lambda: cell.cell_contents, put)
        self._add(value)

    def _add_variable(
        self, name: str, value: Any, get: Callable[[], Any], put: Callable[[Any], None]
    ) -> None:
        if callable(clear := getattr(value, "cache_clear", None)):
            self._caches.append(clear)
        elif isinstance(value, _CONTAINERS):
            if id(value) not in self._found:
                self._found.add(id(value))
                self._variables.append(_Variable(name, lambda: value, lambda new: None))
        elif isinstance(value, _SCALARS):
            self._variables.append(_Variable(name, get, put))
        elif isinstance(value, _HARMLESS) or type(value).__module__ in ("typing", "__future__"):
            return
        elif type(value).__module__ in self._modules and hasattr(value, "__dict__"):
            if id(value) not in self._found:
                self._found.add(id(value))
                self._variables.append(_Variable(name, lambda: vars(value), lambda new: None))
        elif name not in self.clients:
            self.clients.append(name)


def _shown(state: Callable[[], Any] | None) -> Any:
    """A copy of the state, which may be the very variable that is about to change."""
    return None if state is None else copy.deepcopy(state())


def _put(variable: _Variable, value: Any) -> None:
    """Give the variable a copy of ``value``; a container keeps its identity."""
    there, value = variable.get(), copy.deepcopy(value)
    if isinstance(there, dict | set):
        there.clear()
        there.update(value)
    elif isinstance(there, list | bytearray):
        there[:] = value
    elif isinstance(there, deque):
        there.clear()
        there.extend(value)
    else:
        variable.set(value)
