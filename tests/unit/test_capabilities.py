"""Capabilities: a closed vocabulary, levels in order, and requirements that a file can state."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from gearshift.capabilities import (
    Capabilities,
    Durability,
    Known,
    Lease,
    Members,
    Order,
    Prefetch,
    Requirement,
)
from gearshift.errors import ConfigError

OPERATIONS = [f.name for f in dataclasses.fields(Capabilities) if f.type == "bool"]
GUARANTEES = {
    "order": Order,
    "redelivered": Known,
    "attempt": Known,
    "prefetch": Prefetch,
    "durability": Durability,
    "lease": Lease,
    "members": Members,
}


def declared(**changes: Any) -> Capabilities:
    """Everything true and every guarantee at its strongest, but for ``changes``."""
    values: dict[str, Any] = dict.fromkeys(OPERATIONS, True)
    values |= {name: list(levels)[-1] for name, levels in GUARANTEES.items()}
    return Capabilities(**(values | {"max_message_bytes": 1024} | changes))


def test_every_field_is_an_operation_a_guarantee_or_a_limit() -> None:
    names = {field.name for field in dataclasses.fields(Capabilities)}
    assert names == {*OPERATIONS, *GUARANTEES, "max_message_bytes"}


def test_a_backend_that_says_nothing_about_a_capability_does_not_load() -> None:
    whole = declared()
    values = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    for name in values:
        with pytest.raises(TypeError, match=name):
            Capabilities(**{key: value for key, value in values.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order", "key"),
        ("replay", 1),
        ("replay", None),
        ("members", True),
        ("max_message_bytes", 1.5),
    ],
)
def test_a_value_of_another_type_does_not_load(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        declared(**{name: value})


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_satisfies_its_requirement_only_if_true(name: str) -> None:
    requirement = Requirement.parse(name)
    assert str(requirement) == name
    assert declared().satisfies(requirement)
    assert not declared(**{name: False}).satisfies(requirement)


@pytest.mark.parametrize(
    ("name", "levels"), GUARANTEES.items(), ids=lambda value: getattr(value, "__name__", value)
)
def test_a_guarantee_is_satisfied_by_its_level_and_every_stronger_one(
    name: str, levels: Any
) -> None:
    members = list(levels)
    for wanted in members:
        requirement = Requirement.parse(f"{name}={wanted.value}")
        assert str(requirement) == f"{name}={wanted.value}"
        for given in members:
            stronger = members.index(given) >= members.index(wanted)
            assert declared(**{name: given}).satisfies(requirement) is stronger


@pytest.mark.parametrize(("name", "levels"), GUARANTEES.items(), ids=str)
def test_a_guarantee_without_a_level_asks_for_more_than_the_weakest(name: str, levels: Any) -> None:
    assert Requirement.parse(name).level is list(levels)[1]


@pytest.mark.parametrize(
    "text",
    ["", "=", "replays", "order ", "max_message_bytes", "replay=true", "replay=", "=key", "name"],
)
def test_an_unknown_capability_is_refused_with_the_vocabulary(text: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown capability {re.escape(repr(text))}") as caught:
        Requirement.parse(text)
    assert "dead_letter" in str(caught.value)
    assert "order=single_consumer|key" in str(caught.value)
    assert "max_message_bytes" not in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["order=", "order=keys", "order=KEY", "order=key=key"])
def test_an_unknown_level_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(ConfigError, match="unknown level") as caught:
        Requirement.parse(text)
    assert caught.value.hint == "one of none, single_consumer, key"


def test_as_dict_gives_plain_values() -> None:
    plain = declared(order=Order.KEY).as_dict()
    assert plain["order"] == "key"
    assert plain["replay"] is True
    assert plain["max_message_bytes"] == 1024
    assert len(plain) == len(dataclasses.fields(Capabilities))
