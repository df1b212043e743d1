"""A handler of the corpus: what it is proved with, and what a proof must say of it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gearshift
from gearshift.testing.prove import Example, Proof, prove

__all__ = ["Built", "Subject", "collected", "counted_around", "producers", "subject"]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A fresh app, and how its state is seen."""

    app: gearshift.App
    state: Callable[[], Any]
    examples: Sequence[Any]
    reset: Callable[[], object] | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """``fault`` says in words what is wrong, or right; ``rule`` is the one that finds it."""

    build: Callable[[], Built]
    profile: str
    semantics: str
    rule: str | None
    processes: int

    @property
    def name(self) -> str:
        """The kind of fault."""
        return self.build.__name__.replace("_", " ")

    def proof(self, cases: int, played_on: Mapping[str, Any] | None = None) -> Proof:
        """Prove it; with a profile's settings on that, where its stories are played too."""
        built = self.build()
        settings: dict[str, Any] = {"channels": _channels(built.app, self.semantics)}
        if played_on is not None:
            settings["profiles"] = {"played": played_on}
        return prove(
            built.app,
            profile=self.profile if played_on is None else "played",
            state=built.state,
            reset=built.reset,
            examples=[_example(one, number) for number, one in enumerate(built.examples)],
            cases=cases,
            processes=self.processes,
            config=settings,
            on_broker=played_on is not None,
        )


def producers() -> Callable[[str], gearshift.Producer]:
    """A function that gives a handler its producer of a channel, opened when it is first needed."""

    @functools.cache
    def bus() -> gearshift.Bus:
        return gearshift.open()

    @functools.cache
    def producer(channel: str) -> gearshift.Producer:
        return bus().producer(channel)

    return producer


def counted_around(concurrency: int) -> tuple[gearshift.App, dict[str, int]]:
    """An app that counts what it handles, around a handler that lets another one in between; and
    where it counts."""
    app, table = gearshift.App(), {"begun": 0}

    @app.around
    async def counted(delivery: gearshift.Delivery[int]) -> AsyncIterator[None]:
        begun = table["begun"]
        yield
        table["begun"] = begun + 1

    @app.handler("payments", concurrency=concurrency)
    async def switch(value: int) -> None:
        await asyncio.sleep(0)

    return app, table


_collected: list[Subject] = []


def collected() -> list[Subject]:
    """Every subject that was made so far."""
    return list(_collected)


def subject(
    profile: str, semantics: str, rule: str | None = None, *, processes: int = 2
) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Collect the function as a subject: faulty, found by ``rule``, or right without one."""

    def collect(build: Callable[[], Built]) -> Callable[[], Built]:
        _collected.append(
            Subject(
                build=build, profile=profile, semantics=semantics, rule=rule, processes=processes
            )
        )
        return build

    return collect


def _example(one: Any, number: int) -> Any:
    return one if isinstance(one, Example) else Example(one[1], key=one[0])


def _channels(app: gearshift.App, semantics: str) -> dict[str, Any]:
    names = {handler.channel for handler in app.handlers} | {"mails", "audit", "a", "b"}
    return {name: {"semantics": semantics} for name in names}
