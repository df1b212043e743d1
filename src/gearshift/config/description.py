"""Settings described: name, type, default, effect. The text is what stands below each field."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import NamedTuple

import msgspec
from msgspec.inspect import Field, StructType

from gearshift import plugins
from gearshift.config.channels import ChannelSettings
from gearshift.config.errors import describe_type, field_types
from gearshift.config.masking import shown
from gearshift.config.model import declared_default

__all__ = ["Description", "describe", "described"]

_BROKER = re.compile(r"\s*^Broker: (.*?)\.?\Z", re.MULTILINE | re.DOTALL)


class Description(NamedTuple):
    """One setting. ``default`` is in TOML's notation, "" where it has to be given.

    ``effect`` is empty where the author wrote no text; ``broker`` names what the broker or its
    client calls it, or is empty.
    """

    name: str
    type: str
    default: str
    effect: str
    broker: str


def described(backend: str | None) -> list[tuple[str, list[Description]]]:
    """Tables and their settings: a channel's, or those of ``backend``'s profiles and native tables.

    Raises what ``plugins.load`` does.
    """
    if backend is None:
        return [("channels.NAME", describe(ChannelSettings))]
    plugin = plugins.load(backend)
    profile = ("profiles.NAME", describe(plugin.settings))
    if plugin.wrap is not None:  # the native table is that of the backend below
        return [profile]
    return [profile, (f"channels.NAME.native.{backend}", describe(plugin.channel_settings))]


def describe(settings: type) -> list[Description]:
    """Each setting of a profile's or a channel's type, in the order of its fields.

    Reads the source of the type; where that is not installed the effects are empty.
    """
    texts = {
        name: text
        for one in reversed(settings.__mro__)
        if issubclass(one, msgspec.Struct) and one is not msgspec.Struct
        for name, text in _texts(one).items()
    }
    return [
        found
        for name, field in field_types(settings).items()
        for found in _of(name, field, texts.get(name, ""))
    ]


def _of(name: str, field: Field, text: str) -> Iterator[Description]:
    """The field itself, or the fields of the table that it is."""
    if isinstance(field.type, StructType):
        for inner in describe(field.type.cls):
            yield inner._replace(name=f"{name}.{inner.name}")
        return
    broker = _BROKER.search(text)
    yield Description(
        name,
        describe_type(field.type),
        "" if field.required else shown(declared_default(field)),
        _BROKER.sub("", text),
        " ".join(broker[1].split()) if broker else "",
    )


@cache
def _texts(settings: type) -> dict[str, str]:
    """The docstring below each field in a class's own source."""
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(settings))).body
    except (OSError, SyntaxError, TypeError):
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }
