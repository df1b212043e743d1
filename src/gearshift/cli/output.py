"""Printing results: tables for people, JSON for programs. No escape codes outside a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import rich_click as click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "NewFile",
    "Record",
    "cell",
    "emit",
    "is_plain",
    "json_line",
    "new_table",
    "output_option",
    "printable",
    "show",
    "terminal",
]

Record: TypeAlias = Mapping[str, object]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: Width of a table in a file or pipe: nothing is cut off or wrapped there.
_UNBOUNDED = 10_000


def output_option(command: Decorated, *, more: Sequence[str] = ()) -> Decorated:
    """Add -o/--output, which becomes the argument ``output``; ``more`` are further forms."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "jsonl", *more]),
        default="table",
        show_default=True,
        help="Form of the result.",
    )(command)


class NewFile(click.Path):
    """A file to be written at the end: refused at the start if its folder will not take it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises BadParameter."""
        path = Path(str(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"there is no folder {str(path.parent)!r}", param, ctx)
        if not os.access(path.parent, os.W_OK):
            self.fail(f"the folder {str(path.parent)!r} is not writable", param, ctx)
        return path


def emit(
    data: Sequence[Record] | Record, output: str, table: Callable[[], RenderableType | None]
) -> None:
    """Print ``data`` as JSON or as ``table``, whichever ``output`` says.

    ``table`` may print by itself, and then returns None.
    """
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2))
    elif output == "jsonl":
        for record in [data] if isinstance(data, Mapping) else data:
            click.echo(json_line(record))
    elif (shown := table()) is not None:
        show(shown)


def json_line(record: Record) -> str:
    """``record`` as JSON on one line, escaped as far as a terminal could take it for commands."""
    import json

    import msgspec

    text = msgspec.json.encode(record, enc_hook=str).decode()
    return text if text.isprintable() else json.dumps(json.loads(text), separators=(",", ":"))


def new_table(
    *columns: str, right: Iterable[str] = (), rows: Iterable[Iterable[object]] = ()
) -> Table:
    """A table without lines; the columns named in ``right`` hold numbers, which are not broken.

    What is not a cell in ``rows`` becomes one.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        is_number = column in right
        table.add_column(
            column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    for row in rows:
        table.add_row(*(one if isinstance(one, Text) else cell(one) for one in row))
    return table


def cell(value: object, style: str = "") -> Text:
    """A table's cell: None is ``n/a``, and what a terminal might obey is escaped, as are bytes."""
    from rich.text import Text

    if value is None:
        return Text("n/a", style="dim")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return Text(printable(text.replace("\n", "\\n")), style=style)


def printable(text: str) -> str:
    """``text`` with whatever a terminal might obey escaped, line ends left as they are."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def show(item: RenderableType) -> None:
    """Print a table or text on stdout; without trailing spaces."""
    console = _console(sys.stdout.isatty())
    with console.capture() as capture:
        console.print(item)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def terminal(*, stderr: bool = False) -> Console:
    """A console for live output; only for a terminal."""
    from rich.console import Console

    return Console(stderr=stderr, color_system=None if is_plain() else "auto", highlight=False)


def is_plain() -> bool:
    """True if NO_COLOR is set, as rich reads it: then no escape codes at all."""
    return bool(os.environ.get("NO_COLOR"))


def _console(is_terminal: bool) -> Console:
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        force_terminal=is_terminal,
        color_system="auto" if is_terminal and not is_plain() else None,
        width=None if is_terminal else _UNBOUNDED,
        highlight=False,
    )
