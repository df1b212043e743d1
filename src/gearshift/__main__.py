"""The ``gearshift`` command, also where its libraries are missing."""

from __future__ import annotations

import sys
from typing import NoReturn

from gearshift.errors import MissingExtra
from gearshift.exit_codes import WRONG_SETTINGS
from gearshift.extras import importing

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and end the process."""
    try:
        with importing("cli"):
            from gearshift.cli import cli
    except MissingExtra as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(WRONG_SETTINGS)
    cli()
    raise AssertionError("a command ends the process")


if __name__ == "__main__":
    main()
