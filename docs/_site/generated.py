"""Directives that write the reference from the code, so that it cannot fall behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from gearshift import plugins
from gearshift.cli import COMMANDS, cli, load_command
from gearshift.config.description import Description, described

#: Where the list of decisions is, to which the decisions are attached.
_DECISIONS = "design/README"
_ATTACHED = "\n\n```{toctree}\n:hidden:\n:glob:\n[0-9]*\n```\n"


class Settings(Directive):
    """``{gearshift-settings} [BACKEND]``: each setting with type, default, effect, counterpart."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        found = described(self.arguments[0] if self.arguments else None)
        return [node for table, settings in found for node in _settings(table, settings)]


def _settings(name: str, settings: Sequence[Description]) -> list[nodes.Node]:
    title = nodes.rubric("", "", nodes.literal(text=f"[{name}]"))
    if not settings:
        return [title, nodes.paragraph(text="Nothing can be set here.")]
    broker = any(setting.broker for setting in settings)
    heads = ["setting", "type, default", "effect"] + ["the broker's"] * broker
    return [title, table_of(heads, (_setting(one)[: len(heads)] for one in settings))]


def _setting(one: Description) -> list[list[nodes.Node]]:
    kind = re.sub(r"\ban? ", "", one.type).replace(" in quotes", "").replace("'", '"')
    default = f"``{one.default}``" if one.default else "has to be given"
    return [
        [nodes.paragraph("", "", nodes.literal(text=one.name))],
        paragraphs(kind if one.default == "none" else f"{kind}, {default}"),
        paragraphs(one.effect),
        paragraphs(one.broker),
    ]


class Commands(Directive):
    """``{gearshift-commands}``: every command from its help, in the panels' order."""

    def run(self) -> list[nodes.Node]:
        shared = {param.name for param in cli.params}
        sections = [
            _command(f"gearshift {path}", command, shared)
            for names in COMMANDS.values()
            for name in names
            for path, command in _walk(name, load_command(name))
        ]
        return [table_of(["option of every command", "effect"], _options(cli, set())), *sections]


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _walk(f"{path} {name}", inner)
    else:
        yield path, command


def _command(path: str, command: click.Command, shared: set[str | None]) -> nodes.section:
    title = nodes.title("", "", nodes.literal(text=path))
    usage = command.collect_usage_pieces(click.Context(command, info_name=path))
    section = nodes.section("", title, ids=[path.replace(" ", "-")], names=[path])
    section += paragraphs(f"``{' '.join([path, *usage])}``")
    section += paragraphs(_without_markup(command.help or ""))
    if rows := list(_options(command, shared)):
        section += table_of(["option", "effect"], rows)
    return section


def _without_markup(text: str) -> str:
    """Rich's bold is for commands."""
    text = text.replace("``", "").replace("\b", "")
    return re.sub(r"\[bold\](.*?)\[/bold\]", r"``\1``", text, flags=re.DOTALL)


def _options(command: click.Command, known: set[str | None]) -> Iterator[list[list[nodes.Node]]]:
    context = click.Context(command)
    for param in command.params:
        name, effect = param.get_help_record(context) or ("", "")
        is_named = effect or isinstance(param, click.Option)  # the usage names arguments
        if name and is_named and param.name not in known | {"help"}:
            yield [paragraphs(f"``{name}``"), paragraphs(_without_markup(effect))]


class Capabilities(Directive):
    """``{gearshift-capabilities}``: what each installed backend declares for each semantics."""

    def run(self) -> list[nodes.Node]:
        able = {
            f"{status.name} {semantics}": capabilities.as_dict()
            for status in plugins.describe()
            if status.plugin
            for semantics, capabilities in status.plugin.capabilities.items()
        }
        rows = (
            [paragraphs(f"``{name}``"), *(paragraphs(_word(one[name])) for one in able.values())]
            for name in next(iter(able.values()))
        )
        return [table_of(["", *able], rows)]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("_", " ")


def paragraphs(text: str) -> list[nodes.Node]:
    """Paragraphs of a docstring, in which code stands between pairs of backticks."""
    return [
        nodes.paragraph("", "", *_inline(" ".join(paragraph.split())))
        for paragraph in text.split("\n\n")
    ]


def _inline(text: str) -> Iterator[nodes.Node]:
    for index, part in enumerate(text.split("``")):
        if part:
            yield nodes.literal(text=part) if index % 2 else nodes.Text(part)


def table_of(heads: Sequence[str], rows: Iterable[Sequence[Sequence[nodes.Node]]]) -> nodes.table:
    """A table of cells."""
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=1) for _ in heads]
    head = nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in heads))
    body = [nodes.row("", *(nodes.entry("", *cell) for cell in row)) for row in rows]
    group += [nodes.thead("", head), nodes.tbody("", *body)]
    return nodes.table("", group, classes=["colwidths-auto"])


def _attach_decisions(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] += _ATTACHED if page == _DECISIONS else ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    directives: dict[str, Callable[..., Directive]] = {
        "gearshift-settings": Settings,
        "gearshift-commands": Commands,
        "gearshift-capabilities": Capabilities,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    app.connect("source-read", _attach_decisions)
    return {"parallel_read_safe": True}
