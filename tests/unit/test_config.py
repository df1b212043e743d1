"""Configuration: what wins, what is refused and how, and that no secret ever shows."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from gearshift import config
from gearshift.capabilities import Order, Requirement
from gearshift.config import ChannelSettings, Config
from gearshift.config.document import dotted
from gearshift.config.masking import Redactor, is_secret_key, mask_url, shown
from gearshift.config.overrides import interpret
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.driver.settings import parse_url
from gearshift.errors import ConfigError, UsageError
from gearshift.exit_codes import exit_code
from gearshift.message import Semantics
from gearshift.secret import Secret

Load = Callable[..., Config]


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    verify: bool = True
    versions: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of each sort that a backend's settings have."""

    url: str = "fake://localhost"
    port: int = 1
    wait_s: float = 1.0
    mode: Literal["fast", "safe"] = "safe"
    level: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    servers: list[str] = []
    sasl: Secret | None = None
    data: Path | None = None
    native: dict[str, dict[str, str | int | bool]] = {}
    tls: Tls = Tls()
    either: str | int | None = None

    def __post_init__(self) -> None:
        if self.port == 13:
            raise ValueError("port: 13 brings bad luck")
        if self.wait_s < 0:
            raise ConfigError("wait_s must not be negative", hint="use 0 or more")
        if self.mode == "fast" and self.level > 5:
            raise ValueError("mode and level do not go together")
        if self.either == "crash":
            raise RuntimeError(f"cannot use {self.sasl and self.sasl.reveal()} in {self.url}")
        if self.either == "cut":
            raise ValueError(f"url: {self.url[11:21]!r} is odd")
        parse_url(self.url, schemes={"fake": 1})


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str


class Native(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    topic: str | None = None
    api_key: Secret | None = None


def plugin(name: str = "fake", settings: type = Settings) -> BackendPlugin:
    return BackendPlugin(
        name=name,
        driver_api=DRIVER_API,
        summary="",
        settings=settings,
        channel_settings=Native,
        capabilities={},
        default_semantics=Semantics.QUEUE,
        connect=lambda _: None,  # type: ignore[arg-type, return-value]
    )


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load ``gearshift.toml`` with this text, and this environment, from its own folder."""

    def run(text: str | bytes | None = None, environ: Mapping[str, str] = {}, **how: Any) -> Config:
        if text is not None:
            raw = text if isinstance(text, bytes) else text.encode()
            (tmp_path / "gearshift.toml").write_bytes(raw)
        return config.load(environ=environ, directory=tmp_path, **how)

    return run


def fake(body: str = "") -> str:
    """A file with one profile; ``body`` begins on line 3 of it."""
    return f'[profiles.x]\nbackend = "fake"\n{body}'


def orders(body: str) -> str:
    """A file with one channel; ``body`` begins on line 2 of it."""
    return f"[channels.orders]\n{body}"


# ── Where the file comes from, and what wins ─────────────────────────────────────────────────────


def test_without_a_file_it_is_embedded_sqlite(load: Load, tmp_path: Path) -> None:
    found = load()
    assert (found.profile, found.backend, found.file) == ("embedded", "sqlite", None)
    assert dict(found.channels) == {}

    class Sqlite(msgspec.Struct):
        path: Path

    settings = found.settings_for(plugin("sqlite", Sqlite))
    assert settings.path == tmp_path / ".gearshift" / "gearshift.db"


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "gearshift.toml").write_text(fake())
    assert config.load(environ={}, directory=deep).file == tmp_path / "gearshift.toml"
    (tmp_path / "a" / "gearshift.toml").write_text(fake())
    assert config.load(environ={}, directory=deep).file == tmp_path / "a" / "gearshift.toml"


def test_the_current_directory_and_environment_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gearshift.toml").write_text(fake('[profiles.y]\nbackend = "other"\n'))
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GEARSHIFT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GEARSHIFT_PROFILE", "y")
    assert config.load().backend == "other"


def test_an_argument_beats_the_environment_beats_the_search(load: Load, tmp_path: Path) -> None:
    for name in ("argument", "environment", "gearshift"):
        (tmp_path / f"{name}.toml").write_text(f'[profiles.{name}]\nbackend = "fake"\n')
    environ = {"GEARSHIFT_CONFIG": "environment.toml"}
    assert load(None, environ, path="argument.toml").profile == "argument"
    assert load(None, environ, path=tmp_path / "argument.toml").profile == "argument"
    assert load(None, environ).profile == "environment"
    assert load(None, {"GEARSHIFT_CONFIG": ""}).profile == "gearshift"


TWO = 'profile = "a"\n[profiles.a]\nbackend = "fake"\n[profiles.b]\nbackend = "fake"\n'


@pytest.mark.parametrize(
    ("environ", "argument", "expected", "origin"),
    [
        ({}, None, "a", "gearshift.toml:1"),
        ({"GEARSHIFT_PROFILE": ""}, None, "a", "gearshift.toml:1"),
        ({"GEARSHIFT_PROFILE": "b"}, None, "b", "environment GEARSHIFT_PROFILE"),
        ({"GEARSHIFT_PROFILE": "b"}, "a", "a", "argument"),
        ({"GEARSHIFT_PROFILE": "embedded"}, None, "embedded", "environment GEARSHIFT_PROFILE"),
    ],
)
def test_a_profile_is_selected_by_argument_then_environment_then_file(
    load: Load, environ: dict[str, str], argument: str | None, expected: str, origin: str
) -> None:
    found = load(TWO, environ, profile=argument)
    assert found.profile == expected
    assert found.rows()[0] == ("profile", f'"{expected}"', origin)
    assert {name: p.backend for name, p in found.profiles.items()} == {
        "a": "fake",
        "b": "fake",
        "embedded": "sqlite",
    }


def test_a_file_with_one_profile_means_that_one(load: Load) -> None:
    found = load(fake())
    assert (found.profile, found.profile_origin) == ("x", "only one in gearshift.toml")


def test_a_file_without_profiles_keeps_the_embedded_one(load: Load) -> None:
    found = load(orders("prefetch = 5"))
    assert (found.profile, found.channels["orders"].prefetch) == ("embedded", 5)


def test_a_file_may_begin_with_a_byte_order_mark_and_have_windows_line_ends(load: Load) -> None:
    text = b"\xef\xbb\xbf" + fake("port = 5").replace("\n", "\r\n").encode()
    assert load(text).settings_for(plugin()).port == 5


# ── Settings of a profile ────────────────────────────────────────────────────────────────────────


def test_a_profile_is_converted_to_the_backends_type(load: Load, tmp_path: Path) -> None:
    body = """
url = "fake://h"
wait_s = 5
mode = "fast"
servers = ["a", "b"]
sasl = "s"
data = "d/x.db"
native.producer = { "linger.ms" = 5 }
tls.versions = ["1.3"]
"""
    found = load(fake(body)).settings_for(plugin())
    assert found == Settings(
        url="fake://h",
        wait_s=5.0,
        mode="fast",
        servers=["a", "b"],
        sasl=Secret("s"),
        data=tmp_path / "d" / "x.db",
        native={"producer": {"linger.ms": 5}},
        tls=Tls(versions=("1.3",)),
    )


def test_an_absolute_path_stays(load: Load) -> None:
    assert load(fake("data = '/var/x.db'")).settings_for(plugin()).data == Path("/var/x.db")


def test_settings_for_another_backend_are_refused(load: Load) -> None:
    with pytest.raises(UsageError, match="'fake'"):
        load(fake()).settings_for(plugin("other"))


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("a ${V} b", {"V": "x/y"}, "a x/y b"),
        ("${V}${W}", {"V": "1", "W": "2"}, "12"),
        ("${V}", {"V": ""}, ""),
        ("$V $ {V} }", {}, "$V $ {V} }"),
        ("$${V}", {}, "${V}"),
        ("$${${V}", {"V": "x"}, "${x"),
        ("${V}", {"V": "${W}"}, "${W}"),
        ("${URL}", {"URL": "fake://u:p%2F@h/v"}, "fake://u:p%2F@h/v"),
        ("fake://u:${P}@h/v", {"P": "p/@:%ü"}, "fake://u:p%2F%40%3A%25%C3%BC@h/v"),
        ("fake://${U}:${P}@h", {"U": "a@b", "P": "/"}, "fake://a%40b:%2F@h"),
        ("fake://u@${H}/${V}", {"H": "h:5", "V": "/a"}, "fake://u@h:5/%2Fa"),
        ("fake://${H}", {"H": "h:5"}, "fake://h:5"),
        ("fake://${H}/${V}", {"H": "h:5", "V": "/"}, "fake://h:5/%2F"),
    ],
)
def test_references_are_replaced_and_encoded_where_a_url_needs_it(
    load: Load, written: str, environ: dict[str, str], expected: str
) -> None:
    found = load(fake(f"either = '{written}'"), environ)
    assert found.settings_for(plugin()).either == expected


def test_a_password_with_every_special_character_arrives_as_it_is(load: Load) -> None:
    password = "p/@:%?#[] ü&=+"
    found = load(fake("url = 'fake://u:${P}@h:7/v'"), {"P": password})
    endpoint = parse_url(found.settings_for(plugin()).url, schemes={"fake": 1})
    assert endpoint.password == Secret(password)
    assert (endpoint.username, endpoint.host, endpoint.port) == ("u", "h", 7)


def test_references_work_in_lists_and_inner_tables(load: Load) -> None:
    body = "servers = ['${A}', 'b']\nnative.p = { k = '${A}' }"
    found = load(fake(body), {"A": "1"}).settings_for(plugin())
    assert (found.servers, found.native) == (["1", "b"], {"p": {"k": "1"}})


def test_an_unset_variable_of_another_profile_does_not_matter(load: Load) -> None:
    text = TWO + 'url = "${UNSET}"\n'
    assert load(text).profile == "a"
    with pytest.raises(ConfigError, match="UNSET is not set"):
        load(text, profile="b")


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────


def test_a_channel_is_read_whole(load: Load) -> None:
    found = load(
        """
[channels."orders.v1"]
semantics = "stream"
groups = ["billing", "audit"]
partitions = 12
retention_s = 3600
max_attempts = 3
dead_letter = "graveyard"
requires = ["redelivery", "order=key"]
prefetch = 10
rate_limit = "30/min"
max_processing_s = 5.5
retry_delay_s = 0
retry_max_delay_s = 0
codec = "json"
[channels."orders.v1".native.sqlite]
topic = "t"
"""
    )
    assert found.channels["orders.v1"] == ChannelSettings(
        semantics=Semantics.STREAM,
        groups=("billing", "audit"),
        partitions=12,
        retention_s=3600.0,
        max_attempts=3,
        dead_letter="graveyard",
        requires=(
            Requirement(name="redelivery", level=None),
            Requirement(name="order", level=Order.KEY),
        ),
        prefetch=10,
        rate_limit="30/min",
        max_processing_s=5.5,
        retry_delay_s=0.0,
        retry_max_delay_s=0.0,
        codec="json",
        native={"sqlite": {"topic": "t"}},
    )
    assert found.native_for("orders.v1", plugin("sqlite")) == Native(topic="t")
    assert found.native_for("orders.v1", plugin("other")) == Native()
    assert found.native_for("undeclared", plugin("sqlite")) == Native()


def test_an_undeclared_channel_has_the_defaults(load: Load) -> None:
    assert load().channel("anything") == ChannelSettings()


@pytest.mark.parametrize(
    ("dead_letter", "name"),
    [(None, "orders.dead"), (True, "orders.dead"), (False, None), ("bin", "bin")],
)
def test_the_dead_letter_channel_has_a_default_name(
    dead_letter: str | bool | None, name: str | None
) -> None:
    assert ChannelSettings(dead_letter=dead_letter).dead_letter_name("orders") == name


def test_requirements_may_be_given_as_text_in_code_too() -> None:
    assert ChannelSettings(requires=("replay",)).requires == (
        Requirement(name="replay", level=None),
    )


# ── The environment ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-1_000", -1000),
        ("1.5", 1.5),
        ("true", True),
        ('["a", 1]', ["a", 1]),
        ("{ a = 1 }", {"a": 1}),
        ("", ""),
        ("abc", "abc"),
        ("True", "True"),
        ('"quoted"', '"quoted"'),
        ("007", "007"),
        ("12#34", "12#34"),
        ("1\nb = 2", "1\nb = 2"),
        ("[1", "[1"),
        ("2020-01-01", "2020-01-01"),
        ("[" * 5000, "[" * 5000),
        ("1" * 5000, "1" * 5000),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_is_read_as_toml_if_it_is_a_number_boolean_list_or_table(
    text: str, value: object
) -> None:
    assert interpret(text) == value
    assert type(interpret(text)) is type(value)


def test_a_variable_overrides_the_file_and_the_rows_say_so(load: Load) -> None:
    environ = {
        "GEARSHIFT_CHANNELS__ORDERS__MAX_ATTEMPTS": "7",
        "GEARSHIFT_PROFILES__X__TLS__VERIFY": "false",
    }
    found = load(fake("port = 2\n" + orders("max_attempts = 3")), environ)
    assert found.channels["orders"].max_attempts == 7
    assert found.settings_for(plugin()).tls.verify is False
    rows = {row.key: row for row in found.rows()}
    assert rows["channels.orders.max_attempts"][1:] == (
        "7",
        "environment GEARSHIFT_CHANNELS__ORDERS__MAX_ATTEMPTS",
    )
    assert rows["profiles.x.tls.verify"].origin == "environment GEARSHIFT_PROFILES__X__TLS__VERIFY"
    assert rows["profiles.x.port"].origin == "gearshift.toml:3"


@pytest.mark.parametrize("name", ["Orders.V1-x", "orders_v1_x", "ORDERS-V1-X"])
def test_a_name_matches_whatever_its_case_dots_and_dashes(load: Load, name: str) -> None:
    environ = {"GEARSHIFT_CHANNELS__ORDERS_V1_X__PREFETCH": "7"}
    found = load(f'[channels."{name}"]\n', environ)
    assert found.channels[name].prefetch == 7
    assert list(found.channels) == [name]


def test_variables_alone_can_make_a_profile_and_a_channel(load: Load) -> None:
    environ = {
        "GEARSHIFT_PROFILE": "x",
        "GEARSHIFT_PROFILES__X__BACKEND": "fake",
        "GEARSHIFT_PROFILES__X__SERVERS": '["a"]',
        "GEARSHIFT_CHANNELS__ORDERS__SEMANTICS": "stream",
    }
    found = load(None, environ)
    assert found.settings_for(plugin()).servers == ["a"]
    assert found.channels["orders"].semantics is Semantics.STREAM


def test_the_built_in_profile_can_be_overridden(load: Load) -> None:
    found = load(None, {"GEARSHIFT_PROFILES__EMBEDDED__PATH": "/x.db"})
    rows = {row.key: row for row in found.rows()}
    assert rows["profiles.embedded.path"].value == '"/x.db"'
    assert rows["profiles.embedded.backend"].origin == "default"


@pytest.mark.parametrize("text", ["12345", "true", "1.50", "[1]"])
def test_a_text_that_looks_like_a_number_stays_text_where_text_is_wanted(
    load: Load, text: str
) -> None:
    environ = {"GEARSHIFT_PROFILES__X__SASL": text, "GEARSHIFT_CHANNELS__ORDERS__CODEC": text}
    found = load(fake(), environ)
    assert found.settings_for(plugin()).sasl == Secret(text)
    assert found.channels["orders"].codec == text


def test_a_reference_in_a_variable_is_replaced_like_one_in_the_file(load: Load) -> None:
    environ = {"GEARSHIFT_PROFILES__X__URL": "fake://u:${P}@h", "P": "/"}
    assert load(fake(), environ).settings_for(plugin()).url == "fake://u:%2F@h"


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("GEARSHIFT_PROFIL", "did you mean GEARSHIFT_PROFILE?"),
        ("GEARSHIFT_CHANNEL__ORDERS__PREFETCH", "mean GEARSHIFT_CHANNELS__ORDERS__PREFETCH?"),
        ("GEARSHIFT_PROFILE__X__URL", "did you mean GEARSHIFT_PROFILES__X__URL?"),
        ("GEARSHIFT_COLOUR", "Known are GEARSHIFT_CONFIG"),
        ("GEARSHIFT_", "unknown environment variable"),
        ("GEARSHIFT_CHANNELS", "write GEARSHIFT_CHANNELS__NAME__SETTING"),
        ("GEARSHIFT_CHANNELS__ORDERS", "names no setting"),
        ("GEARSHIFT_CHANNELS____PREFETCH", "names no setting"),
        ("GEARSHIFT_CHANNELS__ORDERS__PREFETCH__X", "channels.orders.prefetch"),
        ("GEARSHIFT_CHANNELS__ORDERS__PREFETCHES", "did you mean 'prefetch'?"),
        ("GEARSHIFT_CHANNELS__ORDERS__SEMANTICS", "one of 'queue', 'stream'"),
        ("GEARSHIFT_CHANNELS__ÖRDERS__PREFETCH", "not a valid name"),
        ("GEARSHIFT_CHANNELS__A_B__PREFETCH", "could mean 'a-b' or 'a.b'"),
        ("GEARSHIFT_CHANNELS__orders__codec", "both set channels.orders.codec"),
    ],
)
def test_a_variable_that_means_nothing_is_refused_by_name(
    load: Load, variable: str, says: str
) -> None:
    environ = {variable: "value", "GEARSHIFT_CHANNELS__ORDERS__CODEC": "json"}
    text = orders("prefetch = 5\n[channels.'a-b']\n[channels.'a.b']")
    with pytest.raises(ConfigError) as caught:
        load(text, environ)
    assert says in str(caught.value)
    assert variable in str(caught.value) or "both set" in says


# ── Bad inputs ───────────────────────────────────────────────────────────────────────────────────

BAD_FILES: list[tuple[str | bytes, str]] = [
    ("a b", "gearshift.toml:1: not valid TOML"),
    ("[profiles.x]\nbackend = fake", "gearshift.toml:2: not valid TOML"),
    ("a = 1\na = 2", "gearshift.toml:2: not valid TOML"),
    ("x = [1,\n2", "gearshift.toml:2: not valid TOML"),
    ("x = " + "[" * 5000, "nested too deep"),
    ("x = " + "[" * 40 + "]" * 40, "nested over 32 deep"),
    ("[" + ".".join("a" * 40) + "]", "nested over 32 deep"),
    ("x = " + "9" * 5000, "gearshift.toml:1: not valid TOML"),
    (b"ok = 1\nx = '\xff'", "gearshift.toml:2: is not UTF-8 text"),
    ("a = 1".encode("utf-16"), "is not UTF-8 text"),
    (b"#" * 1_000_001, "over 1000000 bytes"),
    ("profils = 1", "gearshift.toml:1: profils = 1: unknown section 'profils' (hint: did you mean"),
    ("[profle.x]", "unknown section 'profle'"),
    ("profiles = 5", ":1: profiles = 5: expected a table (hint: write [profiles.NAME])"),
    ("[[channels]]", "channels = [{}]: expected a table"),
    ("[profiles]\nx = 5", "gearshift.toml:2: profiles.x = 5: expected a table"),
    ("[channels]\nx = 'y'", 'channels.x = "y": expected a table'),
    ("[profiles.'a b']\nbackend = 'x'", "name 'a b' is not a valid name"),
    ("[channels.'']", "name '' is not a valid name"),
    ("[channels.'a/b']", "not a valid name"),
    ("[channels.'.']", "not a valid name"),
    (f"[channels.{'x' * 250}]", "250 characters"),
    ("profile = 5\n" + fake(), "gearshift.toml:1: profile = 5: expected a profile's name"),
    ("profile = ''\n" + fake(), "expected a profile's name"),
    ("profile = 'y'\n" + fake(), ":1: unknown profile 'y' (hint: Known: x, embedded)"),
    ("profile = 'embeded'\n" + fake(), "did you mean 'embedded'?"),
    (TWO.removeprefix('profile = "a"\n'), "no profile is selected (hint: add profile"),
    ("[profiles.x]", "gearshift.toml:1: profiles.x.backend: is missing"),
    ("[profiles.x]\nbackends = 'fake'", "did you mean 'backends' to be it?"),
    ("[profiles.x]\nbackend = 5", "gearshift.toml:2: profiles.x.backend = 5: expected a backend's"),
    ("[profiles.x]\nbackend = ' '", "expected a backend's name"),
    (fake("url = '${NOPE}'"), ':3: profiles.x.url = "${NOPE}": environment variable NOPE is not'),
    (fake("servers = ['a', '${NOPE}']"), 'profiles.x.servers[1] = "${NOPE}": environment'),
    (fake("native.a.b = '${NOPE}'"), "profiles.x.native.a.b = "),
    (fake("url = '${'"), "write $${ for a literal"),
    (fake("url = '${}'"), "without a variable's name"),
    (fake("url = '${a-b}'"), "without a variable's name"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), BAD_FILES, ids=lambda value: repr(value)[:50])
def test_a_bad_file_ends_in_one_error_with_place_and_fix(
    load: Load, text: str | bytes, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("gearshift.toml")
    assert exit_code(caught.value) == 2
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


BAD_CHANNELS = [
    ("semantics = 'topic'", "semantics = \"topic\": expected one of 'queue', 'stream'"),
    ("semantics = 5", "semantics = 5: expected one of 'queue', 'stream'"),
    ("groups = 'a'", 'groups = "a": expected a list'),
    ("groups = [5]", "groups[0] = 5: expected a text"),
    ("groups = ['']", 'groups = [""]: name \'\' is not a valid name'),
    ("groups = ['a', ' ']", "name ' ' is not a valid name"),
    ("groups = ['a', 'a']", "lists 'a' twice"),
    ("partitions = 0", "partitions = 0: must be from 1 to 10_000"),
    ("partitions = 1.5", "partitions = 1.5: expected a whole number"),
    ("partitions = 10001", "must be from 1 to 10_000"),
    ("retention_s = 0", "retention_s = 0: must be from 1"),
    ("retention_s = inf", "retention_s = inf: must be a finite number"),
    ("max_attempts = 0", "max_attempts = 0: must be from 1 to 1_000"),
    ("max_attempts = 1001", "must be from 1 to 1_000"),
    ("max_attempts = true", "max_attempts = true: expected a whole number"),
    ("max_attempts = '5'", 'max_attempts = "5": expected a whole number'),
    ("prefetch = 0", "prefetch = 0: must be from 1 to 10_000"),
    ("prefetch = 10001", "must be from 1 to 10_000"),
    ("max_processing_s = nan", "max_processing_s = nan: must be a finite number"),
    ("max_processing_s = -1", "max_processing_s = -1: must be from 0.1"),
    ("retry_delay_s = -0.1", "retry_delay_s = -0.1: must be from 0"),
    ("retry_delay_s = nan", "must be a finite number"),
    ('rate_limit = "fast"', "rate_limit = \"fast\": 'fast' is no rate (hint: write it"),
    ("retry_max_delay_s = -inf", "must be a finite number"),
    ("retry_delay_s = 5\nretry_max_delay_s = 1", "max_delay_s = 1: is less than retry_delay_s (5)"),
    ("dead_letter = 5", "dead_letter = 5: expected"),
    ("dead_letter = ''", "dead_letter = \"\": name '' is not a valid name"),
    ("dead_letter = 'orders'", 'dead_letter = "orders": is the channel itself (hint: name another'),
    ("dead_letter = 'b'\n[channels.b]\ndead_letter = 'orders'", ": orders -> b -> orders"),
    ("requires = 'replay'", "expected a list"),
    ("requires = [5]", "requires = [5]: expected texts"),
    ("requires = ['replays']", "unknown capability 'replays' in requires (hint: one of redelivery"),
    ("requires = ['order=keys']", "unknown level 'keys' of order (hint: one of none"),
    ("requires = ['replay', 'replay']", "names 'replay' twice"),
    ("codec = ' '", "codec = \" \": is blank"),
    ("native = 5", "native = 5: expected a table"),
    ("native.fake = 5", "native.fake = 5: expected a table"),
    ("native.sqlit = {}", "no profile has this backend (hint: did you mean 'sqlite'?)"),
    ("max_atempts = 5", "unknown setting 'max_atempts' (hint: did you mean 'max_attempts'? Kn"),
    ("colour = 'red'", "unknown setting 'colour' (hint: Known: semantics"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "says"), BAD_CHANNELS, ids=lambda value: repr(value)[:50])
def test_a_bad_channel_setting_names_line_field_value_and_fix(
    load: Load, body: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(orders(body))
    assert says in str(caught.value)
    line = 3 if "\nretry_max" in body else 2
    assert str(caught.value).startswith(f"gearshift.toml:{line}: channels.orders.")
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prefetch", 0),
        ("groups", ("",)),
        ("requires", ("x",)),
        ("retry_delay_s", float("nan")),
        ("retry_max_delay_s", 0.5),
        ("dead_letter", "a/b"),
    ],
)
def test_settings_made_in_code_are_checked_in_the_same_way(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}"):
        ChannelSettings(**{field: value})


def test_a_long_channel_name_needs_a_dead_letter_of_its_own(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"dead_letter: name .* is not a valid name"):
        load(f"[channels.{'x' * 198}]\n")
    assert load(f"[channels.{'x' * 198}]\ndead_letter = 'dead'\n").channels


def test_a_ring_elsewhere_is_reported_by_its_members(load: Load) -> None:
    ring = "".join(f"[channels.{a}]\ndead_letter = '{b}'\n" for a, b in ("ab", "bc", "cb"))
    with pytest.raises(ConfigError, match=r"channels\.b\.dead_letter = \"c\": leads back"):
        load(ring)


BAD_SETTINGS = [
    ("prot = 5", "x.prot = 5: unknown setting 'prot' (hint: did you mean 'port'? Known: "),
    ("port = '5'", 'profiles.x.port = "5": expected a whole number'),
    ("port = 5.5", "profiles.x.port = 5.5: expected a whole number"),
    ("port = 13", "profiles.x.port = 13: 13 brings bad luck"),
    ("wait_s = -1", "profiles.x.wait_s = -1: must not be negative (hint: use 0 or more)"),
    ("wait_s = 'x'", "expected a number"),
    ("mode = 'slow'", "profiles.x.mode = \"slow\": expected one of 'fast', 'safe'"),
    ("level = 10", "profiles.x.level = 10: must be <= 9"),
    ("mode = 'fast'\nlevel = 9", 'profiles.x.mode = "fast": mode and level do not go together'),
    ("servers = 'a'", "profiles.x.servers = \"a\": expected a list"),
    ("servers = ['a', 5]", "profiles.x.servers[1] = 5: expected a text in quotes"),
    ("sasl = 5", "profiles.x.sasl = ***: expected a text in quotes"),
    ("data = 5", "profiles.x.data = 5: expected a text in quotes"),
    ("data = ''", 'profiles.x.data = "": is not a path'),
    ("data = '~/x.db'", "write ${HOME}"),
    ("native = 5", "profiles.x.native = 5: expected a table"),
    ("native.a = {}\nnative.b = 5", "profiles.x.native.b = 5: expected a table"),
    ("native.a = { x = 1, 'y.z' = [1] }", 'profiles.x.native.a."y.z" = [1]: expected'),
    ("tls.verify = 5", "profiles.x.tls.verify = 5: expected true or false"),
    ("tls.verfy = true", "x.tls.verfy = true: unknown setting 'verfy' (hint: did you mean 'ver"),
    ("tls = 5", "profiles.x.tls = 5: expected a table"),
    ("either = 1.5", "profiles.x.either = 1.5: expected"),
    ("url = 'localhost'", 'profiles.x.url = "localhost": missing scheme, expected fake://'),
    ("url = 'fake://h:99999'", 'profiles.x.url = "fake://h:99999": port 99999 is not from 1'),
    ("url = 'fake://u:se/cret@h'", '= "fake://u:***@h": the user name or password has'),
]  # fmt: skip


@pytest.mark.parametrize(("body", "says"), BAD_SETTINGS, ids=lambda value: repr(value)[:50])
def test_a_bad_setting_of_a_backend_is_reported_in_the_same_form(
    load: Load, body: str, says: str
) -> None:
    found = load(fake(body))
    with pytest.raises(ConfigError) as caught:
        found.settings_for(plugin())
    assert says in str(caught.value)
    assert str(caught.value).startswith(("gearshift.toml:3: ", "gearshift.toml:4: "))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_missing_setting_and_a_bad_native_table_are_reported_with_their_path(load: Load) -> None:
    found = load(fake(orders("native.fake = { topik = 't' }")))
    with pytest.raises(ConfigError, match=r"profiles\.x\.url: is missing \(hint: add url"):
        found.settings_for(plugin(settings=Strict))
    with pytest.raises(ConfigError, match=r"channels\.orders\.native\.fake\.topik") as caught:
        found.native_for("orders", plugin())
    assert "did you mean 'topic'?" in str(caught.value)


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_named_file_that_cannot_be_read_is_an_error(load: Load, tmp_path: Path, how: str) -> None:
    def read(name: str) -> str:
        environ = {"GEARSHIFT_CONFIG": name} if how == "variable" else {}
        with pytest.raises(ConfigError) as caught:
            load(None, environ, path=name if how == "argument" else None)
        return str(caught.value)

    (tmp_path / "folder").mkdir()
    (tmp_path / "closed.toml").write_text("")
    (tmp_path / "closed.toml").chmod(0)
    assert read("nope.toml").startswith("nope.toml: no such file")
    assert read("folder").startswith("folder: is a directory")
    assert "cannot be read" in read("x\0y")
    assert "cannot be read" in read("x" * 5000)
    if os.geteuid() != 0:
        assert read("closed.toml").startswith("closed.toml: cannot be read: Permission denied")


def test_a_variable_that_is_not_text_is_named_and_not_shown(load: Load) -> None:
    with pytest.raises(ConfigError, match="variable P is not UTF-8") as caught:
        load(fake("url = 'fake://u:${P}@h'"), {"P": "canary\udcff"})
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────


def test_rows_list_every_effective_setting_with_its_origin(load: Load) -> None:
    body = """port = 5
native.producer = { "linger.ms" = 5 }
motd = '''
port = 9
'''
url = "fake://u:${P}@h"
[channels.orders]
groups = ["a"]
requires = ["order=key"]
native.fake.topic = "t"
"""
    found = load(fake(body), {"P": "p", "GEARSHIFT_CHANNELS__ORDERS__PREFETCH": "5"})
    rows = {row.key: row[1:] for row in found.rows(plugin())}
    assert len(rows) == len(found.rows(plugin()))
    assert rows["profile"] == ('"x"', "only one in gearshift.toml")
    assert rows["profiles.x.backend"] == ('"fake"', "gearshift.toml:2")
    assert rows["profiles.x.port"] == ("5", "gearshift.toml:3")
    assert rows['profiles.x.native.producer."linger.ms"'] == ("5", "gearshift.toml:4")
    assert rows["profiles.x.url"] == ('"fake://u:${P}@h"', "gearshift.toml:8")
    assert rows["profiles.x.mode"] == ('"safe"', "default")
    assert rows["profiles.x.sasl"] == ("none", "default")
    assert rows["profiles.x.tls"] == ("{verify = true, versions = []}", "default")
    assert rows["channels.orders.groups"] == ('["a"]', "gearshift.toml:10")
    assert rows["channels.orders.requires"] == ('["order=key"]', "gearshift.toml:11")
    assert rows["channels.orders.native.fake.topic"] == ('"t"', "gearshift.toml:12")
    assert rows["channels.orders.dead_letter"] == ('"orders.dead"', "default")
    assert rows["channels.orders.semantics"] == ("none", "default")
    assert rows["channels.orders.prefetch"] == (
        "5",
        "environment GEARSHIFT_CHANNELS__ORDERS__PREFETCH",
    )


def test_an_array_of_tables_does_not_lend_its_lines_to_others(load: Load) -> None:
    found = load(fake("port = 1\n[[profiles.x.servers]]\nmode = 'a'\n"))
    origins = {row.key: row.origin for row in found.rows()}
    assert origins["profiles.x.port"] == "gearshift.toml:3"
    assert origins["profiles.x.servers"] == "gearshift.toml:1"


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────

CANARY = "hunter2/c@nary:%41xyz"

#: (profile body, environment): the canary is in the settings, and each is wrong in some way.
PLANTED = [
    ("url = 'fake://u:${P}@h'\neither = 'crash'", {}),
    ("url = 'fake://u:${P}@h'\neither = 'cut'", {}),
    ("url = 'fake://u:${P}@h:99999'", {}),
    ("url = 'fake://u:${P}@'", {}),
    ("url = '${P}'", {}),
    ("url = 'fake://u:${P}'", {}),
    ("url = 'u:${P}@h'", {}),
    ("url = 'fake://${P}'", {}),
    ("url = 'other://u:${P}@h'", {}),
    ("sasl = '${P}'\neither = 'crash'", {}),
    ("port = '${P}'", {}),
    ("mode = '${P}'", {}),
    ("level = '${P}'", {}),
    ("tls.verify = '${P}'", {}),
    ("servers = ['${P}', 5]", {}),
    ("data = '~${P}'", {}),
    (f"url = 'fake://u:{CANARY}@h'", {}),
    (f"url = 'fake://u:{CANARY}@h:x'", {}),
    (f"url = 'fake://u:{CANARY}'", {}),
    (f"url = 'u:{CANARY}@h'", {}),
    (f"url = 'fake:/u:{CANARY}@h'", {}),
    (f"sasl = '{CANARY}'\neither = 'crash'", {}),
    (f"sasl = ['{CANARY}']", {}),
    (f"sasl.x = '{CANARY}'", {}),
    (f"password = '{CANARY}'", {}),
    (f"client_secret = '{CANARY}'", {}),
    (f"native.p = {{ 'sasl.password' = ['{CANARY}'] }}", {}),
    (f"native.p = {{ 'sasl.jaas.config' = ['x password=\"{CANARY}\"'] }}", {}),
    (f"port = 'user=x password={CANARY}'", {}),
    ("", {"GEARSHIFT_PROFILES__X__URL": f"fake://u:{CANARY}@h"}),
    ("port = 'x'", {"GEARSHIFT_PROFILES__X__SASL": f'["{CANARY}"]'}),
    ("port = 'x'", {"GEARSHIFT_PROFILES__X__SASL": CANARY}),
    ("either = 'crash'", {"GEARSHIFT_PROFILES__X__SASL": CANARY}),
    ("port = 'x'", {"GEARSHIFT_PROFILES__X__TOKEN": CANARY}),
]


def leaks(text: str) -> bool:
    """True if ``text`` has the canary, or a tell-tale part of it, in any spelling."""
    return any(part in text for part in ("hunter2", "nary:", "nary%3A", "41xyz"))


def chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize(("body", "environ"), PLANTED, ids=[str(n) for n in range(len(PLANTED))])
def test_no_secret_shows_in_an_error_a_traceback_a_repr_a_row_or_a_log(
    load: Load, body: str, environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = load(fake(body), {"P": CANARY, **environ})
    assert not leaks(f"{found} {found!r} {found.profiles} {found.channels}")
    assert not leaks(str(found.rows(plugin())))
    if "sasl" not in f"{body} {environ}".lower():  # only its type says that this is a secret
        assert not leaks(str(found.rows()))
    with pytest.raises(ConfigError) as caught:
        found.settings_for(plugin())
    for error in chain(caught.value):
        assert not leaks(f"{error!r} {error} {vars(error)} {error.args}")
    whole = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # This test's own frame holds the canary; every frame below it must not.
    for frame in whole.stack[1:]:
        assert not leaks(f"{frame.line} {frame.locals}")
    assert not leaks(caplog.text)


@pytest.mark.parametrize(
    "native", [f"api_key = ['{CANARY}']", f"password = '{CANARY}'", f"topic = ['u:{CANARY}@h']"]
)
def test_no_secret_of_a_channel_shows_either(load: Load, native: str) -> None:
    found = load(fake(f"[channels.orders.native.fake]\n{native}"))
    assert not leaks(str(found.rows(plugin())))
    with pytest.raises(ConfigError) as caught:
        found.native_for("orders", plugin())
    assert not any(leaks(f"{error!r} {error} {vars(error)}") for error in chain(caught.value))


def test_no_secret_shows_when_the_file_itself_is_wrong(load: Load) -> None:
    for text in (
        fake(f"password = '{CANARY}\n"),
        fake(f"password = {CANARY}\n"),
        fake(f"url = 'fake://u:{CANARY}@${{'"),
        fake(f"url = 'fake://u:{CANARY}@h${{NOPE}}'"),
        f"profiles = 'fake://u:{CANARY}@h'",
        f"url = 'fake://u:{CANARY}@h'",
        f"password = '{CANARY}'",
        f"[profiles]\npassword = '{CANARY}'",
        f"[profiles]\nurl = 'fake://u:{CANARY}@h'",
    ):
        with pytest.raises(ConfigError) as caught:
            load(text)
        for error in chain(caught.value):
            assert not leaks(f"{error!r} {error} {vars(error)}"), text


def test_good_settings_show_no_secret_and_hold_it(load: Load) -> None:
    body = f"url = 'fake://u:${{P}}@h'\nsasl = '{CANARY}'\nservers = ['${{P}}']"
    found = load(fake(body), {"P": CANARY})
    settings = found.settings_for(plugin())
    assert settings.sasl.reveal() == CANARY
    assert settings.servers == [CANARY]
    rows = {row.key: row.value for row in found.rows(plugin())}
    assert rows["profiles.x.sasl"] == "***"
    assert rows["profiles.x.url"] == '"fake://u:${P}@h"'
    assert rows["profiles.x.servers"] == '["${P}"]'
    assert found.masked(f"login with {CANARY} failed") == "login with *** failed"
    assert found.masked("login failed") == "login failed"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://u:p@h:5/v", "amqp://u:***@h:5/v"),
        ("amqp://u:p/q@h", "amqp://u:***@h"),
        ("amqp://u:p@q@h", "amqp://u:***@h"),
        ("amqp://u:a@amqp-host", "amqp://u:***@amqp-host"),
        ("amqp://a:a@a", "amqp://a:***@a"),
        ("u:p@h", "u:***@h"),
        ("amqp://u:p", "amqp://u:***"),
        ("amqp://u:${P}@h", "amqp://u:${P}@h"),
        ("amqp://u:x${P}@h", "amqp://u:***@h"),
        ("amqp://u:$${P}@h", "amqp://u:***@h"),
        ("http://h/?token=abc&x=1", "http://h/?token=***&x=1"),
        ("host=h password='a b' x=1", "host=h password=*** x=1"),
        ("amqp://h:5672", "amqp://h:5672"),
        ("amqp://h:5672/v", "amqp://h:5672/v"),
        ("amqp://[::1]:5672", "amqp://[::1]:5672"),
        ("amqp://u@h:5672/%2F", "amqp://u@h:5672/%2F"),
        ("amqp://h", "amqp://h"),
        ("h:9092", "h:9092"),
        ("12:30", "12:30"),
        ("", ""),
    ],
)
def test_the_password_of_a_url_is_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask_url(text) == masked


@pytest.mark.parametrize(
    "key",
    ["password", "PASSWORD", "sasl.password", "ssl.key.pem", "ssl.keystore.password", "token",
     "client_secret", "api_key", "access-key", "passphrase", "sasl.jaas.config", "credentials"],
)  # fmt: skip
def test_a_key_that_says_password_is_a_secret(key: str) -> None:
    assert is_secret_key(key)
    assert shown({key: "x", "a": [1]}).endswith(" = ***, a = [1]}")


@pytest.mark.parametrize("key", ["key", "routing_key", "url", "path", "monkey", "author", 5, None])
def test_other_keys_are_none(key: Any) -> None:
    assert not is_secret_key(key)


def test_a_value_is_shown_on_one_line_and_shortened() -> None:
    assert shown("a\nb\x1b") == '"a\\nb\\u001b"'
    assert shown("ü") == '"ü"'
    assert len(shown("x" * 1000)) == 160
    assert shown({"a.b": None, "c": [True, 1.5]}) == '{"a.b" = none, c = [true, 1.5]}'


def test_a_redactor_knows_every_spelling_and_the_beginning_of_a_long_secret() -> None:
    secrets = Redactor()
    secrets.learn("p'/ä-long-secret")
    secrets.learn("*")
    assert repr(secrets) == "Redactor()"
    for text in ("p'/ä-long-secret", "p%27%2F%C3%A4-long-secret", repr("p'/ä-long-secret")[1:-1]):
        assert secrets.redact(f"<{text}>") == "<***>"
    assert secrets.redact("<p'/ä-long->") == "<***>"
    assert secrets.redact("nothing") == "nothing"


def test_a_path_is_written_as_in_toml() -> None:
    assert dotted(("profiles", "x", "a.b", 0, "c")) == 'profiles.x."a.b"[0].c'


# ── A profile over another ───────────────────────────────────────────────────────────────────────

BELOW = """[profiles.below]
backend = "memory"
max_messages = 5
[profiles.chaos]
backend = "chaos"
"""


def test_a_profile_over_another_has_its_settings_and_capabilities(load: Load) -> None:
    """The plugin is that of the profile below, under its name; both profiles' settings show."""
    found = load(BELOW + 'over = "below"\nseed = 7', profile="chaos")
    assert (found.profile, found.backend, found.stack) == ("chaos", "chaos", "chaos over memory")
    made = found.load_plugin()
    assert made.name == "memory"
    assert made.capabilities == load(BELOW, profile="below").load_plugin().capabilities
    assert found.settings_for(made).seed == 7
    rows = {row.key: row.value for row in found.rows(made)}
    assert (rows["profiles.chaos.rate"], rows["profiles.below.max_messages"]) == ("0.02", "5")


def test_the_environment_reaches_both_profiles_and_no_secret_shows(load: Load) -> None:
    """References in the profile below are replaced, and what comes in is masked."""
    text = fake("url = 'fake://u:${PW}@h'\n[profiles.chaos]\nbackend = 'chaos'\nover = '${BELOW}'")
    found = load(text, {"PW": "s3cr3t-pw", "BELOW": "x"}, profile="chaos")
    assert found.over is not None
    assert found.over.settings_for(plugin()).url == "fake://u:s3cr3t-pw@h"
    assert found.masked("not s3cr3t-pw") == "not ***"
    assert "s3cr3t-pw" not in str(found.rows())


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "profiles.chaos.over: is missing"),
        ('over = "belov"', "unknown profile 'belov'"),
        ('over = "chaos"', "is the profile itself"),
        ('over = "other"', "stands over another profile itself"),
        ("over = 5", "expected a profile's name"),
        ('over = "below"\nrate = 1.5', "rate = 1.5: 1.5 is out of range, use 0 to 1"),
        ('over = "below"\nrates.late = -1', "rates.late = -1: -1.0 is out of range"),
        ('over = "below"\nquiet_s = -1', "quiet_s = -1: -1.0 is out of range"),
    ],
)
def test_what_cannot_stand_over_another_is_one_error(load: Load, line: str, what: str) -> None:
    """With the place in the file, and what to write instead."""
    other = '\n[profiles.other]\nbackend = "chaos"\nover = "below"'

    def opened() -> None:
        found = load(f"{BELOW}{line}{other}", profile="chaos")
        found.settings_for(found.load_plugin())

    with pytest.raises(ConfigError) as caught:
        opened()
    assert what in caught.value.message
    assert caught.value.message.startswith("gearshift.toml:")


def test_other_backends_stand_over_nothing(load: Load) -> None:
    """The setting is unknown there, like any that is misspelt."""
    found = load(fake('over = "y"\n[profiles.y]\nbackend = "fake"'), profile="x")
    with pytest.raises(ConfigError, match="unknown setting 'over'"):
        found.settings_for(plugin())
