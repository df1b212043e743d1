"""``gearshift prove``: an app's handlers against everything that a profile may do to them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift.cli.context import Session, note, with_session
from gearshift.cli.output import NewFile, cell, emit, output_option, show

if TYPE_CHECKING:
    from gearshift.testing.prove import Proof, Story

__all__ = ["command"]

_EXIT_CODES = {"safe": 0, "cannot be said": 1, "not safe": 5}
_COLOURS = {"safe": "bold green", "cannot be said": "bold yellow", "not safe": "bold red"}


@click.command("prove")
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--state", metavar="MODULE:FUNCTION",
    help="Returns what the handlers have done; by default state() beside the app.",
)  # fmt: skip
@click.option(
    "--messages", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="JSON lines to send, with value, channel, key and headers; by default examples().",
)  # fmt: skip
@click.option("--key-field", metavar="NAME", help="Use this field of each value as the key.")
@click.option(
    "--cases", default=500, show_default=True, type=click.IntRange(1, 1_000_000),
    help="To try at most.",
)  # fmt: skip
@click.option(
    "--processes", default=2, show_default=True, type=click.IntRange(1, 1024),
    help="That run the app at once.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Another one tries other cases.")
@click.option(
    "--on-broker", is_flag=True,
    help="Run each story on the profile's broker too, on a channel of its own.",
)  # fmt: skip
@click.option("--junit", type=NewFile(), metavar="FILE", help="Write the result as JUnit's XML.")
@output_option
@with_session
def command(
    session: Session, /, target: str, junit: Path | None, output: str, **request: Any
) -> int:
    """Do to handlers what a profile may do to them, and show what breaks them.

    MODULE:APP is where the App object is. --profile is one of gearshift.toml, or just kafka,
    rabbitmq, redis or sqlite: nothing is connected to, and what handlers send goes nowhere. Beside
    the app stand state(), which returns what the handlers have done, reset(), which begins anew,
    and examples(), a list of messages. What handlers do by themselves, such as a mail, they do.

    The exit code is 0 if it is safe as far as the cases show, 5 if it is not, 1 if that cannot be
    said.
    """
    from gearshift.testing.prove import prove_target
    from gearshift.testing.prove.junit import junit as as_junit

    proof = prove_target(target, profile=session.profile, config=session.config_path, **request)
    if junit is not None:
        junit.write_bytes(as_junit(proof, target))
        note(f"written to {junit}")
    emit({**asdict(proof), "sentence": proof.sentence}, output, lambda: _show(proof))
    return _EXIT_CODES[proof.verdict]


def _show(proof: Proof) -> None:
    show(cell(proof.sentence, _COLOURS[proof.verdict]))
    for story in proof.stories:
        show("")
        _show_story(story)
    if proof.note:
        show("")
        show(cell(proof.note, "yellow"))


def _show_story(story: Story) -> None:
    show(cell(f"{story.rule}: {story.because}", "bold"))
    for message in story.messages:
        show(cell(f"  sent {message}"))
    for line in story.lines:
        show(cell(f"  {line}", "red" if line.startswith("  !") else ""))
    show(cell(f"  undisturbed  {story.expected}", "green"))
    show(cell(f"  now          {story.found}", "red"))
    show(cell(f"  what helps   {story.help}", "cyan"))
    if story.on_broker:
        show(cell(f"  on the broker: {story.on_broker}", "bold"))
