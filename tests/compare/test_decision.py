"""The decision is found from what was seen: hand-made findings, known answers."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from gearshift.compare import Comparison
from gearshift.compare.contrast import contrast
from gearshift.compare.decision import Decision, decide
from gearshift.compare.findings import Expectation, Finding, Number, Observation
from gearshift.compare.judges import JUDGES
from gearshift.compare.ledger import SCENARIOS, Column, Scenario
from gearshift.compare.needs import NEEDS, parse, rank, verdict
from gearshift.compare.words import filled, measured
from gearshift.errors import UsageError

DOCS = Path(__file__).parents[2] / "docs"

FOUR = ("rabbit:queue", "rabbit:stream", "kafka:stream", "kafka:queue")
TWO = ("embedded:queue", "embedded:stream")

QUEUE_LOSES = ("none", "key", "key", "none")
SAME = ("broker",) * 4


def column(name: str) -> Column:
    profile, _, semantics = name.partition(":")
    return Column(
        id=name, profile=profile, semantics=semantics, backend=profile, server=profile,  # type: ignore[arg-type]
        embedded=profile == "embedded", capabilities={},
    )  # fmt: skip


def finding(scenario: Scenario, *outcomes: str, names: tuple[str, ...] = FOUR) -> Finding:
    """A finding whose columns showed ``outcomes``; "" is one that is not clear."""
    judge = JUDGES[scenario]
    seen = []
    for name, outcome in zip(names, outcomes, strict=True):
        words = judge.outcomes.get(outcome)
        seen.append(
            Observation(
                column=name,
                outcome=outcome or "unknown",
                mark=words.mark if words else "unclear",
                shown=f"{outcome} seen",
                sentence="",
                expected=Expectation(outcome=outcome, sentence="", because=""),
                agrees="yes",
            )
        )
    clear = {one.outcome for one in seen if one.mark != "unclear"}
    return Finding(
        scenario=scenario, title=scenario, subject="", question="", summary="", handler="",
        verdict="differs" if len(clear) > 1 else "same" if all(outcomes) else "inconclusive",
        observations=tuple(seen),
    )  # fmt: skip


def decided(*findings: Finding) -> Decision:
    return decide([column(one.column) for one in findings[0].observations], findings)


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (
            [finding("ordering", *QUEUE_LOSES), finding("slow", *SAME)],
            "Queue or stream is what matters here, not the broker: both queues lose a key's "
            "order with three workers, both streams keep it.",
        ),
        (
            [finding("crash", "flagged", "flagged", "lost", "lost")],
            "The broker is what matters here, not queue or stream: rabbit:queue and "
            "rabbit:stream mark what comes again after a crash, kafka:stream and kafka:queue "
            "lose what it had.",
        ),
        (
            [
                finding("ordering", *QUEUE_LOSES),
                finding("replay", "unsupported", "replayed", "replayed", "unsupported"),
                finding("crash", "flagged", "flagged", "lost", "lost"),
            ],
            "Queue or stream matters most here, in 2 of 3 differences: both queues lose a key's "
            "order with three workers, both streams keep it.",
        ),
        (
            [finding("ordering", "none", "key", "key", "key")],
            "Each column is a case of its own: rabbit:queue loses a key's order with three "
            "workers, rabbit:stream, kafka:stream and kafka:queue keep it.",
        ),
        (
            [finding("slow", *SAME)],
            "Nothing here decides: rabbit:queue, rabbit:stream, kafka:stream and kafka:queue do "
            "the same in 1 scenario.",
        ),
        (
            [finding("slow", "", "", "", "")],
            "Nothing to decide by: none of 1 scenario has a result.",
        ),
        (
            [finding("replay", "unsupported", "replayed", names=TWO)],
            "Queue or stream is what matters here: the queue cannot read again what was handled, "
            "the stream can.",
        ),
        (
            [finding("ordering", "none", "key", names=("rabbit:queue", "kafka:stream"))],
            "rabbit:queue and kafka:stream are two different things: the queue loses a key's order "
            "with three workers, the stream keeps it.",
        ),
    ],
)
def test_the_sentence_is_found_from_the_results(findings: list[Finding], said: str) -> None:
    """What splits the columns, and the difference that most often decides."""
    assert decided(*findings).sentence == said


def test_what_decides_most_often_comes_first() -> None:
    """Ordering before a crash, whatever was run first; needs with the same columns together."""
    found = decided(
        finding("crash", "flagged", "unflagged", "unflagged", "flagged"),
        finding("replay", "unsupported", "replayed", "replayed", "unsupported"),
        finding("ordering", *QUEUE_LOSES),
    )
    assert "order" in found.sentence
    assert found.more[0] == "Neither queue can read again what was handled, both streams can."
    assert [(one.take, [reason.scenario for reason in one.reasons]) for one in found.advice] == [
        ("a stream", ["ordering", "replay"]), ("a queue", ["crash"])
    ]  # fmt: skip
    assert found.advice[0].reasons[0].unmet == "rabbit:queue and kafka:queue (none seen)"


def test_a_much_slower_recovery_is_worth_a_sentence() -> None:
    """Both behave alike, but one takes two hundred times as long."""
    crash = finding("crash", "flagged", "flagged", names=TWO)
    seen = tuple(
        msgspec.structs.replace(
            one, numbers=(Number(name="until it came again", unit="ms", values=(ms,)),)
        )
        for one, ms in zip(crash.observations, (20.0, 5800.0), strict=True)
    )
    assert decided(msgspec.structs.replace(crash, observations=seen)).more == (
        "After a crash the work came again in 0.02 s on embedded:queue and in 5.8 s on "
        "embedded:stream.",
    )


def test_an_unclear_column_is_told_and_decides_nothing() -> None:
    """Neither praised nor blamed."""
    found = finding("ordering", "none", "key", "key", "")
    columns = [column(name) for name in FOUR]
    assert contrast("ordering", found.observations, columns).endswith(
        "both streams keep it, kafka:queue is not clear"
    )
    assert [one.columns for one in decide(columns, [found]).advice] == [FOUR[1:3]]


def test_columns_are_ranked_by_what_is_needed() -> None:
    """Most needs first, of equals the one with the earlier needs, each with its costs."""
    findings = [
        finding("ordering", *QUEUE_LOSES),
        finding("replay", "unsupported", "replayed", "replayed", "unsupported"),
        finding("scaling", "any", "partitions", "partitions", "any"),
    ]
    ranked = rank(findings, parse("order, more workers"))
    assert [one.column for one in ranked] == [*FOUR[1:3], FOUR[0], FOUR[3]]
    assert [cost.need.name for cost in ranked[2].costs] == ["replay"]
    assert verdict(ranked) == (
        "Take rabbit:stream or kafka:stream: each meets order, not more-workers; no column meets "
        "all."
    )
    assert verdict(rank(findings, ["order", "replay"])) == (
        "Take rabbit:stream or kafka:stream: each meets order and replay."
    )
    assert verdict(rank(findings, ["history"])) == "No column meets history."


def test_an_unknown_need_is_refused_with_all_that_are_known() -> None:
    """Before anything is run."""
    with pytest.raises(UsageError, match="'ordr'") as refused:
        parse("replay,ordr")
    assert refused.value.hint is not None
    assert all(name in refused.value.hint for name in NEEDS)


def test_every_judge_has_words_for_every_outcome_and_needs_that_it_knows() -> None:
    """What a column promises, needs, and what is said of it are of one set."""
    assert set(JUDGES) == set(SCENARIOS) == {known.scenario for known in NEEDS.values()}
    for scenario, judge in JUDGES.items():
        for need in judge.needs:
            assert need.outcomes < set(judge.outcomes), (scenario, need.name)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (5812.3, "ms", "5.8 s"), (20.4, "ms", "0.02 s"), (1.0, "deliveries", "1 delivery"),
        (1.0, "messages", "1 message"), (2.0, "messages", "2 messages"), (312.4, "messages/s",
        "312 messages/s"), (93.0, "%", "93 %"), (None, "ms", "n/a"), (1234.5, "", "1,234.5"),
    ],
)  # fmt: skip
def test_numbers_are_told_as_people_say_them(value: float | None, unit: str, said: str) -> None:
    """Seconds, singulars, no digits that mean nothing."""
    assert measured(value, unit) == said


def test_templates_take_numbers_with_and_without_their_unit() -> None:
    """And say so where one is not known."""
    numbers = [Number(name="a b", unit="messages", values=(1.0, 3.0, 2.0))]
    assert filled("{a b} of {a b:unit}, {c}", numbers) == "2 of 2 messages, an unknown number"


def test_the_answers_in_the_documents_are_those_of_the_gallery() -> None:
    """Each question of ``choosing.md`` with its command, its answer and its evidence."""
    found = Comparison.load(DOCS / "gallery" / "rabbitmq-kafka.html")
    rows = re.findall(
        r"^\| [^|]* \| `gearshift compare --need ([\w,-]+)` \| ([^|]+) \| (\S+): ([^|]+) \|$",
        (DOCS / "choosing.md").read_text(),
        re.M,
    )
    assert len(rows) >= 8
    for needs, answer, where, evidence in rows:
        ranked = rank(found.findings, parse(needs))
        assert verdict(ranked) == answer
        assert (where, evidence) in {(one.column, a.shown) for one in ranked for a in one.answers}
