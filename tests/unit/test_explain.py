"""``explain``: plain words for every capability, without any traffic, and what a switch changes."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result

import gearshift
from gearshift.capabilities import Capabilities, levels
from gearshift.cli import cli
from gearshift.errors import ConfigError
from gearshift.operations.explain import Relation, changes, explain, load_profile
from gearshift.operations.sentences import SENTENCES

SETTINGS = """\
profile = "rabbit"
[profiles.rabbit]
backend = "rabbitmq"
url = "amqps://app:${RABBIT_PASSWORD}@${RABBIT_HOST}:${RABBIT_PORT}/%2F"
[profiles.kafka]
backend = "kafka"
bootstrap_servers = ["broker.example:9092"]
tls = true
[profiles.dev]
backend = "sqlite"
[channels.orders]
max_attempts = 3
"""


@pytest.fixture(autouse=True)
def _no_traffic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test here fails if anything connects or looks up a name."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("explain must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "gearshift.toml").write_text(SETTINGS)


def _add(tmp_path: Path, text: str) -> None:
    with (tmp_path / "gearshift.toml").open("a") as file:
        file.write(text)


def _facts(profile: str, channel: str = "orders") -> dict[str, Any]:
    found = explain(load_profile(None, profile))
    (one,) = (explanation for explanation in found if explanation.channel == channel)
    return {fact.capability: fact for fact in one.facts}


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["explain", *arguments])
    assert "Traceback" not in result.output
    return result


def test_every_capability_and_level_has_its_sentence() -> None:
    """The table is as closed as the vocabulary, and its levels rise as declared."""
    fields = {field.name for field in dataclasses.fields(Capabilities)}
    assert SENTENCES.keys() == fields
    for name in fields - {"max_message_bytes"}:
        wanted = [level.value for level in levels(name)] or [False, True]
        assert list(SENTENCES[name]) == wanted
    sentences = [text for table in SENTENCES.values() for text in table.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(text.endswith(".") and len(text) < 100 for text in sentences)


@pytest.mark.parametrize("profile", ["rabbit", "kafka", "dev"])
def test_a_profile_is_explained_without_traffic_or_secrets(profile: str) -> None:
    """Variables that are not set do not matter; every capability has its fact."""
    assert _facts(profile).keys() == SENTENCES.keys()


def test_a_fact_names_the_setting_that_gives_it() -> None:
    """With its value and where it is set, defaults too."""
    assert _facts("rabbit")["dead_letter"].because == (
        'dead_letter = "orders.dead" (default)',
        "max_attempts = 3 (gearshift.toml:12)",
    )
    assert _facts("kafka")["order"].because == ("semantics is not set: kafka's default",)


def test_dead_letters_that_are_off_are_no_guarantee(tmp_path: Path) -> None:
    """What the backend could do is not what this channel does."""
    _add(tmp_path, "dead_letter = false\n")
    fact = _facts("rabbit")["dead_letter"]
    assert fact.level is False
    assert fact.because[0] == "dead_letter = false (gearshift.toml:13)"


def test_what_a_switch_changes() -> None:
    """Fact by fact: more is better, less is worse, who holds a retry is just different."""
    rabbit, kafka = (explain(load_profile(None, name)) for name in ("rabbit", "kafka"))
    there = {change.before.capability: change.relation for change in changes(rabbit, kafka)}
    back = {change.before.capability: change.relation for change in changes(kafka, rabbit)}
    assert there["replay"] is Relation.BETTER
    assert back["replay"] is Relation.WORSE
    assert there["members"] is Relation.WORSE
    assert there["max_message_bytes"] is Relation.WORSE
    assert there["native_retry"] is back["native_retry"] is Relation.DIFFERS
    assert there["durability"] is Relation.SAME
    assert {change.relation for change in changes(rabbit, rabbit)} == {Relation.SAME}


def test_requirements_of_configuration_and_handlers(tmp_path: Path) -> None:
    """Each that is not met is named with whose it is; exit code 4 on the command line."""
    _add(tmp_path, 'requires = ["fan_out", "replay", "order=key"]\n')
    app = gearshift.App()

    @app.handler("orders", requires=["seek"])
    def bill(value: object) -> None: ...

    (one,) = explain(load_profile(None, "rabbit"), app)
    assert [refusal.requires for refusal in one.refusals] == ["replay", "order=key", "seek"]
    assert one.refusals[0].error.message == (
        "the configuration requires replay, which a queue on rabbitmq does not have"
    )
    assert "bill on orders/default requires seek" in one.refusals[2].error.message
    assert explain(load_profile(None, "kafka"), app)[0].refusals == ()
    assert _run("rabbit").exit_code == 4
    assert _run("kafka").exit_code == 0
    assert _run("kafka", "rabbit").exit_code == 4


def test_what_opening_would_refuse_is_refused_here(tmp_path: Path) -> None:
    """A setting that the backend cannot keep, and semantics that it does not have."""
    _add(tmp_path, "max_processing_s = 3600\n")
    (one,) = explain(load_profile(None, "rabbit"))
    assert "consumer_timeout" in one.refusals[0].error.message
    assert _run("rabbit").exit_code == 2
    assert "fix: lower max_processing_s" in _run("rabbit").stdout


def test_channels_of_handlers_are_explained_too(tmp_path: Path) -> None:
    """Also one that no configuration lists; a group that the queue lacks is refused."""
    _add(tmp_path, 'groups = ["billing"]\n')
    app = gearshift.App()
    app.handler("orders", group="biling")(lambda value: None)
    app.handler("mails")(lambda value: None)
    orders, mails = explain(load_profile(None, "rabbit"), app)
    assert orders.refusals[0].error.hint == "did you mean 'billing'?"
    assert (mails.channel, mails.refusals) == ("mails", ())


def test_one_profile_in_words() -> None:
    """The selected one if none is named."""
    result = _run()
    assert result.exit_code == 0
    assert result.stdout.startswith("orders on rabbit (rabbitmq): a queue\n")
    for fact in _facts("rabbit").values():
        assert fact.sentence in result.stdout


def test_two_profiles_in_words() -> None:
    """Only what differs is shown, worse first, and how much is the same."""
    text = _run("rabbit", "kafka").stdout
    assert text.startswith("orders: a queue on rabbit, a stream on kafka\n")
    assert text.index("worse ") < text.index("better ")
    assert "guarantees are the same" in text
    assert SENTENCES["durability"]["broker_restart"] not in text


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_json(output: str) -> None:
    """Levels and sentences for programs."""

    def parsed(*arguments: str) -> Any:
        text = _run(*arguments, "-o", output).stdout
        return json.loads(text)[0] if output == "json" else json.loads(text)

    one, two = parsed("dev"), parsed("dev", "kafka")
    assert {fact["capability"] for fact in one["facts"]} == SENTENCES.keys()
    assert {change["capability"] for change in two["changes"]} == SENTENCES.keys()
    assert (two["before"]["backend"], two["after"]["backend"]) == ("sqlite", "kafka")


@pytest.mark.parametrize("arguments", [("nosuch",), ("dev", "nosuch"), ("--app", "nosuch:app")])
def test_what_is_not_there(arguments: tuple[str, ...]) -> None:
    """An unknown profile or app: exit code 2 and a hint."""
    result = _run(*arguments)
    assert result.exit_code == 2
    assert "hint: " in result.stderr


def test_settings_are_checked_all_the_same(tmp_path: Path) -> None:
    """A profile that could not be opened for its settings is no profile to switch to."""
    _add(tmp_path, '[profiles.bad]\nbackend = "kafka"\nbootstrap_servers = []\n')
    with pytest.raises(ConfigError, match="bootstrap_servers"):
        explain(load_profile(None, "bad"))


@pytest.mark.parametrize(
    "table",
    [
        'backend = "rabbitmq"\nurl = "${RABBITMQ_URL}"',
        'backend = "rabbitmq"\nurl = "${RABBITMQ_URL}"\ntls_ca_file = "${CA_FILE}"',
        'backend = "kafka"\nbootstrap_servers = ["${KAFKA_BOOTSTRAP}"]\ntls = true',
        'backend = "redis"\nurl = "redis://app:${PASSWORD}@${HOST}"\npassword = "${P}"',
    ],
)
def test_no_variable_need_be_set(tmp_path: Path, table: str) -> None:
    """Also where one is the whole of a setting: it explains from what is known."""
    _add(tmp_path, f"[profiles.unset]\n{table}\n")
    result = _run("dev", "unset")
    assert result.exit_code == 0, result.stderr


def test_a_variable_that_is_not_set_hides_no_refusal(tmp_path: Path) -> None:
    """What the backend refuses whatever its address is, it refuses."""
    _add(tmp_path, '[profiles.unset]\nbackend = "rabbitmq"\nurl = "${RABBITMQ_URL}"\n')
    _add(tmp_path, "[channels.slow]\nmax_processing_s = 3600\n")
    assert "consumer_timeout" in _run("unset").stdout


def _against(tmp_path: Path, old: str) -> list[str]:
    (tmp_path / "before.toml").write_text(old)
    return ["--against", "before.toml"]


def test_two_versions_of_the_settings_are_compared(tmp_path: Path) -> None:
    """Of the profile that each of them chooses; channels may come and go."""
    old = SETTINGS.replace('profile = "rabbit"', 'profile = "kafka"') + "[channels.gone]\n"
    _add(tmp_path, "[channels.fresh]\n")
    result = _run(*_against(tmp_path, old))
    assert result.exit_code == 0
    assert "orders: a stream on kafka, a queue on rabbit" in result.stdout
    assert "gone is not there any more" in result.stdout
    assert "fresh: a new queue on rabbit" in result.stdout
    assert _run("rabbit", "kafka", "--against", "before.toml").exit_code == 2


def test_annotations_stand_at_the_line_that_changed(tmp_path: Path) -> None:
    """The gravest first; a requirement that is not met is an error, and the exit code is 4."""
    old = SETTINGS + 'requires = ["redelivered=hint"]\n'
    new = old.replace('profile = "rabbit"', 'profile = "kafka"')
    (tmp_path / "gearshift.toml").write_text(new)
    result = _run(*_against(tmp_path, old), "-o", "github")
    lines = result.stdout.splitlines()
    assert result.exit_code == 4
    assert lines[0].startswith("::error file=gearshift.toml,line=1,title=orders on kafka::")
    kinds = [line.partition(" ")[0] for line in lines]
    assert kinds == sorted(kinds, key=["::error", "::warning", "::notice"].index)
    assert any("title=orders%3A worse::At most as many consumers" in line for line in lines)


def test_a_changed_channel_is_annotated_at_its_own_line(tmp_path: Path) -> None:
    """Not where the profile is chosen."""
    _add(tmp_path, 'semantics = "stream"\n')
    line = (tmp_path / "gearshift.toml").read_text().splitlines().index('semantics = "stream"') + 1
    result = _run(*_against(tmp_path, SETTINGS), "-o", "github")
    assert all(f"line={line}," in one for one in result.stdout.splitlines())


def test_the_same_is_told_to_code_scanning(tmp_path: Path) -> None:
    """A SARIF document: a rule a capability, a level and a place a result."""
    old = SETTINGS.replace('profile = "rabbit"', 'profile = "kafka"')
    document = json.loads(_run(*_against(tmp_path, old), "-o", "sarif").stdout)
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    assert {one["level"] for one in run["results"]} == {"warning", "note"}
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {one["ruleId"] for one in run["results"]} == rules
    (place,) = run["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "gearshift.toml"


def test_what_did_not_change_is_not_annotated(tmp_path: Path) -> None:
    """Nothing is printed, and the exit code is 0."""
    result = _run(*_against(tmp_path, SETTINGS), "-o", "github")
    assert (result.exit_code, result.stdout) == (0, "")
