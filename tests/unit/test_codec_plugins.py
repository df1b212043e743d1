"""Codecs of other distributions: listed without import, loaded by name, refused in words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import take

import gearshift
from gearshift import codecs
from gearshift._core.entry_points import installed
from gearshift.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    PluginConflict,
    PluginError,
    PluginImportError,
)

ROT13 = """
import codecs

class Rot13:
    def encode(self, value):
        if value == "refused":
            raise ValueError("not this one")
        return codecs.encode(value, "rot13").encode(), "text/x-rot13"

    def decode(self, body, content_type, target):
        return codecs.decode(body.decode(), "rot13")

codec = Rot13()
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with one codec on ``sys.path``."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(
        name: str, code: str = ROT13, *, distribution: str = "acme", item: str = "codec"
    ) -> None:
        module = f"{distribution}_codec"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[gearshift.codecs]\n{name} = {module}:{item}\n")

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_codec_is_listed_without_import(install: Install) -> None:
    """Its name and distribution come from metadata."""
    install("rot13")
    assert [(e.name, str(e)) for e in installed(codecs.GROUP)] == [("rot13", "acme 1.0")]
    assert "acme_codec" not in sys.modules


def test_a_channel_uses_it(install: Install, tmp_path: Path) -> None:
    """By the name in configuration, both ways; what it cannot encode is refused as ours are."""
    install("rot13")
    (tmp_path / "gearshift.toml").write_text(
        '[profiles.p]\nbackend = "memory"\n[channels.orders]\ncodec = "rot13"\n'
    )
    with (
        gearshift.open() as bus,
        bus.producer("orders") as producer,
        bus.consumer("orders") as inbox,
    ):
        producer.send("hello")
        (delivery,) = take(inbox, 1)
        assert (delivery.body, delivery.value) == (b"uryyb", "hello")
        assert delivery.message.content_type == "text/x-rot13"
        delivery.ack()
        with pytest.raises(EncodeError, match="codec 'rot13' cannot encode str: not this one"):
            producer.send("refused")


def test_its_faults_are_ours(install: Install) -> None:
    """A body that it chokes on is a DecodeError: in a handler, that is a dead letter."""
    install("rot13")
    with pytest.raises(DecodeError, match="codec 'rot13' cannot decode") as caught:
        codecs.codec_named("rot13").decode(b"\xff", None, str)
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


def test_an_unknown_codec_is_refused_at_open(install: Install, tmp_path: Path) -> None:
    """With file and line, the near miss, and all that there are."""
    install("rot13")
    (tmp_path / "gearshift.toml").write_text(
        '[profiles.p]\nbackend = "memory"\n[channels.orders]\ncodec = "rot31"\n'
    )
    with pytest.raises(ConfigError) as caught:
        gearshift.open()
    assert str(caught.value) == (
        "gearshift.toml:4: channels.orders.codec = \"rot31\": unknown codec 'rot31' "
        "(hint: did you mean 'rot13'? Known: auto, bytes, text, json, rot13)"
    )


def test_two_of_one_name(install: Install) -> None:
    """Both distributions are named."""
    install("rot13")
    install("rot13", distribution="other")
    with pytest.raises(PluginConflict, match=r"codec 'rot13' .* acme 1\.0 and by other 1\.0"):
        codecs.codec_named("rot13")


@pytest.mark.parametrize(
    ("code", "item", "error", "words"),
    [
        ("import no_such_module", "codec", PluginImportError, "no_such_module"),
        ("", "codec", PluginImportError, "codec"),
        ("codec = 5", "codec", PluginError, "not an object with the methods"),
        (ROT13, "Rot13", PluginError, "not an object with the methods"),
    ],
)
def test_one_that_cannot_be_used(
    install: Install, code: str, item: str, error: type[PluginError], words: str
) -> None:
    """Its cause is told, and ours still work."""
    install("broken", code, item=item)
    with pytest.raises(error, match=words):
        codecs.codec_named("broken")
    assert codecs.codec_named("json").encode(1) == (b"1", "application/json")
