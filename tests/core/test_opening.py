"""``gearshift.open``: what it takes, and what it says about anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gearshift
from gearshift.config import load
from gearshift.errors import ConfigError, UnknownGroup, UsageError

MEMORY = {"profiles": {"p": {"backend": "memory"}}, "channels": {"orders": {"groups": ["a"]}}}


@pytest.mark.parametrize(
    ("url", "backend", "endpoints"),
    [
        ("amqp://app:secret@h/%2F", "rabbitmq", [("h", 5672)]),
        ("AMQPS://h:7", "rabbitmq", [("h", 7)]),
        ("kafka://a:1,b:2", "kafka", [("a", 1), ("b", 2)]),
        ("redis://h/1", "redis", [("h", 6379)]),
        ("sqlite://shop.db", "sqlite", []),
        ("memory://", "memory", []),
    ],
)
def test_a_brokers_url(url: str, backend: str, endpoints: list[tuple[str, int]]) -> None:
    """Its scheme tells the backend; no file is needed."""
    with gearshift.open(url) as bus:
        assert (bus.backend, list(bus.endpoints())) == (backend, endpoints)


def test_a_url_wins_over_files_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is named in the call is what is opened."""
    (tmp_path / "gearshift.toml").write_text('[profiles.p]\nbackend = "sqlite"\n')
    monkeypatch.setenv("GEARSHIFT_PROFILE", "p")
    with gearshift.open("memory://") as bus:
        assert bus.backend == "memory"


def test_a_path_in_a_url_is_the_path_of_the_file(tmp_path: Path) -> None:
    """Absolute after three slashes, as in any URL."""
    with gearshift.open(f"sqlite://{tmp_path}/deep/shop.db") as bus:
        bus.producer("orders").send(1)
    assert (tmp_path / "deep" / "shop.db").exists()


@pytest.mark.parametrize(
    "open_", [lambda: gearshift.open(MEMORY), lambda: gearshift.open(settings=MEMORY),
              lambda: gearshift.open(load(settings=MEMORY)),
              lambda: gearshift.open(config=gearshift.Config.from_mapping(MEMORY)),
              lambda: gearshift.open(config=load(settings=MEMORY))],
    ids=["mapping", "settings", "Config", "from_mapping", "config"],
)  # fmt: skip
def test_settings_from_python(open_: Callable[[], gearshift.Bus]) -> None:
    """A mapping of the form of the file, or what ``load`` made of it; it is not changed."""
    before = repr(MEMORY)
    with open_() as bus:
        bus.producer("orders").send(1)
        assert next(iter(bus.consumer("orders", group="a"))).value == 1
    assert repr(MEMORY) == before


def test_a_mapping_is_checked_as_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuples and paths go, ``${VAR}`` is replaced, and what is wrong is named."""
    monkeypatch.setenv("NAME", "shop")
    profile = {"backend": "sqlite", "path": "${NAME}.db"}
    with gearshift.open({"profiles": {"p": profile}, "channels": {"c": {"groups": ("a",)}}}) as bus:
        bus.producer("c")
    assert (tmp_path / "shop.db").exists()
    with gearshift.open({"profiles": {"p": profile | {"path": tmp_path / "other.db"}}}) as bus:
        bus.producer("c")
    assert (tmp_path / "other.db").exists()
    for wrong, says in (
        ({"profiles": {"p": profile | {"pat": "x"}}}, "settings: profiles.p.pat"),
        ({"backend": "sqlite"}, "unknown section 'backend'"),
        ({"profiles": {1: profile}}, "a key is int"),
    ):
        with pytest.raises(ConfigError, match=says):
            gearshift.open(wrong)
    loop: dict[str, Any] = {}
    loop["profiles"] = loop
    with pytest.raises(ConfigError, match="nested"):
        gearshift.open(loop)


def test_a_profile_is_no_file() -> None:
    """The error of a file that is not there says how a profile is chosen."""
    with pytest.raises(ConfigError, match=r"open\(profile=\"kafka\"\)"):
        gearshift.open("kafka")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: gearshift.open("nats://app:canary@h"),
            r"no installed backend .* 'nats'.*amqp://.*memory://.*pip install gearshift-",
        ),
        (lambda: gearshift.open(settings=[]), "settings is a mapping, not list"),  # type: ignore[arg-type]
        (lambda: gearshift.open(settings="a.toml"), "not str"),  # type: ignore[arg-type]
        (lambda: gearshift.open(config=MEMORY), "from_mapping"),  # type: ignore[arg-type]
        (lambda: gearshift.Config.from_mapping(7), "not int"),  # type: ignore[arg-type]
        (lambda: gearshift.Config.from_mapping({"profile_": "x"}), "did you mean 'profile'"),
        (lambda: gearshift.Config.from_mapping(MEMORY, profile="q"), "unknown profile 'q'"),
        (lambda: load("a.toml", settings=MEMORY), "exclude"),
        (lambda: gearshift.open(42), "not int"),  # type: ignore[arg-type]
        (lambda: gearshift.open("a.toml", settings=MEMORY), "one of"),
        (lambda: gearshift.open("memory://", profile="p"), "has its profile"),
        (lambda: gearshift.open(config=load(settings=MEMORY), profile="p"), "has its profile"),
    ],
)
def test_what_cannot_be_opened(call: Callable[[], object], says: str) -> None:
    """An error of ours that says what goes, and shows no password."""
    with pytest.raises((ConfigError, UsageError), match=says) as caught:
        call()
    assert "canary" not in str(caught.value)


def test_where_groups_are_listed_a_consumer_is_told_to_name_one() -> None:
    """Else the first thing that a newcomer sees is an error without a way on."""
    with gearshift.open(MEMORY) as bus, pytest.raises(UnknownGroup, match='group="a"'):
        bus.consumer("orders")
