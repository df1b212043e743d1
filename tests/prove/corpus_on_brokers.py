"""Every story of the faulty handlers, played on its real broker; `make stories` names this file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

import pytest
from prove import faulty  # noqa: F401
from prove.subject import Subject, collected
from prove.table import STORIES, TAKEN_BACK_AFTER_S
from support.settings import profile_of

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

#: Stories that no broker can be made to tell at will, by what the replay says of them.
NOT_TRIED = (
    "not tried: it takes two processes, and both messages may be in one partition",
    "not tried: the broker does not give it to another process within two minutes",
    "not tried: the broker flags what it gives again",
    "not tried: what state() shows is in the other process's memory",
)


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, dict[str, str]]]:
    """What was seen of each handler's stories, by rule; the docs' table is made of it."""
    found = json.loads(STORIES.read_text(encoding="utf-8"))
    yield found
    STORIES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    "subject",
    [one for one in collected() if one.rule is not None and one.profile != "sqlite"],
    ids=lambda one: one.build.__name__,
)
def test_each_story_is_seen(
    subject: Subject, played: dict[str, dict[str, str]], request: pytest.FixtureRequest
) -> None:
    """Or the reason why it was not tried is a known one."""
    profile = tomllib.loads(profile_of(request.getfixturevalue(subject.profile)))
    if subject.profile == "rabbitmq":
        profile["consumer_timeout_s"] = TAKEN_BACK_AFTER_S
    told = {one.rule: str(one.on_broker) for one in subject.proof(150, profile).stories}
    for text in told.values():
        assert text.startswith(("seen on ", *NOT_TRIED)), told
    played[subject.name] = {
        rule: "seen" if text.startswith("seen") else text for rule, text in told.items()
    }
