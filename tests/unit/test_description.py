"""Settings are described by the text below their fields."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from gearshift import plugins
from gearshift.config import ChannelSettings
from gearshift.config.description import Description, describe, described


class Basis(msgspec.Struct):
    ca_file: str | None = None
    """Whom to trust."""


class Inner(msgspec.Struct, frozen=True):
    batch: int = 5
    """How many."""


class Example(Basis):
    host: str = msgspec.field(default_factory=lambda: "here")
    """Where it is.

    Near is better.

    Broker: ``bootstrap``,
    ``servers``.
    """

    mode: Literal["a", "b"] = "a"
    native: Inner = Inner()


class Required(msgspec.Struct):
    name: str


def test_a_setting_has_type_default_effect_and_the_brokers_name() -> None:
    """Inherited ones too, those of a table inside under its name, and those without a text."""
    assert describe(Example) == [
        Description("ca_file", "a text in quotes", "none", "Whom to trust.", ""),
        Description(
            "host", "a text in quotes", '"here"', "Where it is.\n\nNear is better.",
            "``bootstrap``, ``servers``",
        ),
        Description("mode", "one of 'a', 'b'", '"a"', "", ""),
        Description("native.batch", "a whole number", "5", "How many.", ""),
    ]  # fmt: skip
    assert describe(Required) == [Description("name", "a text in quotes", "", "", "")]


@pytest.mark.parametrize("backend", [None, *(entry.name for entry in plugins.available())])
def test_every_setting_says_what_it_does(backend: str | None) -> None:
    """Of channels and of each installed backend."""
    found = [one for _, table in described(backend) for one in table]
    assert found
    assert [one.name for one in found if not one.effect.endswith(".")] == []


def test_those_of_channels_are_all_there() -> None:
    """In the order of the fields."""
    assert [one.name for one in describe(ChannelSettings)] == list(
        ChannelSettings.__struct_fields__
    )
