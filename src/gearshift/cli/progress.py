"""Live progress: a bar on a terminal's stderr, a line per step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gearshift.cli.context import note
from gearshift.cli.output import terminal

__all__ = ["progress_bar"]


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = terminal(stderr=True)
    look = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*look, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting")
        noted = -1

        def tell(what: str, done: int, of: int) -> None:
            nonlocal noted
            bar.update(task, description=what.replace("_", " "), completed=done, total=of)
            if not console.is_terminal and noted < done < of:
                noted = done
                note(f"{done + 1}/{of} {what.replace('_', ' ')}")

        yield tell
