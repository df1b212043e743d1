"""Importing an app or a function that is named ``module:attribute``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from gearshift.errors import GearshiftError, UsageError
from gearshift.worker.app import App

__all__ = ["load_app", "load_function"]


def load_app(target: str) -> App:
    """Import ``module:attribute``, with the current folder on the path. Raises UsageError."""
    app = _imported(target, "orders:app")
    attribute = target.partition(":")[2]
    if not isinstance(app, App):
        found = "nothing" if app is None else f"a {type(app).__name__}"
        raise UsageError(
            f"{target!r} is {found}, not a gearshift.App",
            hint=f"write {attribute} = gearshift.App()",
        )
    if not app.handlers:
        raise UsageError(
            f"{target!r} has no handlers", hint="decorate a function with @app.handler"
        )
    return app


def load_function(target: str) -> Callable[..., Any]:
    """Import the function ``module:function`` as ``load_app`` does. Raises UsageError."""
    function = _imported(target, "orders:bill")
    if not callable(function):
        raise UsageError(f"{target!r} is not a function", hint="name one that takes a message")
    return cast(Callable[..., Any], function)


def _imported(target: str, example: str) -> object:
    """Import the object ``module:attribute``; None if the module has no such attribute."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(f"{target!r} is not module:attribute", hint=f"for example {example}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _not_importable(module_name, error) from error
        raise UsageError(
            f"there is no module {module_name!r}", hint="run from its folder, or install it"
        ) from error
    except GearshiftError:
        raise
    except (Exception, SystemExit) as error:
        raise _not_importable(module_name, error) from error
    return getattr(module, attribute, None)


def _not_importable(module_name: str, error: BaseException) -> UsageError:
    """Make one error of ``error``, with the line of the user's own code that raised it."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not _is_installed(Path(frame.filename))
    ]
    place = f"{own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return UsageError(
        f"{module_name!r} cannot be imported: {type(error).__name__}: {what}",
        hint=f"see {place}" if place else None,
    )


def _is_installed(file: Path) -> bool:
    """True for code of Python's, of an installed package or of this module."""
    library = Path(os.__file__).parent
    return "site-packages" in file.parts or file.is_relative_to(library) or file == Path(__file__)
