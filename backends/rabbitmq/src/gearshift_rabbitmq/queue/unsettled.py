"""What one consumer's user has and has not settled, and settling it with the broker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import structs
from pika import exceptions

from gearshift.driver import Outcome, Received, Settlement, SettleRequest, Stored, Unstored
from gearshift_rabbitmq.queue.copies import Copies
from gearshift_rabbitmq.queue.own_returns import OwnReturns
from gearshift_rabbitmq.wire.decoding import Token

__all__ = ["Unsettled"]

logger = logging.getLogger("gearshift.rabbitmq.consumer")


class Unsettled:
    """Messages by delivery tag, in the order in which core got them. On the consumer's thread."""

    def __init__(
        self,
        channel: Any,
        copies: Copies,
        own_returns: OwnReturns,
        *,
        is_adopted: bool,
        keep_suspect: Callable[[Received], None],
    ) -> None:
        """``keep_suspect`` gets one that could not be set aside."""
        self.messages: dict[int, Received] = {}
        self.aside: dict[int, Received] = {}  # being stored among the suspects
        self._channel = channel
        self._copies = copies
        self._own_returns = own_returns
        self._is_adopted = is_adopted
        self._keep_suspect = keep_suspect
        self._retrying: dict[int, SettleRequest] = {}  # being stored for another attempt
        self._unstored: list[Received] = []  # whose retry could not be stored
        self._tags_are_in_order = True

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, messages: Iterable[Received], *, in_order: bool) -> None:
        """Core gets ``messages``, which may have come before what it has unless ``in_order``."""
        self._tags_are_in_order = in_order and (self._tags_are_in_order or not self.messages)
        for one in messages:
            self.messages[one.token.tag] = one

    def settle(self, request: SettleRequest) -> Exception | None:
        """Tell the broker; why that failed, if it did. A retry stays unacknowledged until its copy
        is confirmed."""
        token: Token = request.token
        tag, settlement = token.tag, request.settlement
        if tag not in self.messages:
            # The broker would close the AMQP channel over it, and all other work with it.
            if request.through:
                self._ack_each([earlier for earlier in self.messages if earlier < tag])
            gone: Exception = exceptions.ChannelWrongStateError("not held any more")
            return gone
        if settlement is Settlement.ACK and request.through:
            self._ack_through(tag)
        elif request.refused and self._is_adopted:
            # The owner's dead-letter exchange gets it; without one the broker drops it.
            self._end(tag)
            self._channel.basic_nack(tag, requeue=False)
        elif settlement is Settlement.ACK or settlement is Settlement.DISCARD:
            self._end(tag)
            self._channel.basic_ack(tag)
        elif settlement is Settlement.RELEASE:
            one = self.messages.pop(tag)
            (self.set_aside if one.lost else self.give_back)(one)
        else:
            assert request.message is not None, "a RETRY carries its message"
            self._retrying[tag] = request
            failed = request.attempt or token.before + 1
            self._copies.retry(token, request.message, failed, request.delay_s)
        return None

    def give_back(self, one: Received) -> None:
        """Have the broker deliver it again; that it was delivered here says nothing of it."""
        self._own_returns.add([one])
        self._channel.basic_nack(one.token.tag, requeue=True)

    def set_aside(self, one: Received) -> None:
        """Store it among the suspects; until that is confirmed it stays unacknowledged."""
        self.aside[one.token.tag] = one
        self._copies.set_aside(one)

    def set_aside_lost(self, left: Received | None) -> None:
        """At the end: given back as any other, one that is held would be lost by the broker's
        count. ``left`` is one that core has not got."""
        for one in (*self.messages.values(), *((left,) if left is not None else ())):
            if one.lost and one.token.tag not in self._retrying:
                self.messages.pop(one.token.tag, None)
                self.set_aside(one)

    def reject_over(self, tags: Iterable[int]) -> int:
        """Give back what was worked on for too long, which counts; how many that were."""
        over = [tag for tag in tags if tag in self.messages and tag not in self._retrying]
        for tag in over:
            del self.messages[tag]
            self._channel.basic_reject(tag, requeue=True)
        return len(over)

    def finish_copies(self) -> None:
        """Settle the originals whose copies are decided."""
        for tag, outcome in self._copies.outcomes():
            suspect = self.aside.pop(tag, None)
            retry = self._retrying.pop(tag, None)
            one = suspect or self.messages.pop(tag, None)
            if one is None or not self._channel.is_open:
                continue
            if outcome.stored is Stored.YES:
                self._channel.basic_ack(tag)
            elif retry is not None:
                self._keep_unstored(one, retry, outcome)
            else:
                logger.warning("a lost message could not be set aside: %r", outcome.error)
                self._keep_suspect(one)

    def take_unstored(self) -> list[Received]:
        """Retries that core has to keep, as they could not be stored."""
        unstored, self._unstored = self._unstored, []
        return unstored

    def _end(self, tag: int) -> None:
        self._own_returns.settled(self.messages.pop(tag))

    def _ack_through(self, last: int) -> None:
        tags = []
        for tag in self.messages:
            tags.append(tag)
            if tag == last:
                break
        if self._tags_are_in_order and not self._retrying and not self.aside:
            self._channel.basic_ack(last, multiple=True)
            for tag in tags:
                self._end(tag)
            return
        self._ack_each(tags)  # one for all would settle those whose copies are not confirmed yet

    def _ack_each(self, tags: Iterable[int]) -> None:
        for tag in tags:
            if tag not in self._retrying:
                self._end(tag)
                self._channel.basic_ack(tag)

    def _keep_unstored(self, one: Received, retry: SettleRequest, outcome: Outcome) -> None:
        """Have core keep it: the broker would deliver it again at once, and not count that."""
        one = structs.replace(
            one,
            attempt=(retry.attempt or one.token.before + 1) + 1,
            redelivered=True,
            lost=0,
            unstored=Unstored(outcome.error or TimeoutError("no answer"), retry.delay_s),
            return_at=None,
        )
        self.messages[one.token.tag] = one  # behind those that core has meanwhile
        self._tags_are_in_order = False
        self._unstored.append(one)
